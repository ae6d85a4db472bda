"""Exact dense prediction against the plain hypercolumn of every pixel."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.inference.dense import DenseScorer

from .conftest import VARIANTS, slices


def both(model, image, wanted=None):
    scorer = DenseScorer(model)
    wanted = np.ones(image.shape[:3], bool) if wanted is None else wanted
    reference = scorer.reference(tf.constant(image)).numpy()
    pixels, scores = scorer.exact(scorer.taps(tf.constant(image)), tf.constant(wanted))
    return reference, pixels.numpy(), scores.numpy()


def check(model, image, wanted=None) -> None:
    reference, pixels, scores = both(model, image, wanted)
    wanted = np.ones(image.shape[:3], bool) if wanted is None else wanted
    # Every wanted pixel once, in whatever order.
    asked = np.zeros(wanted.shape, int)
    np.add.at(asked, tuple(pixels.T), 1)
    np.testing.assert_array_equal(asked, wanted)
    expected = reference[tuple(pixels.T)]
    scale = np.abs(reference).max()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-5 * scale)
    assert np.ptp(reference) > 0.01


@pytest.mark.parametrize("kind", ["inner", "edge", "full", "empty"])
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_every_variant(narrow_net, fields, kind):
    check(narrow_net(**fields), slices(kind, 40, 36))


@pytest.mark.parametrize("size", [(25, 33), (32, 48), (27, 79), (65, 31)])
@pytest.mark.parametrize("fc7", ["faithful", "none"])
def test_sizes_and_batches(narrow_net, fc7, size):
    check(narrow_net(fc7=fc7), slices("inner", *size, batch=3))


def test_only_what_is_wanted(narrow_net):
    image = slices("full", 50, 45, batch=2)
    wanted = np.random.default_rng(0).random(image.shape[:3]) < 0.1
    wanted[1, :30] = False
    check(narrow_net(fc7="none"), image, wanted)


def test_nothing_is_wanted(narrow_net):
    scorer = DenseScorer(narrow_net(fc7="none"))

    @tf.function
    def exact(image, wanted):
        return scorer.exact(scorer.taps(image), wanted)

    pixels, scores = exact(tf.constant(slices("full", 30, 30)), tf.zeros([1, 30, 30], tf.bool))
    assert pixels.shape == (0, 3)
    assert scores.shape == (0, 3)


def test_more_pixels_than_a_chunk(narrow_net):
    # 2 x 80 x 70 pixels lie in 50 tiles, of which eight pass the head together.
    check(narrow_net(fc7="none"), slices("inner", 80, 70, batch=2))


def test_bfloat16_is_close(narrow_net):
    model, image = narrow_net(fc7="none"), slices("inner", 40, 36)
    scorer = DenseScorer(model, "bfloat16")
    wanted = tf.ones(image.shape[:3], tf.bool)
    pixels, half = scorer.exact(scorer.taps(tf.constant(image)), wanted)
    exact = DenseScorer(model).reference(tf.constant(image)).numpy()[tuple(pixels.numpy().T)]
    assert half.dtype == tf.float32
    assert np.abs(half - exact).mean() < 0.03 * np.abs(exact - exact.mean(0)).mean() + 0.02
