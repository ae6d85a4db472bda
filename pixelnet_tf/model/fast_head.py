"""Scores of sampled pixels with the first layer applied to the context map before interpolation.

The first layer of the perceptron is linear and so is bilinear interpolation: applied to the few
cells of fc7_conv that an image touches instead of to every pixel's 4096 interpolated numbers, its
largest part costs next to nothing. The sums are the same, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from pixelnet_tf.model.fast_trunk import Tap
from pixelnet_tf.model.pixelnet import PixelNet, head_names


def fast_scores(model: PixelNet, taps: Sequence[Tap], canvas_nyx: tf.Tensor, *,
                precision: tf.DType = tf.float32,
                dropout: Callable[[tf.Tensor, str], tf.Tensor] | None = None) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels, given the maps of `fast_taps`.

    Args:
        canvas_nyx: (pixel, 3) float32 rows of n, y, x in canvas coordinates (`canvas_pixels`).
        precision: type of the matrix products.
        dropout: as in `fast_taps`.
    """
    if model.config.head == "linear":
        columns = tf.nn.relu(tf.concat([tap.sample(canvas_nyx) for tap in taps], axis=-1))
        return tf.cast(_dense(model, "cls_score_new", columns, precision), tf.float32)
    first, *rest = head_names(model.config)
    values = _first_layer(model, first, taps, canvas_nyx, precision)
    for name in rest:
        values = tf.nn.relu(values)
        if dropout is not None:
            values = dropout(values, name)
        values = _dense(model, name, values, precision)
    return tf.cast(values, tf.float32)


def _first_layer(model, name, taps, canvas_nyx, precision) -> tf.Tensor:
    layer = model.parts[name]
    # The context comes last in the hypercolumn; the other maps are finer than the pixels drawn.
    near, context = (taps, None) if model.config.fc7 == "none" else (taps[:-1], taps[-1])
    columns = tf.concat([tf.cast(tap.sample(canvas_nyx), precision) for tap in near], axis=-1)
    width = columns.shape[-1]
    # Split, because the gradient of two slices would be two whole matrices and their sum.
    near_kernel, context_kernel = tf.split(tf.convert_to_tensor(layer.kernel), [width, -1])
    values = tf.matmul(columns, tf.cast(near_kernel, precision))
    if context is not None:
        # A few rows against a large matrix: bound by reading it, so it is not cast.
        mapped = tf.tensordot(tf.cast(context.values, tf.float32), context_kernel, 1)
        values += tf.cast(context._replace(values=mapped).sample(canvas_nyx), precision)
    return tf.nn.bias_add(values, tf.cast(layer.bias, precision))


def _dense(model, name, values, precision) -> tf.Tensor:
    layer = model.parts[name]
    product = tf.matmul(tf.cast(values, precision), tf.cast(layer.kernel, precision))
    return tf.nn.bias_add(product, tf.cast(layer.bias, precision))
