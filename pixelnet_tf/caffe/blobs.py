"""A Keras layer's weights as Caffe's blobs, and back."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from pixelnet_tf.caffe.layers.base import KERNEL_ORDER, MATRIX_ORDER, CaffeLayer
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.batch_norm import CaffeBatchNorm


def blob_variables(layer: keras.layers.Layer) -> tuple[keras.Variable, ...]:
    """Variables of a layer in the order of Caffe's blobs; empty for a layer without blobs."""
    if isinstance(layer, CaffeLayer):
        return layer.blob_variables
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        return (layer.kernel, layer.bias) if layer.use_bias else (layer.kernel,)
    if isinstance(layer, CaffeBatchNorm):
        return (layer.mean_sum, layer.variance_sum, layer.factor)
    return ()


def get_blobs(layer: keras.layers.Layer) -> tuple[np.ndarray, ...]:
    """Weights of a layer as float32 arrays in Caffe's axis order.

    Convolution `(out, in, height, width)`, InnerProduct `(out, in)`, or `(in, out)` with Caffe's
    `transpose`.
    """
    return tuple(
        to_blob(layer, np.asarray(variable.numpy(), np.float32))
        for variable in blob_variables(layer)
    )


def to_blob(layer: keras.layers.Layer, array: np.ndarray) -> np.ndarray:
    """Return one of a layer's arrays (a weight, its gradient or its momentum) as Caffe's blob."""
    return array.transpose(_order(layer, array.ndim)).copy(order="C")


def from_blob(layer: keras.layers.Layer, blob: np.ndarray) -> np.ndarray:
    """Return the array that one of a layer's blobs stands for, which undoes `to_blob`."""
    return blob.transpose(np.argsort(_order(layer, blob.ndim)))


def set_blobs(layer: keras.layers.Layer, blobs: Sequence[np.ndarray]) -> None:
    """Give a layer weights in Caffe's axis order.

    Raises `ModelError` for another number of blobs or another shape than the layer has.
    """
    variables = blob_variables(layer)
    check_blobs(layer.name, blobs, [get_shape(layer, number) for number in range(len(variables))])
    for variable, blob in zip(variables, blobs, strict=True):
        variable.assign(from_blob(layer, blob))


def check_blobs(name: str, blobs: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `ModelError` where blobs are not of the shapes, in Caffe's order, that a layer has."""
    if len(blobs) != len(shapes):
        raise ModelError(f"layer {name!r} has {len(shapes)} weight blobs, got {len(blobs)}",
                         value=len(blobs))
    for number, (blob, wanted) in enumerate(zip(blobs, shapes, strict=True)):
        if blob.shape != wanted:
            raise ModelError(f"layer {name!r}: weight blob {number} has the shape {blob.shape} "
                             f"(Caffe's order), the network here needs {wanted}",
                             hint="check that weights and network belong together")


def get_shape(layer: keras.layers.Layer, number: int) -> tuple[int, ...]:
    """Shape of one of a layer's blobs in Caffe's axis order."""
    shape = tuple(blob_variables(layer)[number].shape)
    return tuple(shape[axis] for axis in _order(layer, len(shape)))


def _order(layer: keras.layers.Layer, rank: int) -> tuple[int, ...]:
    """Axes of a blob taken from those of the array here."""
    if isinstance(layer, CaffeLayer):
        return layer.blob_order(rank)
    if isinstance(layer, keras.layers.Conv2D) and rank == 4:
        return KERNEL_ORDER
    if isinstance(layer, keras.layers.Dense) and rank == 2:
        return MATRIX_ORDER
    return tuple(range(rank))
