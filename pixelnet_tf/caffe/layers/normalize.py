"""PixelNet's Normalize, and Caffe's LRN, MVN and shared BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer, GivenFiller, GradientOf
from pixelnet_tf.caffe.layout import Shape, four_axes
from pixelnet_tf.model.batch_norm import CaffeBatchNorm


@keras.saving.register_keras_serializable("pixelnet_tf")
class Normalize(CaffeLayer):
    """Divide by the L2 norm, times a scale: the Normalize layer of the authors' Caffe.

    Input `(batch, height, width, channel)` or `(batch, channel)`. The norm, whose square has
    `epsilon` added, is over all of a sample with `across_spatial`, else over the channels of each
    position. One scale for all channels with `channel_shared`; it is not trained with `fix_scale`.
    """

    def __init__(self, across_spatial: bool = True, channel_shared: bool = True,
                 fix_scale: bool = True, epsilon: float = 1e-10, scale_filler: GivenFiller = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.across_spatial = across_spatial
        self.channel_shared = channel_shared
        self.fix_scale = fix_scale
        self.epsilon = epsilon
        self.scale_filler = keras.initializers.get(scale_filler)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) not in (2, 4):
            raise ValueError(f"its input must have 2 or 4 axes, got shape {tuple(input_shape)}")
        shape = () if self.channel_shared else self.require_known(input_shape[-1:])
        self.scale = self.add_weight(
            name="scale", shape=shape, initializer=self.scale_filler, trainable=not self.fix_scale
        )

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.scale,)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(inputs.shape))) if self.across_spatial else [-1]
        square = tf.reduce_sum(inputs * inputs, axis=axes, keepdims=True)
        return inputs / tf.sqrt(square + self.epsilon) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "across_spatial": self.across_spatial, "channel_shared": self.channel_shared,
            "fix_scale": self.fix_scale, "epsilon": self.epsilon,
            "scale_filler": keras.initializers.serialize(self.scale_filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class SharedBatchNorm(CaffeLayer, CaffeBatchNorm):
    """Caffe's BatchNorm whose statistics belong to other layers as well, by their names."""

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.mean_sum, self.variance_sum, self.factor)


@keras.saving.register_keras_serializable("pixelnet_tf")
class LRN(keras.layers.Layer):
    """Caffe's local response normalisation over `(batch, height, width, channel)`.

    Across channels it is x / (k + alpha / size * sum of squares)^beta, with the sum over `size`
    channels. Within a channel the mean of the squares is over `size` by `size` pixels, of which
    those beyond the edge are zeros and count, and k is 1.
    """

    def __init__(self, size: int = 5, alpha: float = 1.0, beta: float = 0.75, k: float = 1.0,
                 within_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.within_channel = within_channel

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        reach = (self.size - 1) // 2
        if not self.within_channel:
            return tf.nn.local_response_normalization(
                inputs, reach, self.k, self.alpha / self.size, self.beta
            )
        squares = tf.pad(inputs * inputs, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        mean = tf.nn.avg_pool2d(squares, self.size, 1, "VALID")
        return inputs * (1 + self.alpha * mean) ** -self.beta

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k,
            "within_channel": self.within_channel,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class MVN(keras.layers.Layer):
    """Caffe's MVN: each channel of each sample less its mean.

    With `across_channels` a sample is taken as a whole. With `normalize_variance` the result is
    divided by the standard deviation plus `epsilon`. As in Caffe, an input with fewer than four
    axes comes out with four. The gradient is Caffe's, too: it neglects epsilon, so that it is
    finite where all numbers are equal.
    """

    def __init__(self, normalize_variance: bool = True, across_channels: bool = False,
                 epsilon: float = 1e-9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalize_variance = normalize_variance
        self.across_channels = across_channels
        self.epsilon = epsilon

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        axes = (1, 2, 3) if self.across_channels else (1, 2)
        values = four_axes(inputs)
        values = values - tf.reduce_mean(values, axes, keepdims=True)
        return _over_deviation(values, axes, self.epsilon) if self.normalize_variance else values

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "normalize_variance": self.normalize_variance,
            "across_channels": self.across_channels, "epsilon": self.epsilon,
        }


def _over_deviation(values: tf.Tensor, axes: Sequence[int], epsilon: float) -> tf.Tensor:
    """Values of mean 0 over their standard deviation plus epsilon."""

    @tf.custom_gradient
    def divided(values: tf.Tensor) -> tuple[tf.Tensor, GradientOf]:
        deviation = tf.sqrt(tf.reduce_mean(tf.square(values), axes, keepdims=True)) + epsilon
        top = values / deviation

        def gradient(top_diff: tf.Tensor) -> tf.Tensor:
            common = tf.reduce_mean(top * top_diff, axes, keepdims=True)
            return (top_diff - top * common) / deviation

        return top, gradient

    return divided(values)
