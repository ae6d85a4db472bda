"""Caffe's Scale and Bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer, GivenFiller, require
from pixelnet_tf.caffe.layout import Shape, caffe_shape, from_caffe, keras_axis, to_caffe


class _Affine(CaffeLayer):
    """A factor or term over `num_axes` axes from Caffe's `axis` on (-1: all of them).

    Called with one input, it has weights of its own; with two, the second takes their place.
    `weight_shape` is the weights' shape where the input's size is not fixed.
    """

    def __init__(self, axis: int = 1, num_axes: int = 1, filler: GivenFiller = None,
                 weight_shape: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.num_axes = num_axes
        self.filler = keras.initializers.get(filler)
        self.weight_shape = None if weight_shape is None else tuple(weight_shape)

    def _weight_shape(self, input_shape: Shape) -> tuple[int, ...]:
        shape = caffe_shape(input_shape)
        keras_axis(self.axis, len(shape))
        start = self.axis % len(shape)
        end = len(shape) if self.num_axes < 0 else start + self.num_axes
        if end > len(shape):
            raise ValueError(f"axis {self.axis} and num_axes {self.num_axes} exceed {shape}")
        if self.weight_shape is not None and len(self.weight_shape) == end - start:
            _check_fit(self.weight_shape, shape, start)
            return self.weight_shape
        return self.require_known(shape[start:end])

    def _second_shape(self, first: Shape, second: Shape) -> Shape:
        """Caffe's shape of a second input, which must be that of the first from `axis` on."""
        shape, second = caffe_shape(first), caffe_shape(second)
        if second:
            keras_axis(self.axis, len(shape))
            _check_fit(second, shape, self.axis % len(shape))
        return second

    def _checked(self, values: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """The second input in Caffe's order, whose sizes must be the first's when it runs, too."""
        values = to_caffe(values)
        rank = len(values.shape)
        if not rank:
            return values
        start = self.axis % len(inputs.shape)
        return require(
            tf.reduce_all(tf.shape(values) == tf.shape(to_caffe(inputs))[start:start + rank]),
            [f"layer {self.name!r}: the second bottom does not have the sizes of the first from "
             f"axis {start} on:", tf.shape(values), tf.shape(to_caffe(inputs))],
            values,
        )

    def _aligned(self, values: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """Values over Caffe's axes from `axis` on, in a shape that broadcasts to the inputs."""
        rank = len(inputs.shape)
        start = self.axis % rank
        ones = [1] * (rank - start - len(values.shape))
        return from_caffe(tf.reshape(values, tf.concat([[1] * start, tf.shape(values), ones], 0)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis, "num_axes": self.num_axes,
            "filler": keras.initializers.serialize(self.filler),
            "weight_shape": self.weight_shape,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Scale(_Affine):
    """Caffe's Scale: multiply by a learnt factor (or a second input), then add a learnt bias."""

    def __init__(self, use_bias: bool = False, bias_filler: GivenFiller = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.bias_filler = keras.initializers.get(bias_filler)

    def build(self, input_shape: Shape | Sequence[Shape]) -> None:
        first, *second = _shapes(input_shape)
        if second:
            self.factor = None
            shape = self._second_shape(first, *second)
            if self.weight_shape is not None:
                _check_fit(self.weight_shape, shape, 0)
                shape = self.weight_shape
        else:
            shape = self._weight_shape(first)
            self.factor = self.add_weight(name="factor", shape=shape, initializer=self.filler)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=self.require_known(shape), initializer=self.bias_filler
            )

    def call(self, inputs: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
        if isinstance(inputs, (list, tuple)):
            inputs, factor = inputs
            factor = self._checked(factor, inputs)
        else:
            factor = tf.convert_to_tensor(self.factor)
        values = inputs * self._aligned(factor, inputs)
        if not self.use_bias:
            return values
        return values + self._aligned(tf.convert_to_tensor(self.bias), inputs)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        own = () if self.factor is None else (self.factor,)
        return (*own, self.bias) if self.use_bias else own

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "bias_filler": keras.initializers.serialize(self.bias_filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Bias(_Affine):
    """Caffe's Bias: add a learnt term, or a second input."""

    def build(self, input_shape: Shape | Sequence[Shape]) -> None:
        self.bias = None
        first, *second = _shapes(input_shape)
        if second:
            self._second_shape(first, *second)
        else:
            self.bias = self.add_weight(
                name="bias", shape=self._weight_shape(first), initializer=self.filler
            )

    def call(self, inputs: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
        if isinstance(inputs, (list, tuple)):
            inputs, term = inputs
            return inputs + self._aligned(self._checked(term, inputs), inputs)
        return inputs + self._aligned(tf.convert_to_tensor(self.bias), inputs)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return () if self.bias is None else (self.bias,)


def _check_fit(part: Shape, shape: Shape, start: int) -> None:
    """Raise `ValueError` unless a part's known sizes are those of `shape` from an axis on."""
    sizes = shape[start:start + len(part)]
    if len(sizes) != len(part) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(part, sizes, strict=True)
    ):
        raise ValueError(f"the shape {tuple(part)} is not that of {tuple(shape)} from axis "
                         f"{start} on")


def _shapes(input_shape: Shape | Sequence[Shape]) -> list[Shape]:
    """The shape of each input, of one or of two: a reloaded model has lists for tuples."""
    several = [tuple(each) for each in input_shape if isinstance(each, (list, tuple))]
    return several or [tuple(size for size in input_shape if not isinstance(size, (list, tuple)))]
