"""A large kernel's gradient that is never formed."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class OuterProduct(NamedTuple):
    """The gradient of a convolution's kernel that a few cells alone use, as its two factors.

    fc6 at the four cells that a slice needs has a gradient of rank 4: two narrow matrices instead
    of 411 MB that would be written once and read once.

    Attributes:
        inputs: (cell, height * width * in) float32, the patches that the kernel was applied to.
        deltas: (cell, out) float32, the loss' gradient at the responses.
    """

    inputs: tf.Tensor
    deltas: tf.Tensor

    def part(self, number: tf.Tensor, channels: int) -> tf.Tensor:
        """(in, out): the gradient at position `number` of the kernel's window, row by row."""
        own = self.inputs[:, number * channels:(number + 1) * channels]
        return tf.matmul(own, self.deltas, transpose_a=True)

    def dense(self, shape) -> tf.Tensor:
        """The whole gradient, in the kernel's shape (height, width, in, out)."""
        return tf.reshape(tf.matmul(self.inputs, self.deltas, transpose_a=True), shape)


def update_in_parts(variable: tf.Tensor, history: tf.Tensor, shape: tuple[int, int, int, int],
                    gradient: OuterProduct, update) -> None:
    """Update a kernel and its history position by position of its window, in place.

    A part (fc6: 8 MB) stays in the processor's cache through all operations of an update.

    Args:
        variable, history: handles of resource variables of this shape.
        update: function (weights, history, gradient) -> (weights, history) of (in, out) tensors.
    """
    height, width, channels, _ = shape

    def place(number):
        begin = tf.stack([number // width, number % width])
        return {"begin": begin, "end": begin + 1, "strides": [1, 1], "shrink_axis_mask": 3}

    def body(number):
        values = [tf.raw_ops.StridedSlice(
            input=tf.raw_ops.ReadVariableOp(resource=each, dtype=gradient.deltas.dtype),
            **place(number)) for each in (variable, history)]
        values = [tf.ensure_shape(each, shape[2:]) for each in values]
        new = update(*values, gradient.part(number, channels))
        for each, value in zip((variable, history), new, strict=True):
            tf.raw_ops.ResourceStridedSliceAssign(ref=each, value=value, **place(number))
        return number + 1

    tf.while_loop(lambda number: number < height * width, body, [tf.constant(0)],
                  parallel_iterations=1)
