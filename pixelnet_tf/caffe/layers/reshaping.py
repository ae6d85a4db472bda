"""Caffe's layers that move numbers, and Eltwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeVar

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import Size, TensorOrSpec, require
from pixelnet_tf.caffe.layout import caffe_shape, four_axes, from_caffe, keras_axis, to_caffe

#: Sizes as they are known: when a layer is built (None: free) or run (tensors).
Known = TypeVar("Known", int | None, Size)


@keras.saving.register_keras_serializable("pixelnet_tf")
class Reshape(keras.layers.Layer):
    """Caffe's Reshape: `num_axes` axes from `axis` on (-1: all) become `shape`, in Caffe's order.

    In `shape` 0 copies the size of the axis in its place, and one -1 takes what is left. Flatten
    is `shape` (-1,).
    """

    def __init__(self, shape: Sequence[int], axis: int = 0, num_axes: int = -1,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.axis = axis
        self.num_axes = num_axes

    def _target(self, shape: Sequence[Known]) -> list[Known | int]:
        """Sizes, with -1 where one is to be found out, from sizes that may be tensors."""
        start: int = self.axis if self.axis >= 0 else len(shape) + self.axis + 1
        end: int = len(shape) if self.num_axes < 0 else start + self.num_axes
        if not 0 <= start <= end <= len(shape):
            raise ValueError(
                f"axis {self.axis} and num_axes {self.num_axes} do not fit {len(shape)} axes"
            )
        copied: list[Known | int] = list(self.shape)
        for i, size in enumerate(copied):
            if size == 0:
                if start + i >= len(shape):
                    raise ValueError(f"shape {self.shape} copies an axis that is not there")
                copied[i] = shape[start + i]
        return [*shape[:start], *copied, *shape[end:]]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = to_caffe(inputs)
        sizes = _sizes(inputs)
        target = self._target(sizes)
        given = math.prod(sizes)
        asked = math.prod(size for size in target if not isinstance(size, int) or size > 0)
        values = require(
            given % asked == 0 if -1 in self.shape else given == asked,
            [f"layer {self.name!r}: its input does not fill the shape (both in Caffe's order):",
             tf.stack(sizes), tf.stack(target)],
            inputs,
        )
        return from_caffe(tf.reshape(values, tf.stack(target)))

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        shape = list(caffe_shape(inputs.shape))
        target = self._target(shape)
        # An axis that is not known on both sides, as the batch, cancels out.
        if shape.count(None) == target.count(None) <= 1:
            given, asked = (
                math.prod(size for size in each if size is not None and size != -1)
                for each in (shape, target)
            )
            if given % asked if -1 in target else given != asked:
                raise ValueError(
                    f"an input of shape {tuple(shape)} (Caffe's order) does not fill {self.shape} "
                    f"from axis {self.axis} on, which makes it {tuple(target)}"
                )
            target = [given // asked if size == -1 else size for size in target]
        target = [None if size == -1 else size for size in target]
        if len(target) == 4:
            target = [target[0], target[2], target[3], target[1]]
        return keras.KerasTensor(tuple(target), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shape": self.shape, "axis": self.axis, "num_axes": self.num_axes,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Crop(keras.layers.Layer):
    """Caffe's Crop: cut the first input to the second's size from Caffe's `axis` on.

    `offset` is empty (0), one number for all cropped axes, or one for each.
    """

    def __init__(self, axis: int = 2, offset: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.offset = tuple(offset)

    def _cuts(self, values: TensorOrSpec,
              reference: TensorOrSpec) -> list[tuple[int, int, int, int]]:
        """Of each cropped axis: its number, its place here in both inputs, and the offset."""
        rank, other = len(values.shape), len(reference.shape)
        keras_axis(self.axis, rank)
        cropped = list(range(self.axis % rank, rank))
        if other < rank:
            raise ValueError(f"the second bottom has {other} axes, the first {rank}")
        offsets = self.offset if len(self.offset) > 1 else (self.offset or (0,)) * len(cropped)
        if len(offsets) != len(cropped):
            raise ValueError(
                f"offset {self.offset} must have one number, or one for each of the "
                f"{len(cropped)} axes from axis {self.axis} on"
            )
        return [(axis, keras_axis(axis, rank), keras_axis(axis, other), offset)
                for axis, offset in zip(cropped, offsets, strict=True)]

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        values, reference = inputs
        begin, size = [0] * len(values.shape), _sizes(values)
        for axis, place, other, offset in self._cuts(values, reference):
            given, wanted = size[place], tf.shape(reference)[other]
            begin[place] = offset
            size[place] = require(
                offset + wanted <= given,
                [f"layer {self.name!r}: axis {axis} of the first bottom is too short; its size, "
                 "that of the second, offset:", given, wanted, offset],
                wanted,
            )
        return tf.slice(values, begin, tf.stack(size))

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        values, reference = inputs
        shape = list(values.shape)
        for axis, place, other, offset in self._cuts(values, reference):
            given, wanted = shape[place], reference.shape[other]
            if None not in (given, wanted) and offset + wanted > given:
                raise ValueError(
                    f"axis {axis} of the first bottom has the size {given}, from offset {offset} "
                    f"on too short for the {wanted} of the second"
                )
            shape[place] = wanted
        return keras.KerasTensor(tuple(shape), dtype=values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "offset": self.offset}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Slice(keras.layers.Layer):
    """Caffe's Slice: cut along Caffe's `axis` at the points, or into `parts` equal parts."""

    def __init__(self, axis: int = 1, points: Sequence[int] = (), parts: int = 1,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.points = tuple(points)
        self.parts = parts

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        place = keras_axis(self.axis, len(inputs.shape))
        size = _sizes(inputs)[place]
        fits = size > self.points[-1] if self.points else size % self.parts == 0
        values = require(
            fits,
            [f"layer {self.name!r}: axis {self.axis} cannot be cut at the points {self.points} "
             f"into {self.parts} parts; its size:", size],
            inputs,
        )
        values = tf.ensure_shape(values, inputs.shape)
        if not self.points:
            return tf.split(values, self.parts, axis=place)
        edges = (0, *self.points)
        sizes = [end - start for start, end in itertools.pairwise(edges)]
        return tf.split(values, [*sizes, -1], axis=place, num=self.parts)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> list[keras.KerasTensor]:
        place = keras_axis(self.axis, len(inputs.shape))
        size = inputs.shape[place]
        if self.points and len(self.points) != self.parts - 1:
            raise ValueError(
                f"{self.parts} tops need {self.parts - 1} slice points, got {self.points}"
            )
        edges = (0, *self.points)
        lengths = [end - start for start, end in itertools.pairwise(edges)]
        if min(lengths, default=1) < 1:
            raise ValueError(f"slice points must increase from 1 on, got {self.points}")
        if not self.points and size is not None and size % self.parts:
            raise ValueError(
                f"{self.parts} tops do not share axis {self.axis} of size {size} evenly; give "
                "slice points"
            )
        if self.points and size is not None and size <= self.points[-1]:
            raise ValueError(
                f"slice points {self.points} reach past axis {self.axis} of size {size}"
            )
        sizes: list[int | None]
        if self.points:
            sizes = [*lengths, None if size is None else size - self.points[-1]]
        else:
            sizes = [None if size is None else size // self.parts] * self.parts
        shapes = [(*inputs.shape[:place], part, *inputs.shape[place + 1:]) for part in sizes]
        return [keras.KerasTensor(shape, dtype=inputs.dtype) for shape in shapes]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis, "points": self.points, "parts": self.parts,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Eltwise(keras.layers.Layer):
    """Caffe's Eltwise: PROD, SUM (with a factor for each input) or MAX of inputs of one shape.

    As in Caffe nothing is broadcast. Raises `ValueError` for inputs of unequal shapes where the
    sizes are known beforehand, else `tf.errors.InvalidArgumentError`.
    """

    def __init__(self, operation: str = "SUM", factors: Sequence[float] = (),
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.factors = tuple(factors)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        first, *others = inputs
        inputs = [first, *(
            require(
                tf.reduce_all(tf.shape(values) == tf.shape(first)),
                [f"layer {self.name!r}: its inputs have unequal shapes (Caffe's order):",
                 tf.shape(to_caffe(first)), tf.shape(to_caffe(values))],
                values,
            )
            for values in others
        )]
        if self.operation == "PROD":
            return reduce(tf.multiply, inputs)
        if self.operation == "MAX":
            # Ties: Caffe's gradient goes to the later one.
            return reduce(lambda a, b: tf.where(a > b, a, b), inputs)
        factors = self.factors or (1.0,) * len(inputs)
        terms = [v if f == 1 else v * f for v, f in zip(inputs, factors, strict=True)]
        return reduce(tf.add, terms)

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        shape = list(inputs[0].shape)
        for values in inputs[1:]:
            if len(values.shape) != len(shape) or any(
                None not in pair and pair[0] != pair[1]
                for pair in zip(values.shape, shape, strict=True)
            ):
                shapes = [caffe_shape(each.shape) for each in inputs]
                raise ValueError(
                    f"its inputs must have one shape, they have {', '.join(map(str, shapes))} "
                    "(Caffe's order)"
                )
            shape = [b if a is None else a for a, b in zip(shape, values.shape, strict=True)]
        return keras.KerasTensor(tuple(shape), dtype=inputs[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(), "operation": self.operation, "factors": self.factors,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class FourAxes(keras.layers.Layer):
    """A blob as Caffe's old layers see it: axes that are missing after the last are 1."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return four_axes(inputs)


@keras.saving.register_keras_serializable("pixelnet_tf")
class Tile(keras.layers.Layer):
    """Caffe's Tile: the input `tiles` times, one after the other along Caffe's `axis`."""

    def __init__(self, tiles: int, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tiles = tiles
        self.axis = axis

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        place = keras_axis(self.axis, len(inputs.shape))
        return tf.tile(inputs, [self.tiles if axis == place else 1
                                for axis in range(len(inputs.shape))])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tiles": self.tiles, "axis": self.axis}


@keras.saving.register_keras_serializable("pixelnet_tf")
class Filter(keras.layers.Layer):
    """Caffe's Filter: called with `[values_1, ..., selector]`, it keeps some samples of each.

    The selector has one number for each sample, which is left out where the number is 0. The
    selector gets no gradient.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        *blobs, selector = inputs
        kept = tf.where(tf.reshape(selector, (-1,)) != 0)[:, 0]
        return [tf.gather(values, kept) for values in blobs]

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> list[keras.KerasTensor]:
        return [keras.KerasTensor((None, *values.shape[1:]), dtype=values.dtype)
                for values in inputs[:-1]]


@keras.saving.register_keras_serializable("pixelnet_tf")
class BatchReindex(keras.layers.Layer):
    """Caffe's BatchReindex: called with `[values, numbers]`, it returns the samples so numbered.

    Raises `tf.errors.InvalidArgumentError` for a sample that is not there.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        values, numbers = inputs
        if len(numbers.shape) != 1:
            raise ValueError(f"its numbers must have one axis, got shape {tuple(numbers.shape)}")
        rows, batch = tf.cast(numbers, tf.int32), tf.shape(values)[0]
        rows = require(
            tf.reduce_all((rows >= 0) & (rows < batch)),
            [f"layer {self.name!r}: a sample's number lies outside the batch; smallest, largest, "
             "batch:", tf.reduce_min(rows), tf.reduce_max(rows), batch],
            rows,
        )
        return tf.gather(values, rows)


def _sizes(values: tf.Tensor) -> list[Size]:
    """Sizes of a tensor: numbers where they are known, else scalar tensors."""
    dynamic = tf.unstack(tf.shape(values), num=len(values.shape))
    return [there if known is None else known
            for known, there in zip(values.shape, dynamic, strict=True)]
