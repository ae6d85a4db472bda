"""Taps of equal strength at the start of a training, by weights alone."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pixelnet_tf.model.fast_trunk import fast_taps
from pixelnet_tf.model.pixelnet import PixelNet


def balance_taps(model: PixelNet, images: np.ndarray) -> list[float]:
    """Rescale the trunk so that every map of the hypercolumn has a root mean square of 1.

    An ImageNet VGG-16 answers with numbers a hundred times larger in conv3_3 than in conv5_3, and a
    perceptron that reads both begins nearly blind to the deeper one. Convolution, ReLU and pooling
    are homogeneous: a block's last layer times a, and the next layer's kernel divided by a, give
    the same network with another scale at that tap alone. Nothing else changes, so the weights
    remain plain VGG-16 weights. Meant for a head that starts at random; of no use with batch_norm,
    which takes every scale out again.

    Args:
        images: (batch, height, width, channel) float32, a few normalised slices.

    Returns the factor of each tap.
    """
    factors = []
    for tap in fast_taps(model, tf.constant(images)):
        level = float(tf.sqrt(tf.reduce_mean(tf.square(tap.values))))
        factors.append(1.0 / level if level > 0 else 1.0)
    before = 1.0
    for chain, factor in zip(model.architecture.chains, factors, strict=True):
        first, last = model.parts[chain[0].name], model.parts[chain[-1].name]
        first.kernel.assign(first.kernel / before)
        last.kernel.assign(last.kernel * factor)
        last.bias.assign(last.bias * factor)
        before = factor
    return factors
