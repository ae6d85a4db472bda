"""Several networks as one."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.errors import ModelError
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet

from .conftest import slices


def test_the_mean_of_scores_each_with_its_own_correction(narrow_net):
    image = tf.constant(slices("full", 20, 28, 2))
    domain = np.ones((2, 20, 28), bool)
    domain[0, :5] = False
    members = [SliceSegmenter(narrow_net(fc7="none"), np.float32([0, 1, 2])),
               SliceSegmenter(narrow_net(fc7="none", border=0), np.float32([0, -3, 0]))]
    one, other = (member.scores(image, tf.constant(domain)).numpy() for member in members)
    ensemble = Ensemble(members)
    assert ensemble.classes == 3
    scores = ensemble.scores(image, tf.constant(domain)).numpy()
    np.testing.assert_allclose(scores, (one + other) / 2, rtol=1e-6)
    assert np.abs(one - other)[domain].mean() > 0.1
    assert (scores[~domain].argmax(axis=-1) == 0).all()
    same, entropy, information = (part.numpy() for part in ensemble.uncertain_scores(
        image, tf.constant(domain)))
    np.testing.assert_array_equal(same, scores)
    # Background by definition is certain.
    assert not entropy[~domain].any()
    assert not information[~domain].any()
    assert (entropy[domain] > 0).all()
    assert (information <= entropy + 1e-6).all()
    assert information[domain].max() > 0


class Fixed:
    """A member that gives the same scores everywhere."""

    def __init__(self, scores):
        self.answer = np.float32(scores)
        self.classes, self.reach, self.planes = len(scores), 0, ("axial",)
        self.every = 1
        self.sigmoid = False
        self.background = tf.constant([0.0, -1e4][:len(scores)])

    def scores(self, image, domain, read_out=None):
        return tf.broadcast_to(self.answer, (*image.shape[:3], self.classes))


def test_uncertainty_of_networks_that_disagree_worked_out_by_hand():
    image, domain = tf.zeros((1, 2, 2, 1)), tf.ones((1, 2, 2), bool)

    def uncertain(*shares):
        ensemble = Ensemble([Fixed(np.log(one)) for one in shares])
        scores, entropy, information = (part.numpy() for part in ensemble.uncertain_scores(
            image, domain))
        np.testing.assert_array_equal(scores, ensemble.scores(image, domain).numpy())
        return float(entropy[0, 0, 0]), float(information[0, 0, 0])

    def h(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    # One mind, unsure: all of the entropy is there, nothing of it by disagreement.
    assert uncertain([0.5, 0.5], [0.5, 0.5]) == pytest.approx((np.log(2), 0), abs=1e-6)
    # (0.9 + 0.1) / 2 = 0.5: the entropy of the mean less that of either.
    assert uncertain([0.9, 0.1], [0.1, 0.9]) == pytest.approx(
        (np.log(2), np.log(2) - h(0.9)), abs=1e-6)
    assert uncertain([0.9, 0.1], [0.7, 0.3], [0.8, 0.2]) == pytest.approx(
        (h(0.8), h(0.8) - (h(0.9) + h(0.7) + h(0.8)) / 3), abs=1e-6)


def test_other_classes(narrow_net):
    net = narrow_net(fc7="none")
    with pytest.raises(ModelError, match=r"same classes, got \[3, 4\]"):
        Ensemble([SliceSegmenter(net), SliceSegmenter(PixelNet(net.config, 2, 4, seed=0))])
