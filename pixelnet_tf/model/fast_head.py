"""Scores of listed pixels with the first layer applied to the context map before interpolation.

The first layer of the perceptron is linear and so is bilinear interpolation: applied to the few
cells of fc7_conv that an image touches instead of to every pixel's 4096 interpolated numbers, its
largest part costs next to nothing. The sums are the same, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from pixelnet_tf.model.fast_trunk import Tap
from pixelnet_tf.model.pixelnet import PixelNet, head_names
from pixelnet_tf.model.product import matrix_product


class FastHead:
    """The head on the maps of a few slices; what does not depend on the pixels is done once.

    Args:
        taps: maps of `fast_taps`.
        precision: type of the matrix products.
    """

    def __init__(self, model: PixelNet, taps: Sequence[Tap], precision: tf.DType = tf.float32):
        self._precision = precision
        self._names = head_names(model.config)
        self._linear = model.config.head == "linear"
        self._near, self._context, self._cells = list(taps), None, None
        self._weights = {}
        for name in self._names:
            kernel, bias = (tf.convert_to_tensor(v) for v in
                            (model.parts[name].kernel, model.parts[name].bias))
            if name == self._names[0] and not self._linear and model.config.fc7 != "none":
                kernel = self._map_context(kernel)
            self._weights[name] = tf.cast(kernel, precision), tf.cast(bias, precision)

    def _map_context(self, kernel: tf.Tensor) -> tf.Tensor:
        """Lead the context through the first layer; returns the kernel's rows of the other maps."""
        # The context comes last in the hypercolumn; the other maps are finer than listed pixels.
        *self._near, context = self._near
        # Split, because the gradient of two slices would be two whole matrices and their sum.
        channels = context.values.shape[-1]
        near, own = tf.split(kernel, [kernel.shape[0] - channels, channels])
        # A few rows against a large matrix: bound by reading it, so it is not cast.
        self._context = tf.reshape(tf.tensordot(tf.cast(context.values, tf.float32), own, 1),
                                   [-1, own.shape[1]])
        # Read at pixels, the map that holds a one in a channel of its own for every cell gives
        # the matrix of the interpolation: a product with it needs no gather of wide cells.
        cells = tf.shape(context.values)[:3]
        count = tf.reduce_prod(cells)
        self._cells = context._replace(
            values=tf.reshape(tf.eye(count), tf.concat([cells, [count]], 0)))
        return near

    def __call__(self, canvas_nyx: tf.Tensor,
                 dropout: Callable[[tf.Tensor, str], tf.Tensor] | None = None) -> tf.Tensor:
        """Scores (pixel, class) float32 of pixels.

        canvas_nyx (pixel, 3) float32 rows of n, y, x in canvas coordinates (`canvas_pixels`);
        dropout as in `fast_taps`.
        """
        columns = tf.concat([tap.sample(canvas_nyx) for tap in self._near], axis=-1)
        first, *rest = self._names
        values = self._dense(first, tf.nn.relu(columns) if self._linear else columns)
        if self._context is not None:
            context = tf.matmul(self._cells.sample(canvas_nyx), self._context)
            values += tf.cast(context, self._precision)
        for name in rest:
            values = tf.nn.relu(values)
            if dropout is not None:
                values = dropout(values, name)
            values = self._dense(name, values)
        return tf.cast(values, tf.float32)

    def _dense(self, name: str, values: tf.Tensor) -> tf.Tensor:
        kernel, bias = self._weights[name]
        return tf.nn.bias_add(matrix_product(tf.cast(values, self._precision), kernel), bias)


def fast_scores(model: PixelNet, taps: Sequence[Tap], canvas_nyx: tf.Tensor, *,
                precision: tf.DType = tf.float32,
                dropout: Callable[[tf.Tensor, str], tf.Tensor] | None = None) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels, given the maps of `fast_taps`; see `FastHead`."""
    return FastHead(model, taps, precision)(canvas_nyx, dropout)
