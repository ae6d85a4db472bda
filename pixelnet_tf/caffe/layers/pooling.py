"""Caffe's Pooling, and SPP, which is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import UnknownSizeError, require
from pixelnet_tf.caffe.layout import Shape, to_caffe


@keras.saving.register_keras_serializable("pixelnet_tf")
class Pooling(keras.layers.Layer):
    """Caffe's max and average pooling over `(batch, height, width, channel)`.

    Output size ceil((size + 2 pad - kernel) / stride) + 1 (floor without `ceil_mode`), less a last
    window that would start past the input and its padding's edge, if there is padding. The
    gradient of ties goes to the first cell of a window. An average divides by the part of the
    window within input and padding on both sides. A window past the input (only with a stride
    above the kernel) has the lowest float32 as its maximum. With `mask` there is a second output:
    where each maximum was, row * width + column of the input (-1 for a window past it).

    Raises `tf.errors.InvalidArgumentError` where an input is so much smaller than the kernel that
    there is no window, for which Caffe aborts; `ValueError` where sizes are known beforehand.
    """

    def __init__(self, pool: str = "MAX", kernel: Sequence[int] | None = None,
                 stride: Sequence[int] = (1, 1), pad: Sequence[int] = (0, 0),
                 ceil_mode: bool = True, mask: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool = pool
        self.kernel = None if kernel is None else tuple(kernel)
        self.stride = tuple(stride)
        self.pad = tuple(pad)
        self.ceil_mode = ceil_mode
        self.mask = mask

    def call(self, inputs: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        if self.kernel is None:
            return self._global(inputs)
        kernel, sizes = self.kernel, tf.unstack(tf.shape(inputs)[1:3])
        counts = [self._count(axis, size, kernel[axis]) for axis, size in enumerate(sizes)]
        after = [
            tf.maximum((count - 1) * stride + length - size - pad, 0)
            for count, stride, length, size, pad in zip(
                counts, self.stride, kernel, sizes, self.pad, strict=True
            )
        ]
        padding = [[0, 0], [self.pad[0], after[0]], [self.pad[1], after[1]], [0, 0]]
        if self.pool == "MAX":
            values = tf.pad(inputs, padding, constant_values=inputs.dtype.min)
            largest = self._crop(
                tf.nn.max_pool2d(values, kernel, self.stride, "VALID"), counts
            )
            return [largest, self._places(values, kernel, counts, sizes)] if self.mask else largest
        means = tf.nn.avg_pool2d(tf.pad(inputs, padding), kernel, self.stride, "VALID")
        rows, columns = (
            self._lengths(axis, counts[axis], sizes[axis], kernel[axis]) for axis in (0, 1)
        )
        cells = tf.cast(rows[:, None] * columns[None, :], inputs.dtype)[None, :, :, None]
        scale = kernel[0] * kernel[1] / cells
        return self._crop(means, counts) * scale

    def _count(self, axis: int, size: tf.Tensor, kernel: int) -> tf.Tensor:
        stride, pad = self.stride[axis], self.pad[axis]
        steps = size + 2 * pad - kernel
        count = (-(-steps // stride) if self.ceil_mode else steps // stride) + 1
        if any(self.pad):
            count -= tf.cast((count - 1) * stride >= size + pad, count.dtype)
        # TensorFlow's CPU kernel ends the process on an empty output.
        return require(
            count >= 1,
            [f"layer {self.name!r}: the input is smaller than the pooling kernel (Caffe aborts); "
             "size, kernel, stride:", size, kernel, stride],
            count,
        )

    def _lengths(self, axis: int, count: tf.Tensor, size: tf.Tensor, kernel: int) -> tf.Tensor:
        """Cells of each window within the input and its padding."""
        start = tf.range(count) * self.stride[axis] - self.pad[axis]
        return tf.minimum(start + kernel, size + self.pad[axis]) - start

    def _places(self, padded: tf.Tensor, kernel: tuple[int, ...], counts: Sequence[tf.Tensor],
                sizes: Sequence[tf.Tensor]) -> tf.Tensor:
        """Place of each window's first maximum in the input without its padding."""
        _, places = tf.nn.max_pool_with_argmax(
            tf.stop_gradient(padded), kernel, self.stride, "VALID"
        )
        cell = self._crop(places, counts) // padded.shape[-1]  # places count channels, too
        width = tf.cast(tf.shape(padded)[2], cell.dtype)
        row, column = cell // width - self.pad[0], cell % width - self.pad[1]
        height, width = (tf.cast(size, cell.dtype) for size in sizes)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return tf.cast(tf.where(inside, row * width + column, -1), padded.dtype)

    @staticmethod
    def _crop(values: tf.Tensor, counts: Sequence[tf.Tensor]) -> tf.Tensor:
        return values[:, :counts[0], :counts[1]]

    def _global(self, inputs: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        if self.pool == "AVE":
            return tf.reduce_mean(inputs, axis=(1, 2), keepdims=True)
        batch, channels = tf.shape(inputs)[0], inputs.shape[-1]
        cells = tf.transpose(tf.reshape(inputs, (batch, -1, channels)), (0, 2, 1))
        # `argmax` takes the first of ties, as Caffe; `reduce_max` would share their gradient.
        first = tf.argmax(tf.stop_gradient(cells), axis=-1)
        largest = tf.gather(cells, first[..., None], batch_dims=2)
        top, place = (tf.reshape(each, (batch, 1, 1, channels)) for each in (largest, first))
        return [top, tf.cast(place, top.dtype)] if self.mask else top

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        if self.kernel is None:
            return (batch, 1, 1, channels)
        rows, columns = (self._static(axis, size, self.kernel[axis])
                         for axis, size in enumerate((height, width)))
        return (batch, rows, columns, channels)

    def _static(self, axis: int, size: int | None, kernel: int) -> int | None:
        if size is None:
            return None
        stride, pad = self.stride[axis], self.pad[axis]
        steps = size + 2 * pad - kernel
        if steps < 0 and not self.ceil_mode:
            raise ValueError(f"kernel {kernel} is larger than the input's {size} with padding")
        count = (-(-steps // stride) if self.ceil_mode else steps // stride) + 1
        count -= int(any(self.pad) and (count - 1) * stride >= size + pad)
        if count < 1:
            raise ValueError(
                f"the input's {size} cells are fewer than the pooling kernel {kernel} (Caffe "
                "aborts)"
            )
        return count

    def compute_output_spec(
        self, inputs: keras.KerasTensor
    ) -> keras.KerasTensor | list[keras.KerasTensor]:
        if len(inputs.shape) != 4:
            raise ValueError(f"its input must have 4 axes, got shape {tuple(inputs.shape)}")
        shape = self.compute_output_shape(inputs.shape)
        tops = [keras.KerasTensor(shape, dtype=inputs.dtype) for _ in range(1 + self.mask)]
        return tops if self.mask else tops[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool": self.pool, "kernel": self.kernel, "stride": self.stride, "pad": self.pad,
            "ceil_mode": self.ceil_mode, "mask": self.mask,
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class SPP(keras.layers.Layer):
    """Caffe's SPP over `(batch, height, width, channel)`: pooling into about 1, 2 x 2, 4 x 4, ...
    bins, `levels` of them, each level as one vector in Caffe's order, one after the other.

    A level of n bins has windows of ceil(size / n) without overlap, padded by half of what they
    are too large. One level alone keeps its four axes.

    Raises `ValueError` for an input so small that the padding is a whole window, for which Caffe
    aborts.
    """

    def __init__(self, levels: int, pool: str = "MAX", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = levels
        self.pool = pool

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4:
            raise ValueError(f"its input must have 4 axes, got shape {tuple(input_shape)}")
        sizes = [size for size in input_shape[1:3] if size is not None]
        if len(sizes) < 2:
            raise UnknownSizeError(f"layer {self.name!r} needs an input of fixed size (its windows "
                                   "depend on it); build the network with fixed_shape=True")
        self.poolings = []
        for level in range(self.levels):
            kernel = [-(-size // 2**level) for size in sizes]
            pad = [(k * 2**level - size + 1) // 2 for k, size in zip(kernel, sizes, strict=True)]
            if any(p and p >= k for p, k in zip(pad, kernel, strict=True)):
                raise ValueError(f"an input of {sizes[0]} x {sizes[1]} is too small for a level of "
                                 f"{2**level} x {2**level} bins (Caffe aborts)")
            self.poolings.append(Pooling(self.pool, kernel, kernel, pad, dtype=self.dtype_policy))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        tops = [to_caffe(pooling(inputs)) for pooling in self.poolings]
        if self.levels == 1:
            return self.poolings[0](inputs)
        batch = tf.shape(inputs)[0]
        return tf.concat([
            tf.reshape(top, (batch, top.shape[1] * top.shape[2] * top.shape[3])) for top in tops
        ], axis=1)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        if not self.built:
            self.build(inputs.shape)
        shapes = [pooling.compute_output_shape(inputs.shape) for pooling in self.poolings]
        if self.levels == 1:
            return keras.KerasTensor(shapes[0], dtype=inputs.dtype)
        length = sum(math.prod(size for size in shape[1:] if size is not None) for shape in shapes)
        return keras.KerasTensor((inputs.shape[0], length), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": self.levels, "pool": self.pool}
