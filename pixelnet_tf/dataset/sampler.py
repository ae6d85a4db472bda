"""Class-balanced sampling of a slice's pixels (paper section 2.1), and its class frequencies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tensorflow as tf

from pixelnet_tf import draws
from pixelnet_tf.config import SamplingConfig, Strategy


def sample_pixels(labels: tf.Tensor, allowed: tf.Tensor, seed: tf.Tensor, *, classes: int,
                  config: SamplingConfig, corner_yx: tf.Tensor | tuple[int, int] = (0, 0)
                  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw N pixels of one slice.

    Of the K classes present, `balanced` draws N/K pixels each without replacement (the remainder
    of the division goes one each to the first classes); a class with fewer gives all of them, and
    the rest is drawn at random from the slice's other pixels, so that N stays exact. `uniform`
    draws N at random. A pixel occurs twice only in a slice of fewer than N pixels. `all` takes
    every pixel that might be drawn, on a lattice of `config.lattice` pixels. With hard pixels N
    is the number of all candidates (`config.drawn_pixels`).

    Args:
        labels: (height, width) int32 class indices; others than 0 to classes - 1 are never drawn
            while the slice has one of these (`IGNORED`).
        allowed: (height, width) bool, where background may be drawn; lesions may be anywhere.
        seed: (2,) int32; the same seed draws the same pixels.
        corner_yx: (2,) int32, first row and column of the lattice (`all` alone).

    Returns `(pixels_yx, drawn)`: (N, 2) int32 rows of y, x, and (N,) int32 class indices, -1 for
    what is none; with `all` as many as there are.
    """
    labels, usable = _usable(labels, allowed, classes)
    if config.strategy == Strategy.ALL:
        rows, columns = (tf.range(tf.shape(labels)[axis]) % config.lattice == corner_yx[axis]
                         for axis in (0, 1))
        pixels_yx = tf.cast(tf.where(usable & rows[:, None] & columns), tf.int32)
        return pixels_yx, tf.gather_nd(labels, pixels_yx)
    width = tf.shape(labels)[1]
    labels, usable = tf.reshape(labels, [-1]), tf.reshape(usable, [-1])
    first, second = tf.unstack(draws.split(seed, 2))
    chosen = tf.zeros([0], tf.int32)
    if config.strategy == Strategy.BALANCED:
        priority = draws.uniform(tf.shape(labels), first)
        members = [usable & (labels == k) for k in range(classes)]
        counts = tf.stack([tf.math.count_nonzero(member, dtype=tf.int32) for member in members])
        shares = tf.minimum(class_shares(counts, config.drawn_pixels), counts)
        chosen = tf.concat([_highest(priority, members[k], shares[k]) for k in range(classes)], 0)
    taken = tf.scatter_nd(chosen[:, None], tf.ones_like(chosen, tf.bool), tf.shape(labels))
    priority = draws.uniform(tf.shape(labels), second)
    others = usable & ~taken
    missing = tf.minimum(config.drawn_pixels - tf.size(chosen),
                         tf.math.count_nonzero(others, dtype=tf.int32))
    chosen = tf.concat([chosen, _highest(priority, others, missing)], 0)
    # With fewer than N pixels each is repeated equally often, give or take one, in every class.
    number = config.drawn_pixels
    place = tf.range(number, dtype=tf.int64) * tf.size(chosen, tf.int64) // number
    chosen = tf.ensure_shape(tf.gather(chosen, place), [number])
    return tf.stack([chosen // width, chosen % width], axis=1), tf.gather(labels, chosen)


def sampled_slices(labels: np.ndarray, brain: np.ndarray, classes: int, config: SamplingConfig,
                   seed: int = 0) -> np.ndarray:
    """Mark the pixels that are drawn of each slice of a volume when a training takes it once.

    Of hard pixels, which depend on a network, the others are left out: N of each slice are marked.

    Args:
        labels: (slice, height, width) uint8 class indices.
        brain: (slice, height, width) bool.
        classes: number of classes.

    Returns:
        (slice, height, width) uint8: 0 where nothing is drawn, else the class index and 1.
    """
    config = replace(config, hard_pixels=0.0)
    allowed = brain if config.background_in_brain else np.ones_like(brain)

    @tf.function(autograph=False, input_signature=[
        tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([2], tf.int32)])
    def draw(slice_labels: tf.Tensor, inside: tf.Tensor, slice_seed: tf.Tensor
             ) -> tuple[tf.Tensor, tf.Tensor]:
        return sample_pixels(slice_labels, inside, slice_seed, classes=classes, config=config)

    marked = np.zeros(labels.shape, np.uint8)
    for number, inside in enumerate(allowed):
        (rows, columns), drawn = (each.numpy().T for each in draw(
            labels[number].astype(np.int32), inside, np.array([seed, number], np.int32)))
        marked[number, rows, columns] = drawn + 1
    return marked


def sample_pixels_statically(labels: tf.Tensor, allowed: tf.Tensor, seed: tf.Tensor, *,
                             classes: int, config: SamplingConfig
                             ) -> tuple[tf.Tensor, tf.Tensor]:
    """`sample_pixels` with static shapes throughout, as XLA compiles them.

    The same seed draws the same pixels, in the order of their places. Of the strategies it has
    `balanced` and `uniform`, whose number of pixels is known.
    """
    labels, usable = _usable(labels, allowed, classes)
    width = labels.shape[1]
    labels, usable = tf.reshape(labels, [-1]), tf.reshape(usable, [-1])
    first, second = tf.unstack(draws.split(seed, 2))
    chosen = tf.zeros_like(usable)
    if config.strategy == Strategy.BALANCED:
        priority = draws.uniform(tf.shape(labels), first)
        members = [usable & (labels == k) for k in range(classes)]
        counts = tf.stack([tf.reduce_sum(tf.cast(member, tf.int32)) for member in members])
        shares = tf.minimum(class_shares(counts, config.drawn_pixels), counts)
        for member, share in zip(members, tf.unstack(shares), strict=True):
            chosen |= member & (_places(tf.where(member, priority, -1.0)) < share)
    priority = draws.uniform(tf.shape(labels), second)
    others = usable & ~chosen
    missing = config.drawn_pixels - tf.reduce_sum(tf.cast(chosen, tf.int32))
    chosen |= others & (_places(tf.where(others, priority, -1.0)) < missing)
    number = config.drawn_pixels
    found = tf.math.top_k(tf.cast(chosen, tf.int32), min(number, labels.shape[0])).indices
    place = tf.range(number) * tf.reduce_sum(tf.cast(chosen, tf.int32)) // number
    chosen_pixels = tf.gather(found, place)
    return (tf.stack([chosen_pixels // width, chosen_pixels % width], axis=1),
            tf.gather(labels, chosen_pixels))


def _places(priority: tf.Tensor) -> tf.Tensor:
    """Place of each number, from the highest, (n,) int32; of equal ones the first comes first."""
    order = tf.argsort(priority, direction="DESCENDING", stable=True)
    return tf.scatter_nd(order[:, None], tf.range(tf.size(priority)), tf.shape(priority))


def _usable(labels: tf.Tensor, allowed: tf.Tensor, classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels, -1 where nobody has judged, and which pixels may be drawn, both (height, width)."""
    judged = (labels >= 0) & (labels < classes)
    labels = tf.where(judged, labels, -1)
    usable = judged & ((labels > 0) | allowed)
    # An image without a single usable pixel (nothing but what is left out) is drawn from whole.
    usable = usable | ~tf.reduce_any(usable) & judged
    return labels, usable | ~tf.reduce_any(usable)


def class_shares(counts: tf.Tensor, pixels: int) -> tf.Tensor:
    """Pixels that each class is to give, (classes,) int32: N/K of each class present, else 0."""
    present = tf.cast(counts > 0, tf.int32)
    number = tf.maximum(tf.reduce_sum(present), 1)
    rank = tf.cumsum(present) - 1
    return present * (pixels // number + tf.cast(rank < pixels % number, tf.int32))


def _highest(priority: tf.Tensor, among: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Indices of the `count` members with the highest priority."""
    return tf.math.top_k(tf.where(among, priority, -1.0), count, sorted=False).indices


def expected_pixels(counts: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """How many pixels of each class the sampler takes from each slice on average.

    counts (slice, class) int64: pixels of each class in each training slice, background counted
    where it may be drawn. Returns (slice, class) float64; a slice without pixels gives none.
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=1, keepdims=True)
    if config.strategy == Strategy.ALL:
        return counts / config.lattice**2
    if config.strategy == Strategy.UNIFORM:
        drawn = config.drawn_pixels * counts / np.maximum(total, 1)
    else:
        shares = class_shares_of(counts, config.drawn_pixels)
        left = counts - shares
        others = left.sum(axis=1, keepdims=True)
        # A slice of fewer than N pixels has no more to give than it holds.
        missing = np.minimum(config.drawn_pixels - shares.sum(axis=1, keepdims=True), others)
        drawn = shares + missing * left / np.maximum(others, 1)
    # Every slice gives N pixels, a small one by repeating its own.
    return config.drawn_pixels * drawn / np.maximum(drawn.sum(axis=1, keepdims=True), 1e-300)


def class_shares_of(counts: np.ndarray, pixels: int) -> np.ndarray:
    """Pixels that each class gives, (slice, class): its share, or all that it has."""
    present = counts > 0
    number = np.maximum(present.sum(axis=1, keepdims=True), 1)
    rank = np.cumsum(present, axis=1) - 1
    return np.minimum(present * (pixels // number + (rank < pixels % number)), counts)
