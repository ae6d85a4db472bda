"""Caffe's Embed."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer, GivenFiller, require
from pixelnet_tf.caffe.layout import Shape, from_caffe, to_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class Embed(CaffeLayer):
    """Caffe's Embed: row i of the kernel `(inputs, units)` for each number i of the input.

    Fractions of the input are cut off. The new axis is the last of Caffe's. The input gets no
    gradient. Raises `tf.errors.InvalidArgumentError` for a number that is negative, or not below
    `inputs`.
    """

    def __init__(self, units: int, inputs: int, use_bias: bool = True,
                 kernel_filler: GivenFiller = None, bias_filler: GivenFiller = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.inputs_ = inputs
        self.use_bias = use_bias
        self.kernel_filler = keras.initializers.get(kernel_filler)
        self.bias_filler = keras.initializers.get(bias_filler)

    def build(self, input_shape: Shape) -> None:
        def filled(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
            # Fillers take Keras' order, whose last axis is the first of Caffe's blob.
            return tf.transpose(self.kernel_filler(shape[::-1], dtype))

        self.kernel = self.add_weight(
            name="kernel", shape=(self.inputs_, self.units), initializer=filled
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_filler
            )

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.kernel, self.bias) if self.use_bias else (self.kernel,)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rows = tf.cast(to_caffe(inputs), tf.int32)
        rows = require(
            tf.reduce_all((rows >= 0) & (rows < self.inputs_)),
            [f"layer {self.name!r}: a number is none of the {self.inputs_} rows; smallest, "
             "largest:", tf.reduce_min(rows), tf.reduce_max(rows)],
            rows,
        )
        values = tf.gather(tf.convert_to_tensor(self.kernel), rows)
        return from_caffe(values + self.bias if self.use_bias else values)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units, "inputs": self.inputs_, "use_bias": self.use_bias,
            "kernel_filler": keras.initializers.serialize(self.kernel_filler),
            "bias_filler": keras.initializers.serialize(self.bias_filler),
        }
