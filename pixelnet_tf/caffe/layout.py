"""Caffe's axis order (batch, channel, height, width) against TensorFlow's, channel last.

Blobs with four axes are kept channel last inside the models built here; blobs with any other
number of axes are kept as Caffe has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

#: Sizes of a blob's axes, None for one that is free.
Shape = tuple["int | None", ...]
Values = TypeVar("Values", np.ndarray, tf.Tensor)

_AXIS_TO_KERAS = (0, 3, 1, 2)


def to_caffe(values: Values) -> Values:
    """Tensor or array in Caffe's axis order: four axes are transposed, others stay."""
    if len(values.shape) != 4:
        return values
    return _transpose(values, (0, 3, 1, 2))


def from_caffe(values: Values) -> Values:
    """Tensor or array from Caffe's axis order into that of the models built here."""
    if len(values.shape) != 4:
        return values
    return _transpose(values, (0, 2, 3, 1))


def keras_axis(axis: int, rank: int) -> int:
    """Axis of a blob in the models built here, from its number in Caffe (negative: from the end).

    Raises `ValueError` for an axis that the blob does not have.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist in a blob of {rank} axes")
    axis %= rank
    return _AXIS_TO_KERAS[axis] if rank == 4 else axis


def four_axes(values: tf.Tensor) -> tf.Tensor:
    """Tensor with the four axes that Caffe's old layers see: those that are missing are 1."""
    if len(values.shape) > 4:
        raise ValueError(f"its input must have at most 4 axes, got shape {tuple(values.shape)}")
    if len(values.shape) == 4:
        return values
    sizes = [*tf.unstack(tf.shape(values)), 1, 1, 1][:4]
    return from_caffe(tf.reshape(values, sizes))


def caffe_shape(shape: Sequence[int | None]) -> Shape:
    """Shape in Caffe's axis order from one in that of the models built here."""
    shape = tuple(shape)
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _transpose(values: Values, order: tuple[int, ...]) -> Values:
    if hasattr(values, "__array_interface__"):
        return values.transpose(order)
    return tf.transpose(values, order)
