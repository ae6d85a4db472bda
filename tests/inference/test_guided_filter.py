"""The guided filter against its definition, and what it is for."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig
from pixelnet_tf.inference.guided_filter import guided_filter, refine_scores
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter

from .conftest import slices


def by_definition(guide: np.ndarray, values: np.ndarray, domain: np.ndarray, radius: int,
                  epsilon: float) -> np.ndarray:
    """(height, width, value) in float64, window by window: ridge regression, then the mean."""
    height, width, channels = guide.shape
    total, windows = np.zeros_like(values, np.float64), np.zeros((height, width, 1))
    for y, x in np.argwhere(domain):
        part = (slice(max(y - radius, 0), y + radius + 1),
                slice(max(x - radius, 0), x + radius + 1))
        g, v = (a[part][domain[part]].astype(np.float64) for a in (guide, values))
        centred = g - g.mean(axis=0)
        spread = centred.T @ centred / len(g) + epsilon * np.eye(channels)
        slope = np.linalg.solve(spread, centred.T @ (v - v.mean(axis=0)) / len(g))
        total[part] += guide[part] @ slope + v.mean(axis=0) - g.mean(axis=0) @ slope
        windows[part] += 1
    return total / np.maximum(windows, 1)


@pytest.mark.parametrize("domain", ["everywhere", "parts"])
@pytest.mark.parametrize(("channels", "radius"), [(1, 2), (3, 3), (2, 20)])
def test_it_is_its_definition(channels, radius, domain):
    rng = np.random.default_rng(0)
    guide = rng.normal(size=(2, 13, 17, channels)).astype(np.float32)
    values = rng.random((2, 13, 17, 2)).astype(np.float32)
    inside = np.ones((2, 13, 17), bool)
    if domain == "parts":
        inside = rng.random(inside.shape) < 0.5
        inside[1, :, 9:] = False
    found = guided_filter(tf.constant(guide), tf.constant(values), tf.constant(inside), radius,
                          0.05).numpy()
    for n in range(2):
        expected = by_definition(guide[n], values[n], inside[n], radius, 0.05)
        np.testing.assert_allclose(found[n][inside[n]], expected[inside[n]], rtol=0, atol=2e-5)


def test_nothing_outside_the_domain_is_seen_inside():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(1, 20, 23, 2)).astype(np.float32)
    scores = rng.normal(size=(1, 20, 23, 3)).astype(np.float32)
    part = np.s_[:, 4:17, 3:15]
    domain = np.zeros((1, 20, 23), bool)
    domain[part] = True
    outside = np.float32(~domain[..., None])

    def refined(scores, image, domain):
        return refine_scores(*(tf.constant(a) for a in (scores, image, domain)), 4, 0.01).numpy()

    found = refined(scores, image, domain)
    changed = refined(scores + np.float32([50, 0, -9]) * outside, image + 9 * outside, domain)
    np.testing.assert_array_equal(found[domain], changed[domain])
    # The same as of the domain alone.
    alone = refined(scores[part], image[part], domain[part])
    np.testing.assert_allclose(found[part], alone, rtol=0, atol=1e-4)


def test_scores_come_to_follow_the_edge_of_the_image():
    rng = np.random.default_rng(1)
    inside = np.zeros((40, 40), bool)
    inside[10:30, 12:31] = True
    image = np.where(inside, 1.5, 0.0) + rng.normal(0, 0.05, inside.shape)
    # A network that is one pixel late on every side, and unsure.
    late = np.zeros_like(inside)
    late[11:31, 13:32] = True
    scores = np.stack([np.zeros(late.shape), np.where(late, 2.0, -2.0)], axis=-1)
    scores[..., 1] += rng.normal(0, 1.5, late.shape)
    refined = refine_scores(tf.constant(scores[None], tf.float32),
                            tf.constant(image[None, ..., None], tf.float32),
                            tf.ones([1, 40, 40], tf.bool), 5, 0.01).numpy()[0]
    before, after = ((s.argmax(axis=-1) != inside).sum() for s in (scores, refined))
    assert before > 100
    assert after < before / 10
    np.testing.assert_allclose(np.exp(refined).sum(axis=-1), 1, rtol=1e-5)


def test_the_segmenter_filters_what_it_would_have_returned(narrow_net):
    model, image = narrow_net(fc7="none"), slices("edge", 25, 31, 2)
    correction = np.float32([0.5, 0.0, -0.5])
    domain = image.any(axis=-1)
    arguments = tf.constant(image), tf.constant(domain)
    plain = SliceSegmenter(model, correction).scores(*arguments)
    smoothed = SliceSegmenter(model, correction, smoothing=GuidedFilterConfig(3, 0.1))
    expected = refine_scores(plain, *arguments, 3, 0.1).numpy()
    found = smoothed.scores(*arguments).numpy()
    np.testing.assert_allclose(found[domain], expected[domain], rtol=0, atol=1e-5)
    assert (found[~domain] == [0, -1e4, -1e4]).all()
    assert np.abs(found - plain.numpy())[domain].mean() > 0.01
    # The pixels between those that are read are filtered with them.
    read_out = np.zeros_like(domain)
    read_out[:, 1::2, ::2] = True
    found = smoothed.scores(*arguments, tf.constant(read_out)).numpy()
    used = domain & read_out
    np.testing.assert_allclose(found[used], expected[used], rtol=0, atol=1e-5)


def test_a_lesion_at_the_rim_of_the_brain_is_not_smoothed_away():
    """A lesion as bright as the brain's mean is as bright as the normalised background, too."""
    domain = np.zeros((1, 40, 40), bool)
    domain[:, 12:28, 12:28] = True
    lesion = domain.copy()
    lesion[:, :, 18:] = False
    image = np.where(domain, np.where(lesion, 0.0, 2.0), 0.0).astype(np.float32)[..., None]
    scores = np.where(lesion[..., None], [-6.0, 6.0], [6.0, -6.0]).astype(np.float32)
    refined = refine_scores(tf.constant(scores), tf.constant(image), tf.constant(domain), 16,
                            0.01).numpy()
    np.testing.assert_array_equal(refined.argmax(-1)[domain], lesion[domain])
