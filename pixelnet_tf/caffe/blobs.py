"""A Keras layer's weights as Caffe's blobs, and back."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from pixelnet_tf.caffe.layers.affine import Bias, Scale
from pixelnet_tf.caffe.layers.convolution import Convolution, Deconvolution
from pixelnet_tf.caffe.layers.inner_product import InnerProduct
from pixelnet_tf.caffe.layers.normalize import Normalize
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.batch_norm import CaffeBatchNorm

#: Axes of Caffe's kernel (out, in, height, width) taken from Keras' (height, width, in, out).
_KERNEL_TO_CAFFE = (3, 2, 0, 1)
_KERNEL_TO_KERAS = (2, 3, 1, 0)
_CONVOLUTIONS = (keras.layers.Conv2D, Convolution, Deconvolution)
_PRODUCTS = (keras.layers.Dense, InnerProduct)


def blob_variables(layer: keras.layers.Layer) -> tuple[keras.Variable, ...]:
    """Variables of a layer in the order of Caffe's blobs; empty for a layer without blobs."""
    if isinstance(layer, (*_CONVOLUTIONS, *_PRODUCTS)):
        return (layer.kernel, layer.bias) if layer.use_bias else (layer.kernel,)
    if isinstance(layer, CaffeBatchNorm):
        return (layer.mean_sum, layer.variance_sum, layer.factor)
    if isinstance(layer, Scale):
        own = () if layer.factor is None else (layer.factor,)
        return (*own, layer.bias) if layer.use_bias else own
    if isinstance(layer, Bias):
        return () if layer.bias is None else (layer.bias,)
    if isinstance(layer, Normalize):
        return (layer.scale,)
    return ()


def get_blobs(layer: keras.layers.Layer) -> tuple[np.ndarray, ...]:
    """Weights of a layer as float32 arrays in Caffe's axis order.

    Convolution `(out, in, height, width)`, InnerProduct `(out, in)`, or `(in, out)` with Caffe's
    `transpose`.
    """
    arrays = []
    for variable in blob_variables(layer):
        array = np.asarray(variable.numpy(), np.float32)
        if array.ndim == 4:
            array = array.transpose(_KERNEL_TO_CAFFE)
        elif array.ndim == 2 and _is_turned(layer):
            array = array.T
        arrays.append(array.copy(order="C"))
    return tuple(arrays)


def set_blobs(layer: keras.layers.Layer, blobs: Sequence[np.ndarray]) -> None:
    """Give a layer weights in Caffe's axis order.

    Raises `ModelError` for another number of blobs or another shape than the layer has.
    """
    variables = blob_variables(layer)
    if len(blobs) != len(variables):
        raise ModelError(
            f"layer {layer.name!r} has {len(variables)} weight blobs, got {len(blobs)}"
        )
    for number, (variable, blob) in enumerate(zip(variables, blobs, strict=True)):
        array = blob
        if len(variable.shape) == 4 and blob.ndim == 4:
            array = blob.transpose(_KERNEL_TO_KERAS)
        elif len(variable.shape) == 2 and _is_turned(layer):
            array = blob.T
        if array.shape != tuple(variable.shape):
            wanted = get_shape(layer, number)
            raise ModelError(
                f"layer {layer.name!r}: weight blob {number} has the shape {blob.shape} (Caffe's "
                f"order), the network here needs {wanted}; check that weights and network belong "
                "together"
            )
        variable.assign(array)


def get_shape(layer: keras.layers.Layer, number: int) -> tuple[int, ...]:
    """Shape of one of a layer's blobs in Caffe's axis order."""
    shape = tuple(blob_variables(layer)[number].shape)
    if len(shape) == 4:
        return tuple(shape[axis] for axis in _KERNEL_TO_CAFFE)
    if len(shape) == 2 and _is_turned(layer):
        return shape[::-1]
    return shape


def _is_turned(layer: keras.layers.Layer) -> bool:
    """Whether Caffe holds the layer's matrix as (out, in), against Keras' (in, out)."""
    return isinstance(layer, _PRODUCTS) and not getattr(layer, "transpose", False)
