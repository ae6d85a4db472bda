"""Caffe's layers that change each number by itself."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer, GivenFiller
from pixelnet_tf.caffe.layout import Shape, keras_axis


@keras.saving.register_keras_serializable("pixelnet_tf")
class PReLU(CaffeLayer):
    """Caffe's PReLU: numbers below zero are multiplied by a slope that is learnt for each channel.

    With `channel_shared` all channels have one slope. The channels are Caffe's axis 1.
    """

    def __init__(self, channel_shared: bool = False, filler: GivenFiller = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channel_shared = channel_shared
        self.filler = keras.initializers.get(filler)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[keras_axis(1, len(input_shape))]
        shape = () if self.channel_shared else self.require_known((channels,))
        self.slope = self.add_weight(name="slope", shape=shape, initializer=self.filler)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.slope,)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        slope = tf.convert_to_tensor(self.slope)
        if not self.channel_shared:
            rank = len(inputs.shape)
            ones = [1] * (rank - 1 - keras_axis(1, rank))
            slope = tf.reshape(slope, (-1, *ones))
        return tf.where(inputs > 0, inputs, slope * inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channel_shared": self.channel_shared,
            "filler": keras.initializers.serialize(self.filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class ELU(keras.layers.Layer):
    """Caffe's ELU: x above zero, alpha (exp(x) - 1) below."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # Bounded on the side that is not taken, whose infinite gradient would make it NaN.
        below = self.alpha * tf.math.expm1(tf.minimum(inputs, 0))
        return tf.where(inputs > 0, inputs, below)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


class _Scaled(keras.layers.Layer):
    """A function of shift + scale x."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.shift = shift

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "shift": self.shift}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Power(_Scaled):
    """Caffe's Power: (shift + scale x)^power."""

    def __init__(self, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.power * self.scale == 0:
            # Of no input, so that 0^0 is 1 and infinity times 0 does not become NaN.
            value = 1.0 if self.power == 0 else tf.pow(self.shift, self.power)
            return tf.fill(tf.shape(inputs), tf.cast(value, inputs.dtype))
        values = self.scale * inputs + self.shift
        return values if self.power == 1 else tf.pow(values, self.power)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Exp(_Scaled):
    """Caffe's Exp: base^(shift + scale x); a base of -1 is e."""

    def __init__(self, base: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        log_base = 1.0 if self.base == -1 else math.log(self.base)
        return math.exp(log_base * self.shift) * tf.exp(log_base * self.scale * inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Log(_Scaled):
    """Caffe's Log: the logarithm to `base` of shift + scale x; a base of -1 is e."""

    def __init__(self, base: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        log_base = 1.0 if self.base == -1 else math.log(self.base)
        return tf.math.log(self.scale * inputs + self.shift) / log_base

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base}


@keras.saving.register_keras_serializable("pixelnet_tf")
class AbsVal(keras.layers.Layer):
    """Caffe's AbsVal: |x|; its gradient at 0 is 0."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.abs(inputs)


@keras.saving.register_keras_serializable("pixelnet_tf")
class BNLL(keras.layers.Layer):
    """Caffe's BNLL, the binomial normal log likelihood: log(1 + exp(x))."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.math.softplus(inputs)


@keras.saving.register_keras_serializable("pixelnet_tf")
class Threshold(keras.layers.Layer):
    """Caffe's Threshold: 1 for numbers above the threshold, else 0. It has no gradient."""

    def __init__(self, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(inputs > self.threshold, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}
