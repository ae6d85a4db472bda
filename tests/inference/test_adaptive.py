"""Adaptive prediction: exact where the network looked, and few pixels looked at."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from pixelnet_tf.config import LatticeConfig
from pixelnet_tf.inference.adaptive import (
    Beside,
    adaptive_scores,
    decided_between,
    strides_of,
)
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet

from .conftest import slices

MARGIN, STRIDES = LatticeConfig.margin, strides_of(LatticeConfig.stride)


def run(model, image, domain=None, correction=(0.0, 0.0, 0.0), read_out=None, **options):
    """Reference scores, adaptive scores and the pixels that the network saw."""
    scorer = DenseScorer(model)
    domain = np.ones(image.shape[:3], bool) if domain is None else domain
    read_out = domain if read_out is None else read_out
    scores, scored = adaptive_scores(
        scorer, scorer.taps(tf.constant(image)), tf.constant(domain), tf.constant(read_out),
        tf.constant(correction, tf.float32), **options)
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


def test_outside_the_domain_is_background(narrow_net):
    image = slices("full", 40, 40)
    domain = np.zeros((1, 40, 40), bool)
    domain[0, 9:31, 5:22] = True
    reference, scores, scored = run(narrow_net(fc7="none"), image, domain)
    assert not scored[~domain].any()
    assert (scores[~domain].argmax(-1) == 0).all()
    agreed = scores[domain].argmax(-1) == reference[domain].argmax(-1)
    assert agreed[scored[domain]].all()


def test_the_lattices_do_not_depend_on_what_is_read(narrow_net):
    """The pixels that are read may be those between the lattice's: twofold scaling reads odd ones.
    """
    model, image = narrow_net(fc7="none"), slices("full", 41, 38, 2)
    _, everywhere, scored_everywhere = run(model, image, correction=(0.1, 0, 0))
    read_out = np.zeros(image.shape[:3], bool)
    read_out[:, 1::2, 1::2] = True
    _, scores, scored = run(model, image, correction=(0.1, 0, 0), read_out=read_out)
    np.testing.assert_allclose(scores[read_out], everywhere[read_out], rtol=0, atol=1e-5)
    assert len(np.unique(scores[read_out].argmax(-1))) > 1
    # Of single pixels only those that are read are looked at.
    stride = STRIDES[-2]
    lattice = np.zeros_like(read_out)
    lattice[:, ::stride, ::stride] = True
    np.testing.assert_array_equal(scored, scored_everywhere & (lattice | read_out))
    assert scored.sum() < scored_everywhere.sum()


def test_a_domain_between_the_corners_is_looked_at(narrow_net):
    """Stripes narrower than the lattice, as the last slices of a brain have them."""
    image = slices("full", 40, 40)
    domain = np.zeros((1, 40, 40), bool)
    domain[0, 5:8, 2:30] = domain[0, 20:34, 33:36] = True
    correction = np.float32([0, 4, 0])
    exact, adaptive = (SliceSegmenter(narrow_net(fc7="none"), correction, mode)
                       .scores(image, domain).numpy()[domain] for mode in ("exact", "adaptive"))
    assert (exact.argmax(-1) > 0).mean() > 0.5
    np.testing.assert_array_equal(adaptive.argmax(-1), exact.argmax(-1))
    # No pixel of the domain is given the scores of one outside it.
    assert adaptive.min() > -1e3


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_every_stride_looks_at_its_lattice_first(narrow_net, stride):
    image = slices("full", 37, 42)
    reference, scores, scored = run(narrow_net(fc7="none"), image,
                                    lattice=LatticeConfig(stride, margin=0.05))
    assert scored[:, ::stride, ::stride].all()
    np.testing.assert_allclose(scores[scored], reference[scored], rtol=0,
                               atol=2e-5 * np.abs(reference).max())
    assert not scored.all()


def test_between_two_slices_a_pixel_is_decided_by_all_around_it():
    """By hand: one class over a margin of 2, but for a pixel of another class above, one that is
    unsure below, and a corner that is in neither domain."""
    below, above = np.zeros((2, 1, 20, 20, 3), np.float32)
    below[..., 1] = above[..., 1] = 5
    above[0, 4, 4] = [0, 0, 9]
    below[0, 12, 13, 2] = 3.5
    domain = np.ones((2, 1, 20, 20), bool)
    domain[:, 0, 18:, 18:] = False
    domain[1, 0, 0, :] = False
    found = decided_between(below, above, domain, Decoding(3), 2.0)
    expected = np.ones((1, 20, 20), bool)
    expected[0, 2:7, 2:7] = expected[0, 10:15, 11:16] = expected[0, 18:, 18:] = False
    np.testing.assert_array_equal(found, expected)
    # All are sure enough for half that margin, but the two still disagree.
    expected[0, 10:15, 11:16] = True
    np.testing.assert_array_equal(decided_between(below, above, domain, Decoding(3), 1.0), expected)


def test_what_the_slices_beside_decide_is_not_looked_at_and_kept(narrow_net):
    image, model = slices("full", 24, 28, 2), narrow_net(fc7="none")
    decided = np.zeros((2, 24, 28), bool)
    decided[0, :, 9:] = decided[1, :5] = True
    given = np.zeros((2, 24, 28, 3), np.float32)
    given[..., 2] = 100
    reference, scores, scored = run(model, image, beside=Beside(tf.constant(given),
                                                                tf.constant(decided)),
                                    lattice=LatticeConfig(margin=99.0))
    assert scored.all()
    np.testing.assert_array_equal(scores[decided], given[decided])
    np.testing.assert_allclose(scores[~decided], reference[~decided], rtol=0,
                               atol=2e-5 * np.abs(reference).max())
