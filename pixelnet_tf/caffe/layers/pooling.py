"""Caffe's Pooling."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("pixelnet_tf")
class Pooling(keras.layers.Layer):
    """Caffe's max and average pooling over `(batch, height, width, channel)`.

    Output size ceil((size + 2 pad - kernel) / stride) + 1 (floor without `ceil_mode`), less a last
    window that would start past the input and its padding's edge, if there is padding. The
    gradient of ties goes to the first cell of a window. An average divides by the part of the
    window within input and padding on both sides. A window past the input (only with a stride
    above the kernel) has the lowest float32 as its maximum.

    Raises `tf.errors.InvalidArgumentError` where an input is so much smaller than the kernel that
    there is no window, for which Caffe aborts; `ValueError` where sizes are known beforehand.
    """

    def __init__(self, pool="MAX", kernel=None, stride=(1, 1), pad=(0, 0), ceil_mode=True,
                 **kwargs):
        super().__init__(**kwargs)
        self.pool = pool
        self.kernel = None if kernel is None else tuple(kernel)
        self.stride = tuple(stride)
        self.pad = tuple(pad)
        self.ceil_mode = ceil_mode

    def call(self, inputs):
        if self.kernel is None:
            return self._global(inputs)
        sizes = tf.unstack(tf.shape(inputs)[1:3])
        counts = [self._count(axis, size) for axis, size in enumerate(sizes)]
        after = [
            tf.maximum((count - 1) * stride + kernel - size - pad, 0)
            for count, stride, kernel, size, pad in zip(
                counts, self.stride, self.kernel, sizes, self.pad, strict=True
            )
        ]
        padding = [[0, 0], [self.pad[0], after[0]], [self.pad[1], after[1]], [0, 0]]
        if self.pool == "MAX":
            values = tf.pad(inputs, padding, constant_values=inputs.dtype.min)
            return self._crop(
                tf.nn.max_pool2d(values, self.kernel, self.stride, "VALID"), counts
            )
        means = tf.nn.avg_pool2d(tf.pad(inputs, padding), self.kernel, self.stride, "VALID")
        rows, columns = (self._lengths(axis, counts[axis], sizes[axis]) for axis in (0, 1))
        cells = tf.cast(rows[:, None] * columns[None, :], inputs.dtype)[None, :, :, None]
        scale = self.kernel[0] * self.kernel[1] / cells
        return self._crop(means, counts) * scale

    def _count(self, axis, size):
        kernel, stride, pad = self.kernel[axis], self.stride[axis], self.pad[axis]
        steps = size + 2 * pad - kernel
        count = (-(-steps // stride) if self.ceil_mode else steps // stride) + 1
        if any(self.pad):
            count -= tf.cast((count - 1) * stride >= size + pad, count.dtype)
        # TensorFlow's CPU kernel ends the process on an empty output.
        has_output = tf.debugging.Assert(
            count >= 1,
            [f"layer {self.name!r}: the input is smaller than the pooling kernel (Caffe aborts); "
             "size, kernel, stride:", size, kernel, stride],
        )
        with tf.control_dependencies([] if has_output is None else [has_output]):
            return tf.identity(count)

    def _lengths(self, axis, count, size):
        """Cells of each window within the input and its padding."""
        start = tf.range(count) * self.stride[axis] - self.pad[axis]
        return tf.minimum(start + self.kernel[axis], size + self.pad[axis]) - start

    @staticmethod
    def _crop(values, counts):
        return values[:, :counts[0], :counts[1]]

    def _global(self, inputs):
        if self.pool == "AVE":
            return tf.reduce_mean(inputs, axis=(1, 2), keepdims=True)
        batch, channels = tf.shape(inputs)[0], inputs.shape[-1]
        cells = tf.transpose(tf.reshape(inputs, (batch, -1, channels)), (0, 2, 1))
        # `argmax` takes the first of ties, as Caffe; `reduce_max` would share their gradient.
        first = tf.argmax(tf.stop_gradient(cells), axis=-1)
        largest = tf.gather(cells, first[..., None], batch_dims=2)
        return tf.reshape(largest, (batch, 1, 1, channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        if self.kernel is None:
            return (batch, 1, 1, channels)
        return (batch, self._static(0, height), self._static(1, width), channels)

    def _static(self, axis, size):
        if size is None:
            return None
        kernel, stride, pad = self.kernel[axis], self.stride[axis], self.pad[axis]
        steps = size + 2 * pad - kernel
        if steps < 0 and not self.ceil_mode:
            raise ValueError(f"kernel {kernel} is larger than the input's {size} with padding")
        count = (-(-steps // stride) if self.ceil_mode else steps // stride) + 1
        count -= any(self.pad) and (count - 1) * stride >= size + pad
        if count < 1:
            raise ValueError(
                f"the input's {size} cells are fewer than the pooling kernel {kernel} (Caffe "
                "aborts)"
            )
        return count

    def compute_output_spec(self, inputs):
        if len(inputs.shape) != 4:
            raise ValueError(f"its input must have 4 axes, got shape {tuple(inputs.shape)}")
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "pool": self.pool, "kernel": self.kernel, "stride": self.stride, "pad": self.pad,
            "ceil_mode": self.ceil_mode,
        }
