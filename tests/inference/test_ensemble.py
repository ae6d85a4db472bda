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


def test_other_classes(narrow_net):
    net = narrow_net(fc7="none")
    with pytest.raises(ModelError, match=r"same classes, got \[3, 4\]"):
        Ensemble([SliceSegmenter(net), SliceSegmenter(PixelNet(net.config, 2, 4, seed=0))])
