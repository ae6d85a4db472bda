"""Caffe's InnerProduct."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import MATRIX_ORDER, CaffeLayer, GivenFiller
from pixelnet_tf.caffe.layout import Shape, caffe_shape, from_caffe, keras_axis, to_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class InnerProduct(CaffeLayer):
    """Caffe's InnerProduct: all axes from `axis` on are one vector, in the order C, H, W.

    The kernel is `(in, out)`, or `(out, in)` where it is shared with a layer that holds it so.
    `inputs` is the length of the vector where the input's size is not fixed; `transpose` says that
    Caffe's blob is (in, out) instead of (out, in).
    """

    def __init__(self, units: int, axis: int = 1, use_bias: bool = True,
                 inputs: int | None = None, kernel_filler: GivenFiller = None,
                 bias_filler: GivenFiller = None, transpose: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.axis = axis
        self.use_bias = use_bias
        self.inputs_ = inputs
        self.transpose = transpose
        # A kernel that another layer made may be the other way round.
        self.kernel_is_turned = False
        self.kernel_filler = keras.initializers.get(kernel_filler)
        self.bias_filler = keras.initializers.get(bias_filler)

    def build(self, input_shape: Shape) -> None:
        shape = caffe_shape(input_shape)
        keras_axis(self.axis, len(shape))
        sizes = shape[self.axis:]
        if self.inputs_ is not None and None in sizes:
            length = self.inputs_
        else:
            length = math.prod(self.require_known(sizes))
        self.length = length
        self.kernel = self.add_weight(
            name="kernel", shape=(length, self.units), initializer=self.kernel_filler
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_filler
            )

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.kernel, self.bias) if self.use_bias else (self.kernel,)

    def blob_order(self, rank: int) -> tuple[int, ...]:
        is_natural = self.transpose != self.kernel_is_turned
        return MATRIX_ORDER if rank == 2 and not is_natural else super().blob_order(rank)

    def take_order(self, order: tuple[int, ...]) -> None:
        self.kernel_is_turned = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = to_caffe(inputs)
        axis = self.axis % len(inputs.shape)
        before = tf.shape(inputs)[:axis]
        rows = tf.reshape(inputs, (-1, self.length))
        values = tf.matmul(rows, self.kernel, transpose_b=self.kernel_is_turned)
        if self.use_bias:
            values += self.bias
        values = tf.reshape(values, tf.concat([before, [self.units]], 0))
        return from_caffe(tf.ensure_shape(values, (*inputs.shape[:axis], self.units)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units, "axis": self.axis, "use_bias": self.use_bias,
            "inputs": self.inputs_, "transpose": self.transpose,
            "kernel_filler": keras.initializers.serialize(self.kernel_filler),
            "bias_filler": keras.initializers.serialize(self.bias_filler),
        }
