"""The blobs that a layer must have, as far as its settings tell, and the check against a file."""

from __future__ import annotations

import numpy as np

from prototxt_import.layer import Layer

Shape = tuple["int | None", ...]
_WEIGHTED = ("Convolution", "Deconvolution", "InnerProduct")


def expected_blobs(layer: Layer) -> tuple[Shape, ...] | None:
    """Return the shape of each blob, None in it for a size that depends on the input.

    None for a layer type whose blobs are not known here.
    """
    params = layer.params
    if layer.type in _WEIGHTED:
        outputs = params.num_output
        if layer.type == "Convolution":
            weight: Shape = (outputs, None, *params.kernel)
        elif layer.type == "Deconvolution":
            weight = (None, outputs // params.group, *params.kernel)
        else:
            weight = (None, outputs) if params.transpose else (outputs, None)
        return (weight, (outputs,)) if params.bias_term else (weight,)
    if layer.type == "BatchNorm":
        return ((None,), (None,), (1,))
    if layer.type == "Normalize":
        return ((),) if params.channel_shared else ((None,),)
    if layer.type in ("Scale", "Bias") and len(layer.bottoms) == 1:
        axes = (None,) * params.num_axes if params.num_axes >= 0 else None
        shapes = (axes, axes) if layer.type == "Scale" and params.bias_term else (axes,)
        return None if axes is None else shapes
    if layer.type == "PReLU":
        return ((),) if params.channel_shared else ((None,),)
    if layer.type == "Embed":
        weight = (params.input_dim, params.num_output)
        return (weight, (params.num_output,)) if params.bias_term else (weight,)
    if layer.type == "Parameter":
        return (params.shape,)
    if layer.type == "BN" and params.fork is not None:
        # The forks keep a channel's numbers in the old form of four axes.
        return ((1, None, 1, 1),) * (2 if params.fork == "SegNet" else 4)
    if layer.type in ("Scale", "Bias", "BN", "LSTM", "RNN"):
        return None
    return ()


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
