"""Caffe's BatchNorm: normalisation alone, with sums that decay instead of moving averages."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeBatchNorm(keras.layers.Layer):
    """Normalise each channel over all other axes, as Caffe's BatchNorm layer does.

    The channels are the last axis, or `axis`.

    It has no scale or shift of its own. Three weights, none of them trained: `mean_sum` and
    `variance_sum` (channels,) and `factor` (1,); the statistics in use are the sums divided by
    the factor, or 0 while the factor is 0. In training the batch's mean and biased variance
    normalise; then `sum = fraction * sum + new` (the variance times m / (m - 1), m values a
    channel) and `factor = fraction * factor + 1`.

    Args:
        epsilon: added to the variance.
        fraction: Caffe's moving_average_fraction.
        use_global_stats: None follows `training`; True or False fixes the choice.
        axis: number of the axis that holds the channels.
    """

    def __init__(self, epsilon: float = 1e-5, fraction: float = 0.999,
                 use_global_stats: bool | None = None, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.fraction = fraction
        self.use_global_stats = use_global_stats
        self.axis = axis

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[self.axis]
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        for name, size in (("mean_sum", channels), ("variance_sum", channels), ("factor", 1)):
            weight = self.add_weight(name=name, shape=(size,), initializer="zeros",
                                     trainable=False, dtype=dtype)
            setattr(self, name, weight)

    def statistics(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the stored mean and variance, each (channels,) float32."""
        factor = tf.convert_to_tensor(self.factor)
        scale = tf.math.divide_no_nan(1.0, factor)
        return self.mean_sum * scale, self.variance_sum * scale

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        rank = len(inputs.shape)
        if self.axis % rank == rank - 1:
            return self._normalised(inputs, training)
        order = [axis for axis in range(rank) if axis != self.axis % rank]
        order.append(self.axis % rank)
        back = [order.index(axis) for axis in range(rank)]
        return tf.transpose(self._normalised(tf.transpose(inputs, order), training), back)

    def _normalised(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        stored = self.use_global_stats if self.use_global_stats is not None else not training
        values = tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)
        if stored:
            mean, variance = self.statistics()
        else:
            mean = channel_means(values)
            variance = channel_means(tf.square(values - mean))
            count = tf.cast(tf.size(values), values.dtype) / values.shape[-1]
            unbiased = tf.where(count > 1, variance * count / tf.maximum(count - 1, 1), variance)
            self.mean_sum.assign(self.fraction * self.mean_sum + tf.stop_gradient(mean))
            self.variance_sum.assign(self.fraction * self.variance_sum + tf.stop_gradient(unbiased))
            self.factor.assign(self.fraction * self.factor + 1.0)
        normalised = (values - mean) / tf.sqrt(variance + self.epsilon)
        return tf.cast(normalised, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "fraction": self.fraction,
                "use_global_stats": self.use_global_stats, "axis": self.axis}


def channel_means(values: tf.Tensor) -> tf.Tensor:
    """Mean of each channel of (..., channels) float32 values.

    One axis after the other, rows in float64: over several axes at once TensorFlow's CPU kernel
    adds a whole column in float32, which leaves four digits on a map of 100,000 cells.
    """
    if values.shape.rank == 2:
        return tf.cast(tf.reduce_mean(tf.cast(values, tf.float64), axis=0), values.dtype)
    while values.shape.rank > 1:
        values = tf.reduce_mean(values, axis=-2)
    return values
