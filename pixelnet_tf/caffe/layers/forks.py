"""Layers of well-known forks of Caffe: BN of SegNet and PSPNet, SegNet's Upsample, DeepLab's
Interp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import CaffeLayer, GivenFiller, GradientOf, Size, require
from pixelnet_tf.caffe.layout import Shape, from_caffe, to_caffe
from pixelnet_tf.model.batch_norm import channel_means


class _ChannelNorm(CaffeLayer):
    """A factor and a term for each channel over `(batch, height, width, channel)`.

    The blobs have the old form of four axes, (1, channel, 1, 1).
    """

    def __init__(self, factor_filler: GivenFiller = None,
                 term_filler: GivenFiller = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor_filler = keras.initializers.get(factor_filler)
        self.term_filler = keras.initializers.get(term_filler)

    def _add_blob(self, name: str, input_shape: Shape, filler: GivenFiller,
                  trainable: bool = True) -> keras.Variable:
        if len(input_shape) != 4:
            raise ValueError(f"its input must have 4 axes, got shape {tuple(input_shape)}")
        (channels,) = self.require_known(input_shape[-1:])
        return self.add_weight(
            name=name, shape=(1, channels, 1, 1), initializer=filler, trainable=trainable
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "factor_filler": keras.initializers.serialize(self.factor_filler),
            "term_filler": keras.initializers.serialize(self.term_filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class SegNetBN(_ChannelNorm):
    """BN of SegNet's Caffe (alexgkendall/caffe-segnet), in both phases the same.

    With `learn` (mode LEARN) the input is normalised by the batch's mean and biased variance, to
    which 1e-9 is added, before the factor and the term are applied. Without it (mode INFERENCE)
    only the factor and the term are applied.
    """

    def __init__(self, learn: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learn = learn

    def build(self, input_shape: Shape) -> None:
        self.factor = self._add_blob("factor", input_shape, self.factor_filler)
        self.term = self._add_blob("term", input_shape, self.term_filler)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.factor, self.term)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        values = inputs
        if self.learn:
            mean = channel_means(inputs)
            variance = channel_means(tf.square(inputs - mean))
            values = (inputs - mean) / tf.sqrt(variance + 1e-9)
        return values * from_caffe(tf.convert_to_tensor(self.factor)) + from_caffe(
            tf.convert_to_tensor(self.term))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learn": self.learn}


@keras.saving.register_keras_serializable("pixelnet_tf")
class PSPNetBN(_ChannelNorm):
    """BN of PSPNet's Caffe (hszhao/PSPNet, after yjxiong/caffe).

    In training the batch's mean and biased variance normalise, and the stored ones become
    `momentum` times themselves plus (1 - momentum) times the batch's. In the TEST phase, and with
    `frozen` always, the stored ones normalise. Factor and term follow; they are not trained with
    `frozen`.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, frozen: bool = False,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.frozen = frozen

    def build(self, input_shape: Shape) -> None:
        trained = not self.frozen
        start = "ones" if self.frozen else "zeros"
        self.factor = self._add_blob("factor", input_shape, self.factor_filler, trained)
        self.term = self._add_blob("term", input_shape, self.term_filler, trained)
        self.mean = self._add_blob("mean", input_shape, "zeros", trainable=False)
        self.variance = self._add_blob("variance", input_shape, start, trainable=False)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.factor, self.term, self.mean, self.variance)

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        if training and not self.frozen:
            mean = channel_means(inputs)
            variance = channel_means(tf.square(inputs - mean))
            for stored, new in ((self.mean, mean), (self.variance, variance)):
                new = tf.reshape(tf.stop_gradient(new), stored.shape)
                stored.assign(self.momentum * stored + (1 - self.momentum) * new)
        else:
            mean, variance = (from_caffe(tf.convert_to_tensor(v))
                              for v in (self.mean, self.variance))
        values = (inputs - mean) / tf.sqrt(variance + self.epsilon)
        return values * from_caffe(tf.convert_to_tensor(self.factor)) + from_caffe(
            tf.convert_to_tensor(self.term))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum, "epsilon": self.epsilon, "frozen": self.frozen,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Interp(keras.layers.Layer):
    """Interp of DeepLab's Caffe: bilinear, the corners of the output on those of the input.

    It is called with `(batch, height, width, channel)`. Where neither `size` (height, width) nor
    factors are given, a second input gives the size. With factors the size s becomes
    (s - 1) // shrink + 1, and this (s - 1) * zoom + 1. `crop` says how many cells of the input are
    left out before and after.
    """

    def __init__(self, size: Sequence[int] | None = None, zoom: int | None = None,
                 shrink: int | None = None, crop: Sequence[int] = (0, 0), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = None if size is None else tuple(size)
        self.zoom = zoom
        self.shrink = shrink
        self.crop = tuple(crop)

    def call(self, inputs: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
        values, reference = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        for place in (0, 1):
            values = self._along(values, place, reference)
        return values

    def _along(self, values: tf.Tensor, place: int, reference: tf.Tensor | None) -> tf.Tensor:
        """Crop and interpolate along height (0) or width (1)."""
        axis = 1 + place
        before, after = self.crop
        cells = tf.shape(values)[axis] - before - after
        if self.size is not None:
            count = tf.constant(self.size[place])
        else:
            count = self._count(cells) if reference is None else tf.shape(reference)[axis]
        # Positions are float32 in Caffe, whatever the network's type.
        step = tf.where(count > 1, tf.cast(cells - 1, tf.float32)
                        / tf.cast(tf.maximum(count - 1, 1), tf.float32), 0.0)
        position = step * tf.cast(tf.range(count), tf.float32)
        first = tf.minimum(tf.cast(position, tf.int32), cells - 1)
        second = tf.minimum(first + 1, cells - 1)
        ratio = tf.cast(position - tf.cast(first, tf.float32), values.dtype)
        ratio = tf.reshape(ratio, (-1, 1, 1) if place == 0 else (-1, 1))
        return (tf.gather(values, before + first, axis=axis) * (1 - ratio)
                + tf.gather(values, before + second, axis=axis) * ratio)

    def _count(self, cells: Size) -> Size:
        """Size that the factors make of one, which is a number or a scalar tensor."""
        count = cells
        if self.shrink is not None:
            count = (count - 1) // self.shrink + 1
        return (count - 1) * (self.zoom or 1) + 1

    def compute_output_spec(
        self, inputs: keras.KerasTensor | Sequence[keras.KerasTensor]
    ) -> keras.KerasTensor:
        values, reference = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        if len(values.shape) != 4:
            raise ValueError(f"its input must have 4 axes, got shape {tuple(values.shape)}")
        sizes: list[int | None] = []
        for place in (0, 1):
            known = values.shape[1 + place]
            cells = None if known is None else known - sum(self.crop)
            if cells is not None and cells < 1:
                raise ValueError(f"pad_beg and pad_end {tuple(-c for c in self.crop)} leave "
                                 f"nothing of an input of {known} cells")
            if self.size is not None:
                sizes.append(self.size[place])
            elif reference is not None:
                sizes.append(reference.shape[1 + place])
            else:
                sizes.append(None if cells is None else self._count(cells))
        batch, channels = values.shape[0], values.shape[3]
        return keras.KerasTensor((batch, *sizes, channels), dtype=values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size, "zoom": self.zoom, "shrink": self.shrink, "crop": self.crop,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Upsample(keras.layers.Layer):
    """Upsample of SegNet's Caffe: called with `[values, mask]`, both of one shape `(batch, height,
    width, channel)`, where the mask is the second top of a max pooling.

    Each number goes to the cell of the output that the mask names; all other cells are 0. Where two
    numbers go to one cell, the later one in Caffe's order stays, and both get its gradient. The
    output has the `size` (height, width) or, where there is none, the input's size times `scale`,
    less `pad_out`.

    Raises `tf.errors.InvalidArgumentError` for a cell outside the output.
    """

    def __init__(self, size: Sequence[int] | None = None, scale: Sequence[int] = (2, 2),
                 pad_out: Sequence[int] = (0, 0), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = None if size is None else tuple(size)
        self.scale = tuple(scale)
        self.pad_out = tuple(pad_out)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        values, mask = (to_caffe(each) for each in inputs)
        batch, channels, *sizes = tf.unstack(tf.shape(values))
        height, width = self._sizes(sizes)
        cells = tf.reshape(tf.cast(mask, tf.int32), (batch * channels, -1))
        cells = require(
            tf.reduce_all((cells >= 0) & (cells < height * width)),
            [f"layer {self.name!r}: the mask names a cell outside the output; check that scale or "
             "upsample_h and upsample_w match the pooling; output's height, width, largest cell:",
             height, width, tf.reduce_max(cells)],
            cells,
        )
        cells += tf.range(batch * channels)[:, None] * (height * width)
        rows = _unpool(tf.reshape(values, (-1,)), tf.reshape(cells, (-1,)),
                       batch * channels * height * width)
        return from_caffe(tf.reshape(rows, (batch, channels, height, width)))

    def _sizes(self, sizes: Sequence[Size]) -> Sequence[Size]:
        if self.size is not None:
            return self.size
        return [size * scale - pad
                for size, scale, pad in zip(sizes, self.scale, self.pad_out, strict=True)]

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        values, mask = inputs
        if len(values.shape) != 4 or len(mask.shape) != 4:
            raise ValueError("its inputs must have 4 axes")
        if any(None not in pair and len(set(pair)) > 1
               for pair in zip(values.shape, mask.shape, strict=True)):
            raise ValueError(f"values {tuple(values.shape)} and mask {tuple(mask.shape)} must "
                             "have one shape")
        batch, height, width, channels = values.shape
        sizes = self.size or [None if size is None else self._sizes((size, size))[place]
                              for place, size in enumerate((height, width))]
        return keras.KerasTensor((batch, *sizes, channels), dtype=values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size, "scale": self.scale, "pad_out": self.pad_out,
        }


@tf.custom_gradient
def _unpool(values: tf.Tensor, cells: tf.Tensor,
            count: tf.Tensor) -> tuple[tf.Tensor, GradientOf]:
    """Values (number,) at their cells (number,) of (count,) zeros; the last one of a cell stays."""
    last = tf.math.unsorted_segment_max(tf.range(tf.size(values)), cells, count)
    placed = tf.gather(values, tf.maximum(last, 0))
    top = tf.where(last >= 0, placed, tf.zeros_like(placed))

    def gradient(top_diff: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        return tf.gather(top_diff, cells), None, None

    return top, gradient
