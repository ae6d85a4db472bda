"""The losses against values worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.training.loss import cross_entropy, make_loss, soft_dice

#: Probabilities of three pixels: (1/2, 1/4, 1/4), (1/3, 1/3, 1/3), (1/4, 1/2, 1/4).
SCORES = tf.math.log(tf.constant([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 1.0]]))
CLASSES = tf.constant([0, 1, 1])


def test_cross_entropy_is_the_mean_over_the_pixels():
    assert float(cross_entropy(SCORES, CLASSES)) == pytest.approx(
        (math.log(2) + math.log(3) + math.log(2)) / 3)


@pytest.mark.parametrize(("regions", "expected"), [
    ((), [[0.5, -0.5], [0.25, -0.25]]), (((0,), (1,)), [[0.25, -0.25], [0.125, -0.125]])])
def test_the_loss_of_a_pixel_is_bounded_and_its_gradient_is_not(regions, expected):
    """Caffe clamps the probability in the loss alone."""
    scores = tf.constant([[100.0, -100.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = make_loss("cross_entropy", regions=regions)(scores, tf.constant([1, 1]))
    assert float(loss) == pytest.approx((87.336544 + math.log(2)) / 2)
    np.testing.assert_allclose(tape.gradient(loss, scores), expected)


def test_class_weights_make_it_the_weighted_mean():
    assert float(cross_entropy(SCORES, CLASSES, (1.0, 3.0, 1.0))) == pytest.approx(
        (math.log(2) + 3 * math.log(3) + 3 * math.log(2)) / 7)


def test_soft_dice_of_the_lesion_classes():
    # Class 1: 2 (1/3 + 1/2) / (1/4 + 1/3 + 1/2 + 2); class 2 is nowhere true.
    first = 2 * (1 / 3 + 1 / 2) / (1 / 4 + 1 / 3 + 1 / 2 + 2)
    assert float(soft_dice(SCORES, CLASSES)) == pytest.approx(1 - first / 2, abs=1e-5)
    assert float(soft_dice(SCORES, CLASSES, (1.0, 1.0, 0.0))) == pytest.approx(1 - first, abs=1e-5)


def test_a_perfect_network_has_no_loss_and_an_absent_class_costs_nothing():
    scores = tf.constant([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    assert float(soft_dice(scores, tf.constant([0, 1]))) == pytest.approx(0, abs=1e-5)
    assert float(soft_dice(scores[:1], tf.constant([0]))) == pytest.approx(0, abs=1e-5)


def test_the_sum_has_the_gradient_of_both():
    def gradient(kind):
        with tf.GradientTape() as tape:
            tape.watch(SCORES)
            loss = make_loss(kind)(SCORES, CLASSES)
        return tape.gradient(loss, SCORES).numpy()

    np.testing.assert_allclose(gradient("cross_entropy_dice"),
                               gradient("cross_entropy") + gradient("dice"), atol=1e-7)


@pytest.mark.parametrize(("weights", "message"), [
    ([1, 1], "one number for each"), ([1, -1], "must not be negative"), ([1, 0], "some lesion"),
])
def test_weights_that_make_no_sense(weights, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"training": {"class_weights": [float(w) for w in weights]}})
