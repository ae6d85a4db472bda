"""Caffe's layers that make fewer numbers of many: Reduction and ArgMax."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layout import caffe_shape, from_caffe, keras_axis, to_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class Reduction(keras.layers.Layer):
    """Caffe's Reduction of all axes from Caffe's `axis` on: SUM, ASUM (of absolute values), SUMSQ
    (of squares) or MEAN, times `factor`."""

    def __init__(self, operation: str = "SUM", axis: int = 0, factor: float = 1.0,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.axis = axis
        self.factor = factor

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = to_caffe(inputs)
        rank = len(inputs.shape)
        keras_axis(self.axis, rank)
        axes = list(range(self.axis % rank, rank))
        values = {"ASUM": tf.abs, "SUMSQ": tf.square}.get(self.operation, tf.identity)(inputs)
        reduce = tf.reduce_mean if self.operation == "MEAN" else tf.reduce_sum
        return self.factor * reduce(values, axes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "operation": self.operation, "axis": self.axis, "factor": self.factor,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class ArgMax(keras.layers.Layer):
    """Caffe's ArgMax; among equal numbers the last comes first. It has no gradient.

    With an `axis` of Caffe, which becomes `top_k` long, the result has the places of the largest
    numbers along it, or with `values` the numbers themselves. Without one (None) it has the places
    in each sample, counted in Caffe's order, as `(batch, 1, top_k)`, and with `values` places and
    numbers as `(batch, 2, top_k)`. As many axes of size 1 follow as the input has more.
    """

    def __init__(self, top_k: int = 1, axis: int | None = None, values: bool = False,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top_k = top_k
        self.axis = axis
        self.values = values

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.stop_gradient(to_caffe(inputs))
        rank = len(inputs.shape)
        if self.axis is None:
            places, values = self._largest(tf.reshape(inputs, (tf.shape(inputs)[0], -1)))
            top = tf.stack([places, values] if self.values else [places], axis=1)
            for _ in range(rank - 3):
                top = top[..., None]
            return from_caffe(top)
        keras_axis(self.axis, rank)
        order = [*(i for i in range(rank) if i != self.axis % rank), self.axis % rank]
        top = self._largest(tf.transpose(inputs, order))[self.values]
        return from_caffe(tf.transpose(top, [order.index(i) for i in range(rank)]))

    def _largest(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Places and values of the largest along the last axis."""
        values, places = tf.math.top_k(tf.reverse(rows, [-1]), self.top_k)
        return tf.cast(tf.shape(rows)[-1] - 1 - places, values.dtype), values

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        shape = caffe_shape(inputs.shape)
        if self.axis is None:
            sizes = [shape[0], 2 if self.values else 1, self.top_k]
            sizes += [1] * (len(shape) - 3)
            known = [size for size in shape[1:] if size is not None]
            available = math.prod(known) if len(known) == len(shape) - 1 else None
        else:
            keras_axis(self.axis, len(shape))
            sizes = list(shape)
            available = sizes[self.axis]
            sizes[self.axis] = self.top_k
        if available is not None and available < self.top_k:
            raise ValueError(f"top_k {self.top_k} is more than the {available} numbers there are")
        if len(sizes) == 4:
            sizes = [sizes[0], sizes[2], sizes[3], sizes[1]]
        return keras.KerasTensor(tuple(sizes), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "top_k": self.top_k, "axis": self.axis, "values": self.values,
        }
