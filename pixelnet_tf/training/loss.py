"""Losses over the pixels of a mini-batch: Caffe's cross-entropy, the soft Dice, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from pixelnet_tf.config import LossKind

#: Caffe clamps the probability at the smallest normal float32, hence the largest cross-entropy.
_LARGEST = 87.336544
#: Keeps the Dice of a class that is neither there nor predicted from 0 / 0, as nnU-Net does.
_SMOOTH = 1e-5

#: Scores (pixel, class) and classes (pixel,) int32 to a scalar.
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(scores: tf.Tensor, classes: tf.Tensor,
                  weights: Sequence[float] = ()) -> tf.Tensor:
    """Caffe's SoftmaxWithLoss: the mean over the pixels.

    Args:
        scores: (pixel, class) float32, before the softmax. classes: (pixel,) int32.
        weights: weight of each class, (class,); the mean is then the weighted one. Empty: all 1,
            as in the paper.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, scores)
    losses = tf.minimum(losses, _LARGEST)
    if not weights:
        # A mini-batch without a single pixel that counts costs nothing.
        return tf.where(tf.size(losses) > 0, tf.reduce_mean(losses), 0.0)
    share = tf.gather(tf.constant(weights, losses.dtype), classes)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * share), tf.reduce_sum(share))


def soft_dice(scores: tf.Tensor, classes: tf.Tensor, weights: Sequence[float] = ()) -> tf.Tensor:
    """One minus the soft Dice over all pixels of the mini-batch, the mean over the lesion classes.

    `2 sum(p t) / (sum(p) + sum(t))`, p the probabilities of a class and t 1 where it is true; the
    background has no term of its own (Milletari et al. 2016; over the mini-batch as in nnU-Net).
    Arguments as for `cross_entropy`; the weight of the background is without effect.
    """
    probabilities = tf.nn.softmax(scores)[:, 1:]
    truth = tf.one_hot(classes, scores.shape[-1], dtype=scores.dtype)[:, 1:]
    both = tf.reduce_sum(probabilities * truth, axis=0)
    sizes = tf.reduce_sum(probabilities, axis=0) + tf.reduce_sum(truth, axis=0)
    dice = (2 * both + _SMOOTH) / (sizes + _SMOOTH)
    if not weights:
        return 1 - tf.reduce_mean(dice)
    share = tf.constant(weights[1:], dice.dtype)
    return 1 - tf.reduce_sum(dice * share) / tf.reduce_sum(share)


def make_loss(kind: str, class_weights: Sequence[float] = ()) -> Loss:
    """The loss that `training.loss` names (a `LossKind`)."""
    terms = {LossKind.CROSS_ENTROPY: (cross_entropy,), LossKind.DICE: (soft_dice,),
             LossKind.CROSS_ENTROPY_DICE: (cross_entropy, soft_dice)}[LossKind(kind)]

    def loss(scores: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        return tf.add_n([term(scores, classes, class_weights) for term in terms])

    return loss
