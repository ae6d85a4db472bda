"""Adaptive prediction: exact where the network looked, and few pixels looked at."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from pixelnet_tf.inference.adaptive import MARGIN, STRIDES, adaptive_scores
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.model.pixelnet import PixelNet

from .conftest import slices


def run(model, image, wanted=None, correction=(0.0, 0.0, 0.0)):
    """Reference scores, adaptive scores and the pixels that the network saw."""
    scorer = DenseScorer(model)
    wanted = np.ones(image.shape[:3], bool) if wanted is None else wanted
    scores, scored = adaptive_scores(scorer, tf.constant(image), tf.constant(wanted),
                                     tf.constant(correction, tf.float32))
    reference = scorer.reference(tf.constant(image)).numpy() + np.float32(correction)
    return reference, scores.numpy(), scored.numpy()


@pytest.mark.parametrize("size", [(40, 36), (33, 47), (16, 16), (61, 30)])
@pytest.mark.parametrize("kind", ["inner", "full", "empty"])
def test_exact_where_the_network_looked(narrow_net, kind, size):
    image = slices(kind, *size, batch=2)
    reference, scores, scored = run(narrow_net(fc7="none"), image, correction=(0.3, -0.2, 0.1))
    assert scores.shape == reference.shape
    scale = np.abs(reference).max()
    np.testing.assert_allclose(scores[scored], reference[scored], rtol=0, atol=2e-5 * scale)
    # The coarse lattice is always seen.
    assert scored[:, ::STRIDES[0], ::STRIDES[0]].all()


def test_filled_pixels_have_decided_corners(narrow_net):
    model = PixelNet(narrow_net(fc7="none").config, 2, 3, seed=4)
    head = model.parts["cls_score_new"]
    head.kernel.assign(head.kernel * 200)
    image = ndimage.gaussian_filter(slices("full", 64, 64), (0, 6, 6, 0)) * 10
    reference, scores, scored = run(model, image)
    assert len(np.unique(reference.argmax(-1))) > 1
    filled = ~scored
    assert 0.15 < filled.mean() < 1
    label = scores.argmax(-1)
    best_two = np.sort(scores, axis=-1)[..., -2:]
    # A filled pixel carries the scores of a pixel that leads by the margin.
    assert (best_two[..., 1] - best_two[..., 0])[filled].min() >= MARGIN
    agreement = (label == reference.argmax(-1)).mean()
    assert agreement > 0.98


def test_without_a_clear_lead_every_pixel_is_looked_at(narrow_net):
    image = slices("full", 30, 30)
    model = narrow_net(fc7="none")
    reference, scores, scored = run(model, image * 0.01)
    lead = np.diff(np.sort(reference, axis=-1)[..., -2:])[..., 0]
    assert lead.max() < MARGIN
    assert scored.all()
    np.testing.assert_array_equal(scores.argmax(-1), reference.argmax(-1))


def test_what_is_not_wanted_is_background(narrow_net):
    image = slices("full", 40, 40)
    wanted = np.zeros((1, 40, 40), bool)
    wanted[0, 9:31, 5:22] = True
    reference, scores, scored = run(narrow_net(fc7="none"), image, wanted)
    assert not scored[~wanted].any()
    assert (scores[~wanted].argmax(-1) == 0).all()
    agreed = scores[wanted].argmax(-1) == reference[wanted].argmax(-1)
    assert agreed[scored[wanted]].all()
