"""Losses over the pixels of a mini-batch: Caffe's cross-entropy, the soft Dice, and their sum.

Where the network scores overlapping regions, the cross-entropy is the binary one of each region and
the soft Dice that of each region's sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import LossKind

#: Caffe clamps the probability at the smallest normal float32, hence the largest cross-entropy.
_LARGEST = 87.336544
#: Keeps the Dice of a class that is neither there nor predicted from 0 / 0, as nnU-Net does.
_SMOOTH = 1e-5

#: From a sum over a replica's pixels to that over the whole mini-batch's, of which other replicas
#: hold the rest (`Share.total`). None: all pixels are here.
Total = Callable[[tf.Tensor], tf.Tensor]


class Loss(Protocol):
    """Scores (pixel, class), classes (pixel,) int32 and the `Total` of several replicas to a
    scalar."""

    def __call__(self, scores: tf.Tensor, classes: tf.Tensor, *, total: Total | None = None
                 ) -> tf.Tensor: ...


def cross_entropy(scores: tf.Tensor, classes: tf.Tensor, weights: Sequence[float] = (), *,
                  total: Total | None = None) -> tf.Tensor:
    """Caffe's SoftmaxWithLoss: the mean over the pixels.

    Args:
        scores: (pixel, class) float32, before the softmax. classes: (pixel,) int32.
        weights: weight of each class, (class,); the mean is then the weighted one. Empty: all 1,
            as in the paper.
        total: where the pixels are a replica's part of a mini-batch.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, scores)
    return _mean(_clamped(losses), classes, weights, total)


@tf.custom_gradient
def _clamped(losses: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Losses of any shape as Caffe states them; their gradient it does not clamp, so that the
    pixels that are the most wrong are learned from, too."""
    return tf.minimum(losses, _LARGEST), tf.identity


def _mean(losses: tf.Tensor, classes: tf.Tensor, weights: Sequence[float],
          total: Total | None) -> tf.Tensor:
    """Mean of the pixels' losses (pixel,), each weighed as its class is."""
    if not weights and total is None:
        # A mini-batch without a single pixel that counts costs nothing.
        return tf.where(tf.size(losses) > 0, tf.reduce_mean(losses), 0.0)
    share = (tf.gather(tf.constant(weights, losses.dtype), classes) if weights
             else tf.ones_like(losses))
    return tf.math.divide_no_nan(_sum(losses * share, total), _sum(share, total))


def _sum(values: tf.Tensor, total: Total | None) -> tf.Tensor:
    """Sum over all pixels of the mini-batch, values (pixel, ...)."""
    own = tf.reduce_sum(values, axis=0)
    return own if total is None else total(own)


def soft_dice(scores: tf.Tensor, classes: tf.Tensor, weights: Sequence[float] = (), *,
              total: Total | None = None) -> tf.Tensor:
    """One minus the soft Dice over all pixels of the mini-batch, the mean over the lesion classes.

    `2 sum(p t) / (sum(p) + sum(t))`, p the probabilities of a class and t 1 where it is true; the
    background has no term of its own (Milletari et al. 2016; over the mini-batch as in nnU-Net).
    Arguments as for `cross_entropy`; the weight of the background is without effect.
    """
    probabilities = tf.nn.softmax(scores)[:, 1:]
    truth = tf.one_hot(classes, scores.shape[-1], dtype=scores.dtype)[:, 1:]
    dice = _dice(probabilities, truth, total)
    if not weights:
        return 1 - tf.reduce_mean(dice)
    share = tf.constant(weights[1:], dice.dtype)
    return 1 - tf.reduce_sum(dice * share) / tf.reduce_sum(share)


def _dice(probabilities: tf.Tensor, truth: tf.Tensor, total: Total | None) -> tf.Tensor:
    """Soft Dice of each column of two (pixel, n)."""
    both = _sum(probabilities * truth, total)
    sizes = _sum(probabilities, total) + _sum(truth, total)
    return (2 * both + _SMOOTH) / (sizes + _SMOOTH)


#: Class indices of each region that the network scores; empty: it scores the classes.
Regions = Sequence[Sequence[int]]


def region_truth(classes: tf.Tensor, regions: Regions, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Whether each pixel is in each region, (pixel, region) of 0 and 1.

    Args:
        classes: (pixel,) int32. A class that no region unites, the background above all, is in
            none.
    """
    table = np.zeros((1 + max(map(max, regions)), len(regions)), np.float32)
    for number, inside in enumerate(regions):
        table[list(inside), number] = 1
    known = tf.minimum(classes, len(table))
    return tf.gather(tf.constant(np.vstack([table, np.zeros((1, len(regions)))]), dtype), known)


def pixel_losses(scores: tf.Tensor, classes: tf.Tensor, regions: Regions = ()) -> tf.Tensor:
    """Cross-entropy (pixel,) of each pixel; of regions the mean of the binary ones."""
    if not regions:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(classes, scores)
    return tf.reduce_mean(_clamped(tf.nn.sigmoid_cross_entropy_with_logits(
        region_truth(classes, regions, scores.dtype), scores)), axis=-1)


def region_cross_entropy(scores: tf.Tensor, classes: tf.Tensor, regions: Regions,
                         weights: Sequence[float] = (), *, total: Total | None = None
                         ) -> tf.Tensor:
    """Binary cross-entropy, the mean over the pixels and the regions.

    Args:
        scores: (pixel, region) float32, before the sigmoid. classes: (pixel,) int32.
        regions: class indices of each region.
        weights: weight of each class, (class,): a pixel counts in every region as its class weighs.
        total: as for `cross_entropy`.
    """
    return _mean(pixel_losses(scores, classes, regions), classes, weights, total)


def region_dice(scores: tf.Tensor, classes: tf.Tensor, regions: Regions,
                weights: Sequence[float] = (), *, total: Total | None = None) -> tf.Tensor:
    """One minus the soft Dice over all pixels of the mini-batch, the mean over the regions.

    Arguments as for `region_cross_entropy`; a region weighs as much as its classes in the mean.
    """
    dice = _dice(tf.sigmoid(scores), region_truth(classes, regions, scores.dtype), total)
    if not weights:
        return 1 - tf.reduce_mean(dice)
    share = tf.constant([sum(weights[index] for index in inside) / len(inside)
                         for inside in regions], dice.dtype)
    return 1 - tf.math.divide_no_nan(tf.reduce_sum(dice * share), tf.reduce_sum(share))


def make_loss(kind: str, class_weights: Sequence[float] = (), regions: Regions = ()) -> Loss:
    """The loss that `training.loss` names (a `LossKind`).

    regions: class indices of each region, where the network scores regions.
    """
    if regions:
        of_pixels, of_overlap = (partial(term, regions=regions, weights=class_weights)
                                 for term in (region_cross_entropy, region_dice))
    else:
        of_pixels, of_overlap = (partial(term, weights=class_weights)
                                 for term in (cross_entropy, soft_dice))
    terms = {LossKind.CROSS_ENTROPY: (of_pixels,), LossKind.DICE: (of_overlap,),
             LossKind.CROSS_ENTROPY_DICE: (of_pixels, of_overlap)}[LossKind(kind)]

    def loss(scores: tf.Tensor, classes: tf.Tensor, *, total: Total | None = None) -> tf.Tensor:
        return tf.add_n([term(scores, classes, total=total) for term in terms])

    return loss
