"""Caffe's Convolution and Deconvolution, and Im2col, a convolution's windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.caffe.layers.base import KERNEL_ORDER, CaffeLayer, GivenFiller, GradientOf
from pixelnet_tf.caffe.layout import Shape
from pixelnet_tf.model.fillers import CaffeFiller


class _Window(CaffeLayer):
    """Fields of Caffe's `ConvolutionParameter`; pairs are (height, width)."""

    def __init__(self, filters: int, kernel: Sequence[int], stride: Sequence[int] = (1, 1),
                 pad: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1), groups: int = 1,
                 use_bias: bool = True, kernel_filler: GivenFiller = "constant",
                 bias_filler: GivenFiller = "constant", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = tuple(kernel)
        self.stride = tuple(stride)
        self.pad = tuple(pad)
        self.dilation = tuple(dilation)
        self.groups = groups
        self.use_bias = use_bias
        self.kernel_filler = _filler(kernel_filler)
        self.bias_filler = _filler(bias_filler)

    def _add_weights(self, kernel_shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel", shape=kernel_shape, initializer=self.kernel_filler
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=self.bias_filler
            )

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        return (self.kernel, self.bias) if self.use_bias else (self.kernel,)

    def blob_order(self, rank: int) -> tuple[int, ...]:
        return KERNEL_ORDER if rank == 4 else super().blob_order(rank)

    def _check_channels(self, shape: Shape) -> int:
        if len(shape) != 4:
            kind = f", that of a {len(shape) - 2}-D convolution" if len(shape) in (3, 5) else ""
            raise ValueError(
                f"its input has the shape {tuple(shape)}{kind}; only 2-D convolutions, over four "
                "axes, are supported"
            )
        channels = shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"its {channels} input channels must be known and a multiple of group "
                f"{self.groups}"
            )
        return channels

    def _apply_groups(
        self, inputs: tf.Tensor, one_group: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        kernel_axis: int,
    ) -> tf.Tensor:
        if self.groups == 1:
            values = one_group(inputs, self.kernel)
        else:
            # TensorFlow has no gradient of grouped convolutions on a CPU.
            parts = zip(
                tf.split(inputs, self.groups, axis=-1),
                tf.split(self.kernel, self.groups, axis=kernel_axis),
                strict=True,
            )
            values = tf.concat([one_group(*part) for part in parts], axis=-1)
        return _add_bias(values, tf.convert_to_tensor(self.bias)) if self.use_bias else values

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters, "kernel": self.kernel_size, "stride": self.stride,
            "pad": self.pad, "dilation": self.dilation, "groups": self.groups,
            "use_bias": self.use_bias,
            "kernel_filler": keras.initializers.serialize(self.kernel_filler),
            "bias_filler": keras.initializers.serialize(self.bias_filler),
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class Convolution(_Window):
    """Caffe's Convolution over `(batch, height, width, channel)`.

    Output size floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1. The kernel is
    `(height, width, in / groups, out)`.
    """

    def build(self, input_shape: Shape) -> None:
        channels = self._check_channels(input_shape)
        self._add_weights((*self.kernel_size, channels // self.groups, self.filters))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        padding = [[0, 0], *([pad, pad] for pad in self.pad), [0, 0]]

        def one_group(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            if max(self.dilation) > 1:
                values = tf.pad(values, padding)
                return _dilated_conv2d(values, kernel, self.stride, self.dilation)
            return tf.nn.conv2d(values, kernel, self.stride, padding)

        return self._apply_groups(inputs, one_group, kernel_axis=3)


@keras.saving.register_keras_serializable("pixelnet_tf")
class Deconvolution(_Window):
    """Caffe's Deconvolution over `(batch, height, width, channel)`: Convolution's transpose.

    Output size stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad. The kernel is
    `(height, width, out / groups, in)`.
    """

    def build(self, input_shape: Shape) -> None:
        channels = self._check_channels(input_shape)
        self._add_weights((*self.kernel_size, self.filters // self.groups, channels))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width = tf.unstack(tf.shape(inputs)[1:3])
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        full = [
            (size - 1) * stride + length
            for size, stride, length in zip((height, width), self.stride, reach, strict=True)
        ]

        def one_group(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            return tf.nn.conv2d_transpose(
                values, _dilate(kernel, self.dilation),
                tf.stack([tf.shape(values)[0], *full, self.filters // self.groups]),
                self.stride, "VALID",
            )

        values = self._apply_groups(inputs, one_group, kernel_axis=3)
        (top, left), (rows, columns) = self.pad, full
        return values[:, top:rows - top, left:columns - left]


@keras.saving.register_keras_serializable("pixelnet_tf")
class Im2col(keras.layers.Layer):
    """Caffe's Im2col over `(batch, height, width, channel)`: the numbers that a convolution's
    window covers, as channels in the order channel, row, column."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int] = (1, 1),
                 pad: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1),
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel = tuple(kernel)
        self.stride = tuple(stride)
        self.pad = tuple(pad)
        self.dilation = tuple(dilation)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        values = tf.pad(inputs, [[0, 0], *([pad, pad] for pad in self.pad), [0, 0]])
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        counts = [
            (size - length) // stride + 1
            for size, length, stride in zip(
                tf.unstack(tf.shape(values)[1:3]), reach, self.stride, strict=True
            )
        ]
        windows = []
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                begin = [row * self.dilation[0], column * self.dilation[1]]
                end = [b + (n - 1) * s + 1
                       for b, n, s in zip(begin, counts, self.stride, strict=True)]
                windows.append(values[:, begin[0]:end[0]:self.stride[0],
                                      begin[1]:end[1]:self.stride[1]])
        stacked = tf.stack(windows, axis=-1)
        batch, height, width = tf.unstack(tf.shape(stacked)[:3])
        return tf.reshape(stacked, (batch, height, width, len(windows) * inputs.shape[-1]))

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        if len(inputs.shape) != 4 or inputs.shape[-1] is None:
            raise ValueError(f"its input must have 4 axes and known channels, got shape "
                             f"{tuple(inputs.shape)}")
        sizes = []
        for size, pad, dilation, kernel, stride in zip(
            inputs.shape[1:3], self.pad, self.dilation, self.kernel, self.stride, strict=True
        ):
            steps = None if size is None else size + 2 * pad - dilation * (kernel - 1) - 1
            if steps is not None and steps < 0:
                raise ValueError(f"kernel {kernel} is larger than the input's {size} with padding")
            sizes.append(None if steps is None else steps // stride + 1)
        channels = inputs.shape[-1] * self.kernel[0] * self.kernel[1]
        return keras.KerasTensor((inputs.shape[0], *sizes, channels), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel": self.kernel, "stride": self.stride, "pad": self.pad,
            "dilation": self.dilation,
        }


@tf.custom_gradient
def _add_bias(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, GradientOf]:
    """Add a bias to each channel; its gradient is summed in float64 over rows and images.

    TensorFlow adds up a whole map in float32: where BatchNorm makes a bias nearly irrelevant, what
    is left after the cancellation then differs from Caffe's in the fourth digit.
    """

    def gradient(top_diff: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.reduce_sum(tf.cast(top_diff, tf.float32), axis=2)
        total = tf.reduce_sum(tf.cast(rows, tf.float64), axis=(0, 1))
        return top_diff, tf.cast(total, bias.dtype)

    return values + bias, gradient


def _dilated_conv2d(values: tf.Tensor, kernel: tf.Tensor, stride: tuple[int, ...],
                    dilation: tuple[int, ...]) -> tf.Tensor:
    """Convolution without padding; TensorFlow has no gradient of a dilated one on a CPU."""

    @tf.custom_gradient
    def convolve(values: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, GradientOf]:
        def gradient(top_diff: tf.Tensor) -> Sequence[tf.Tensor]:
            # The same as a sum over the kernel's cells, each a product of matrices.
            with tf.GradientTape() as tape:
                tape.watch((values, kernel))
                height, width = tf.unstack(tf.shape(top_diff)[1:3])
                total = 0
                for row in range(kernel.shape[0]):
                    for column in range(kernel.shape[1]):
                        top, left = row * dilation[0], column * dilation[1]
                        part = values[:, top:top + stride[0] * (height - 1) + 1:stride[0],
                                      left:left + stride[1] * (width - 1) + 1:stride[1]]
                        total += tf.matmul(part, kernel[row, column])
            return tape.gradient(total, (values, kernel), top_diff)

        return tf.nn.conv2d(values, kernel, stride, "VALID", dilations=dilation), gradient

    return convolve(values, tf.convert_to_tensor(kernel))


def _dilate(kernel: tf.Tensor, dilation: tuple[int, ...]) -> tf.Tensor:
    """Kernel with zeros between its cells: TensorFlow's own form has no kernel on a CPU."""
    for axis, step in enumerate(dilation):
        if step > 1:
            cells = tf.unstack(kernel, axis=axis)
            zeros = [tf.zeros_like(cells[0])] * (step - 1)
            spread = [cells[0]]
            for cell in cells[1:]:
                spread += [*zeros, cell]
            kernel = tf.stack(spread, axis=axis)
    return kernel


def _filler(filler: GivenFiller) -> keras.initializers.Initializer:
    if filler == "constant":
        return CaffeFiller()
    return keras.initializers.get(filler)
