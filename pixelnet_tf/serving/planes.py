"""Volumes cut along other planes within a graph, as `PreparedVolume.in_plane` cuts them."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from pixelnet_tf.volumes.slicing import MOST_STRETCHED

#: Axes of a volume's axial slices (slice, row, column) that slices, rows and columns of a plane lie
#: along; rows run downwards there, slices upwards.
_AXES = {"coronal": (1, 0, 2), "sagittal": (2, 0, 1)}


def scores_in_plane(scores_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], plane: str,
                    image: tf.Tensor, domain: tf.Tensor, spacing_mm: tf.Tensor) -> tf.Tensor:
    """Scores (slice, height, width, class) of a volume's voxels by its slices in another plane.

    Args:
        scores_of: gives slices and their domain scores.
        image: (slice, height, width, channel) float32, normalised axial slices on the volume's own
            grid, the lowest first.
        domain: (slice, height, width) bool.
        spacing_mm: (3,) float32, from slice to slice, row to row and column to column.
    """
    axes = _AXES[plane]
    sides = tf.cast(tf.gather(spacing_mm, axes[1:]), tf.float64)
    finer = tf.reduce_min(sides)
    sound = tf.reduce_all(sides > 0) & (tf.reduce_max(sides) <= MOST_STRETCHED * finer)
    check = tf.debugging.Assert(sound, [
        f"spacing_mm must be positive, and for {plane} slices one side of a pixel at most "
        f"{MOST_STRETCHED:g} times the other, got", spacing_mm])
    cut_image = _upright(image, axes)
    native = tf.shape(cut_image)[1:3]
    with tf.control_dependencies([check]):
        # As `nearest_whole` rounds: spacings in float32 would put halves to either side.
        ratios = tf.round(tf.cast(native, tf.float64) * sides / finer * 1000) / 1000
        scaled = tf.maximum(native, tf.cast(tf.round(ratios), tf.int32))
    down, across = (_linear_weights(native[i], scaled[i]) for i in (0, 1))
    stretched = tf.einsum("ry,syxc,qx->srqc", down, cut_image, across)
    filled = _nearest(_upright(tf.reduce_any(image != 0, axis=-1), axes), native, scaled)
    stretched = tf.where(filled[..., None], stretched, 0.0)
    scores = scores_of(stretched, _nearest(_upright(domain, axes), native, scaled))
    for axis in (0, 1):
        centres = (2 * tf.range(native[axis]) + 1) * scaled[axis] // (2 * native[axis])
        scores = tf.gather(scores, centres, axis=1 + axis)
    back = [0, 0, 0, 3]
    for place, axis in enumerate(axes):
        back[axis] = place
    return tf.transpose(tf.reverse(scores, [1]), back)


def _upright(slices: tf.Tensor, axes: tuple[int, int, int]) -> tf.Tensor:
    return tf.reverse(tf.transpose(slices, [*axes, *range(3, slices.shape.rank)]), [1])


def _nearest(slices: tf.Tensor, native: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    for axis in (0, 1):
        sources = (2 * tf.range(scaled[axis]) + 1) * native[axis] // (2 * scaled[axis])
        slices = tf.gather(slices, sources, axis=1 + axis)
    return slices


def _linear_weights(native: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    """Weights (scaled, native) float32 of linear interpolation, pixel centres on one scale."""
    sizes = tf.cast(native, tf.float64), tf.cast(scaled, tf.float64)
    position = tf.clip_by_value((tf.range(sizes[1], dtype=tf.float64) + 0.5) * sizes[0] / sizes[1]
                                - 0.5, 0.0, sizes[0] - 1)
    distance = tf.abs(position[:, None] - tf.range(sizes[0], dtype=tf.float64))
    return tf.cast(tf.maximum(1.0 - distance, 0.0), tf.float32)
