"""Caffe's layers that move numbers, and Eltwise."""

from __future__ import annotations

import itertools
from functools import reduce

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layout import caffe_shape, four_axes, from_caffe, keras_axis, to_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class Reshape(keras.layers.Layer):
    """Caffe's Reshape: `num_axes` axes from `axis` on (-1: all) become `shape`, in Caffe's order.

    In `shape` 0 copies the size of the axis in its place, and one -1 takes what is left. Flatten
    is `shape` (-1,).
    """

    def __init__(self, shape, axis=0, num_axes=-1, **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.axis = axis
        self.num_axes = num_axes

    def _target(self, shape):
        """Sizes, with -1 where one is to be found out, from sizes that may be tensors."""
        start = self.axis if self.axis >= 0 else len(shape) + self.axis + 1
        end = len(shape) if self.num_axes < 0 else start + self.num_axes
        if not 0 <= start <= end <= len(shape):
            raise ValueError(
                f"axis {self.axis} and num_axes {self.num_axes} do not fit {len(shape)} axes"
            )
        copied = list(self.shape)
        for i, size in enumerate(copied):
            if size == 0:
                if start + i >= end:
                    raise ValueError(f"shape {self.shape} copies an axis that is not there")
                copied[i] = shape[start + i]
        return [*shape[:start], *copied, *shape[end:]]

    def call(self, inputs):
        inputs = to_caffe(inputs)
        sizes = [
            dynamic if static is None else static
            for static, dynamic in zip(
                inputs.shape, tf.unstack(tf.shape(inputs), num=len(inputs.shape)), strict=True
            )
        ]
        return from_caffe(tf.reshape(inputs, tf.stack(self._target(sizes))))

    def compute_output_spec(self, inputs):
        shape = caffe_shape(inputs.shape)
        target = self._target(list(shape))
        known = [size for size in target if size not in (None, -1)]
        if -1 in target:
            total = _product(shape)
            rest = _product(target[:target.index(-1)] + target[target.index(-1) + 1:])
            found = None if total is None or rest is None else total // rest
            if found is not None and found * rest != total:
                raise ValueError(f"cannot reshape {shape} to {tuple(target)}")
            # An axis that is not known on both sides, as the batch, cancels out.
            if found is None and list(shape).count(None) == target.count(None) == 1:
                found = _product([s for s in shape if s]) // _product(known)
            target = [found if size == -1 else size for size in target]
        if len(target) == 4:
            target = [target[0], target[2], target[3], target[1]]
        return keras.KerasTensor(tuple(target), dtype=inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape, "axis": self.axis, "num_axes": self.num_axes,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Crop(keras.layers.Layer):
    """Caffe's Crop: cut the first input to the second's size from Caffe's `axis` on.

    `offset` is empty (0), one number for all cropped axes, or one for each.
    """

    def __init__(self, axis=2, offset=(), **kwargs):
        super().__init__(**kwargs)
        self.axis = axis
        self.offset = tuple(offset)

    def call(self, inputs):
        values, reference = inputs
        rank = len(values.shape)
        keras_axis(self.axis, rank)
        cropped = list(range(self.axis % rank, rank))
        offsets = self.offset if len(self.offset) > 1 else (self.offset or (0,)) * len(cropped)
        if len(offsets) != len(cropped):
            raise ValueError(f"offset {self.offset} must have one number, or {len(cropped)}")
        begin, size = [0] * rank, tf.unstack(tf.shape(values), num=rank)
        for axis, offset in zip(cropped, offsets, strict=True):
            place = keras_axis(axis, rank)
            begin[place], size[place] = offset, tf.shape(reference)[place]
        return tf.slice(values, begin, tf.stack(size))

    def compute_output_spec(self, inputs):
        values, reference = inputs
        rank = len(values.shape)
        shape = list(values.shape)
        keras_axis(self.axis, rank)
        for axis in range(self.axis % rank, rank):
            place = keras_axis(axis, rank)
            shape[place] = reference.shape[place]
        return keras.KerasTensor(tuple(shape), dtype=values.dtype)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis, "offset": self.offset}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Slice(keras.layers.Layer):
    """Caffe's Slice: cut along Caffe's `axis` at the points, or into `parts` equal parts."""

    def __init__(self, axis=1, points=(), parts=1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis
        self.points = tuple(points)
        self.parts = parts

    def call(self, inputs):
        axis = keras_axis(self.axis, len(inputs.shape))
        if not self.points:
            return tf.split(inputs, self.parts, axis=axis)
        if len(self.points) != self.parts - 1:
            raise ValueError(f"{self.parts} tops need {self.parts - 1} points, got {self.points}")
        edges = (0, *self.points)
        sizes = [end - start for start, end in itertools.pairwise(edges)]
        if min(sizes) < 1:
            raise ValueError(f"slice points must increase from 1 on, got {self.points}")
        return tf.split(inputs, [*sizes, -1], axis=axis, num=self.parts)

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis, "points": self.points, "parts": self.parts,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Eltwise(keras.layers.Layer):
    """Caffe's Eltwise: PROD, SUM (with a factor for each input) or MAX of inputs of one shape."""

    def __init__(self, operation="SUM", factors=(), **kwargs):
        super().__init__(**kwargs)
        self.operation = operation
        self.factors = tuple(factors)

    def call(self, inputs):
        if self.operation == "PROD":
            return reduce(tf.multiply, inputs)
        if self.operation == "MAX":
            # Ties: Caffe's gradient goes to the later one.
            return reduce(lambda a, b: tf.where(a > b, a, b), inputs)
        factors = self.factors or (1.0,) * len(inputs)
        terms = [v if f == 1 else v * f for v, f in zip(inputs, factors, strict=True)]
        return reduce(tf.add, terms)

    def get_config(self):
        return {
            **super().get_config(), "operation": self.operation, "factors": self.factors,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class FourAxes(keras.layers.Layer):
    """A blob as Caffe's old layers see it: axes that are missing after the last are 1."""

    def call(self, inputs):
        return four_axes(inputs)


@keras.saving.register_keras_serializable("pixelnet_tf")
class Tile(keras.layers.Layer):
    """Caffe's Tile: the input `tiles` times, one after the other along Caffe's `axis`."""

    def __init__(self, tiles, axis=1, **kwargs):
        super().__init__(**kwargs)
        self.tiles = tiles
        self.axis = axis

    def call(self, inputs):
        return tf.concat([inputs] * self.tiles, keras_axis(self.axis, len(inputs.shape)))

    def get_config(self):
        return {**super().get_config(), "tiles": self.tiles, "axis": self.axis}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Filter(keras.layers.Layer):
    """Caffe's Filter: called with `[values_1, ..., selector]`, the samples of each that the
    selector (one number a sample) does not have 0 for. The selector gets no gradient."""

    def call(self, inputs):
        *blobs, selector = inputs
        kept = tf.where(tf.reshape(selector, (-1,)) != 0)[:, 0]
        return [tf.gather(values, kept) for values in blobs]

    def compute_output_spec(self, inputs):
        return [keras.KerasTensor((None, *values.shape[1:]), dtype=values.dtype)
                for values in inputs[:-1]]


@keras.saving.register_keras_serializable("pixelnet_tf")
class BatchReindex(keras.layers.Layer):
    """Caffe's BatchReindex: called with `[values, numbers]`, the samples of these numbers.

    Raises `tf.errors.InvalidArgumentError` for a sample that is not there.
    """

    def call(self, inputs):
        values, numbers = inputs
        if len(numbers.shape) != 1:
            raise ValueError(f"its numbers must have one axis, got shape {tuple(numbers.shape)}")
        rows, batch = tf.cast(numbers, tf.int32), tf.shape(values)[0]
        known = tf.debugging.Assert(
            tf.reduce_all((rows >= 0) & (rows < batch)),
            [f"layer {self.name!r}: a sample's number lies outside the batch; smallest, largest, "
             "batch:", tf.reduce_min(rows), tf.reduce_max(rows), batch],
        )
        with tf.control_dependencies([] if known is None else [known]):
            return tf.gather(values, rows)


def _product(sizes):
    total = 1
    for size in sizes:
        if size is None:
            return None
        total *= size
    return total
