"""A matrix product whose gradient lets the solver update a large kernel in place."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def matrix_product(rows: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """rows (row, in) times kernel (in, out).

    TensorFlow's own gradient may hand out the kernel's share first. The solver then updates a
    kernel that the rows' share has yet to read, and copies it for that: 411 MB for fc6. Here the
    kernel's share waits for the rows'.
    """

    def gradient(top_diff: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row_diff = tf.matmul(top_diff, kernel, transpose_b=True)
        with tf.control_dependencies([row_diff]):
            kernel_diff = tf.matmul(rows, top_diff, transpose_a=True)
        return row_diff, kernel_diff

    return tf.matmul(rows, kernel), gradient
