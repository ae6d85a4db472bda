"""Blobs that no bottom makes: Caffe's Parameter, and DummyData with a constant filler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer
from pixelnet_tf.caffe.layout import Shape, from_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class Parameter(CaffeLayer):
    """Caffe's Parameter: a trained blob of Caffe's `shape` as the top; it starts at zero.

    Keras wants a layer to be called with something: the input is not looked at.
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def build(self, input_shape: Shape) -> None:
        self.value = self.add_weight(name="value", shape=self.shape, initializer="zeros")

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.value,)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return from_caffe(tf.convert_to_tensor(self.value))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Constant(keras.layers.Layer):
    """A blob of Caffe's `shape` that holds one number everywhere; the input is not looked at."""

    def __init__(self, shape: Sequence[int], value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.value = value

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return from_caffe(tf.fill(self.shape, tf.constant(self.value, self.compute_dtype)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape, "value": self.value}
