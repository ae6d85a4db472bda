"""The blobs that a layer must have, as far as its settings tell, and the check against a file."""

from __future__ import annotations

import numpy as np

from prototxt_import.layer import Layer
from prototxt_import.params import (
    BiasParams,
    BNParams,
    ConvolutionParams,
    EmbedParams,
    InnerProductParams,
    NormalizeParams,
    ParameterParams,
    PReLUParams,
    ScaleParams,
)

Shape = tuple["int | None", ...]


def expected_blobs(layer: Layer) -> tuple[Shape, ...] | None:
    """Return the shape of each blob, None in it for a size that depends on the input.

    None for a layer type whose blobs are not known here.
    """
    kind = layer.type
    if kind in ("Convolution", "Deconvolution"):
        conv = layer.params_as(ConvolutionParams)
        outputs = conv.num_output
        if kind == "Convolution":
            return _with_bias((outputs, None, *conv.kernel), outputs, conv.bias_term)
        return _with_bias((None, outputs // conv.group, *conv.kernel), outputs, conv.bias_term)
    if kind == "InnerProduct":
        product = layer.params_as(InnerProductParams)
        outputs = product.num_output
        matrix = (None, outputs) if product.transpose else (outputs, None)
        return _with_bias(matrix, outputs, product.bias_term)
    if kind == "Embed":
        embed = layer.params_as(EmbedParams)
        return _with_bias((embed.input_dim, embed.num_output), embed.num_output, embed.bias_term)
    if kind == "BatchNorm":
        return (None,), (None,), (1,)
    if kind == "Normalize":
        return _per_channel(layer.params_as(NormalizeParams).channel_shared)
    if kind == "PReLU":
        return _per_channel(layer.params_as(PReLUParams).channel_shared)
    if kind == "Scale" and len(layer.bottoms) == 1:
        scale = layer.params_as(ScaleParams)
        if scale.num_axes < 0:
            return None
        return ((None,) * scale.num_axes,) * (2 if scale.bias_term else 1)
    if kind == "Bias" and len(layer.bottoms) == 1:
        axes = layer.params_as(BiasParams).num_axes
        return None if axes < 0 else ((None,) * axes,)
    if kind == "Parameter":
        return (layer.params_as(ParameterParams).shape,)
    if kind == "BN" and (fork := layer.params_as(BNParams).fork) is not None:
        # The forks keep a channel's numbers in the old form of four axes.
        return ((1, None, 1, 1),) * (2 if fork == "SegNet" else 4)
    if kind in ("Scale", "Bias", "BN", "LSTM", "RNN"):
        return None
    return ()


def _with_bias(weight: Shape, outputs: int, bias_term: bool) -> tuple[Shape, ...]:
    return (weight, (outputs,)) if bias_term else (weight,)


def _per_channel(channel_shared: bool) -> tuple[Shape, ...]:
    return ((),) if channel_shared else ((None,),)


def fold_legacy_shape(layer: Layer, index: int, array: np.ndarray) -> np.ndarray:
    """Return a blob of the old 4-axis form in the shape that its layer has today.

    Old files hold a bias as (1, 1, 1, N) and an InnerProduct's weights as (1, 1, out, in). Only
    leading axes of 1 are dropped, as Caffe's comparison of shapes does.
    """
    expected = expected_blobs(layer)
    if expected is None or index >= len(expected):
        return array
    axes = len(expected[index])
    extra = array.ndim - axes
    if extra > 0 and all(size == 1 for size in array.shape[:extra]):
        return array.reshape(array.shape[extra:])
    return array


def blob_mismatch(layer: Layer) -> str | None:
    """Return what is wrong with the blobs of `layer`, None if they fit its settings."""
    expected = expected_blobs(layer)
    if expected is None or not layer.blobs:
        return None
    if len(layer.blobs) != len(expected):
        return f"it needs {len(expected)} weight blobs, but the file holds {len(layer.blobs)}"
    spatial = layer.blobs[0].ndim - 2
    if layer.type in ("Convolution", "Deconvolution") and spatial in (1, 3):
        return (
            f"its kernel has the shape {' x '.join(map(str, layer.blobs[0].shape))}, that of a "
            f"{spatial}-D convolution; only 2-D ones are supported"
        )
    for index, (blob, shape) in enumerate(zip(layer.blobs, expected, strict=True)):
        fits = blob.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, blob.shape, strict=True)
        )
        if not fits:
            wanted = " x ".join("any" if size is None else str(size) for size in shape) or "1"
            return (
                f"blob {index} has the shape {' x '.join(map(str, blob.shape)) or '1'}, "
                f"but the layer's settings ask for {wanted}"
            )
    return None
