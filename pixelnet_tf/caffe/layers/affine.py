"""Caffe's Scale and Bias."""

from __future__ import annotations

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer
from pixelnet_tf.caffe.layout import caffe_shape, from_caffe, keras_axis, to_caffe


class _Affine(CaffeLayer):
    """A factor or term over `num_axes` axes from Caffe's `axis` on (-1: all of them).

    Called with one input, it has weights of its own; with two, the second takes their place.
    """

    def __init__(self, axis=1, num_axes=1, filler=None, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis
        self.num_axes = num_axes
        self.filler = keras.initializers.get(filler)

    def _weight_shape(self, input_shape):
        shape = caffe_shape(input_shape)
        keras_axis(self.axis, len(shape))
        start = self.axis % len(shape)
        end = len(shape) if self.num_axes < 0 else start + self.num_axes
        if end > len(shape):
            raise ValueError(f"axis {self.axis} and num_axes {self.num_axes} exceed {shape}")
        return self.require_known(shape[start:end])

    def _aligned(self, values, inputs):
        """Values over Caffe's axes from `axis` on, in a shape that broadcasts to the inputs."""
        rank = len(inputs.shape)
        start = self.axis % rank
        ones = [1] * (rank - start - len(values.shape))
        return from_caffe(tf.reshape(values, tf.concat([[1] * start, tf.shape(values), ones], 0)))

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis, "num_axes": self.num_axes,
            "filler": keras.initializers.serialize(self.filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Scale(_Affine):
    """Caffe's Scale: multiply by a learnt factor (or a second input), then add a learnt bias."""

    def __init__(self, use_bias=False, bias_filler=None, **kwargs):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.bias_filler = keras.initializers.get(bias_filler)

    def build(self, input_shape):
        if _is_pair(input_shape):
            self.factor = None
            shape = caffe_shape(input_shape[1])
        else:
            shape = self._weight_shape(input_shape)
            self.factor = self.add_weight(name="factor", shape=shape, initializer=self.filler)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=self.require_known(shape), initializer=self.bias_filler
            )

    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            inputs, factor = inputs
            factor = to_caffe(factor)
        else:
            factor = self.factor
        values = inputs * self._aligned(factor, inputs)
        return values + self._aligned(self.bias, inputs) if self.use_bias else values

    def get_config(self):
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "bias_filler": keras.initializers.serialize(self.bias_filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Bias(_Affine):
    """Caffe's Bias: add a learnt term, or a second input."""

    def build(self, input_shape):
        self.bias = None
        if not _is_pair(input_shape):
            self.bias = self.add_weight(
                name="bias", shape=self._weight_shape(input_shape), initializer=self.filler
            )

    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            inputs, term = inputs
            return inputs + self._aligned(to_caffe(term), inputs)
        return inputs + self._aligned(self.bias, inputs)


def _is_pair(input_shape) -> bool:
    """Whether these are the shapes of two inputs: a reloaded model has lists for tuples."""
    return isinstance(input_shape[0], (list, tuple))
