"""A large kernel's gradient that is formed when it is needed, not before."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class OuterProduct(NamedTuple):
    """The gradient of a convolution's kernel that a few cells alone use, as its two factors.

    fc6 at the four cells that a slice needs has a gradient of rank 4: two narrow matrices, which
    wait for their turn instead of 411 MB.

    Attributes:
        inputs: (cell, height * width * in) float32, the patches that the kernel was applied to.
        deltas: (cell, out) float32, the loss' gradient at the responses.
    """

    inputs: tf.Tensor
    deltas: tf.Tensor

    def dense(self, shape) -> tf.Tensor:
        """The whole gradient, in the kernel's shape (height, width, in, out)."""
        return tf.reshape(tf.matmul(self.inputs, self.deltas, transpose_a=True), shape)
