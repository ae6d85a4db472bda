"""The core of a head inside a TensorFlow graph; `volumes.normalize` has it for numpy arrays."""

from __future__ import annotations

import tensorflow as tf

from pixelnet_tf.volumes.normalize import CORE_DEPTH


def deep_inside(brain: tf.Tensor) -> tf.Tensor:
    """Pixels with nothing but mask in a square of 2 * CORE_DEPTH + 1 pixels around them.

    brain (slice, height, width) bool; returns the same. Beyond the edges there is no mask.
    """
    room, side = [CORE_DEPTH, CORE_DEPTH], 2 * CORE_DEPTH + 1
    outside = tf.pad(tf.cast(~brain, tf.float32), [[0, 0], room, room], constant_values=1.0)
    return tf.nn.max_pool2d(outside[..., None], side, 1, "VALID")[..., 0] == 0
