"""The guided filter against its definition, and what it is for."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig
from pixelnet_tf.inference.guided_filter import guided_filter, refine_scores
from pixelnet_tf.inference.segmenter import Segmenter

from .conftest import slices


def by_definition(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float
                  ) -> np.ndarray:
    """(height, width, value) in float64, window by window: ridge regression, then the mean."""
    height, width, channels = guide.shape
    total, windows = np.zeros_like(values, np.float64), np.zeros((height, width, 1))
    for y in range(height):
        for x in range(width):
            part = (slice(max(y - radius, 0), y + radius + 1),
                    slice(max(x - radius, 0), x + radius + 1))
            g = guide[part].reshape(-1, channels).astype(np.float64)
            v = values[part].reshape(len(g), -1).astype(np.float64)
            centred = g - g.mean(axis=0)
            spread = centred.T @ centred / len(g) + epsilon * np.eye(channels)
            slope = np.linalg.solve(spread, centred.T @ (v - v.mean(axis=0)) / len(g))
            total[part] += guide[part] @ slope + v.mean(axis=0) - g.mean(axis=0) @ slope
            windows[part] += 1
    return total / windows


@pytest.mark.parametrize(("channels", "radius"), [(1, 2), (3, 3), (2, 20)])
def test_it_is_its_definition(channels, radius):
    rng = np.random.default_rng(0)
    guide = rng.normal(size=(2, 13, 17, channels)).astype(np.float32)
    values = rng.random((2, 13, 17, 2)).astype(np.float32)
    found = guided_filter(tf.constant(guide), tf.constant(values), radius, 0.05).numpy()
    for n in range(2):
        np.testing.assert_allclose(found[n], by_definition(guide[n], values[n], radius, 0.05),
                                   rtol=0, atol=2e-5)


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
                            tf.constant(image[None, ..., None], tf.float32), 5, 0.01).numpy()[0]
    before, after = ((s.argmax(axis=-1) != inside).sum() for s in (scores, refined))
    assert before > 100
    assert after < before / 10
    np.testing.assert_allclose(np.exp(refined).sum(axis=-1), 1, rtol=1e-5)


def test_the_segmenter_filters_what_it_would_have_returned(narrow_net):
    model, image = narrow_net(fc7="none"), slices("edge", 25, 31, 2)
    correction = np.float32([0.5, 0.0, -0.5])
    wanted = image.any(axis=-1)
    arguments = tf.constant(image), tf.constant(wanted)
    plain = Segmenter(model, correction).scores(*arguments)
    smoothed = Segmenter(model, correction, smoothing=GuidedFilterConfig(3, 0.1))
    expected = refine_scores(plain, arguments[0], 3, 0.1).numpy()
    found = smoothed.scores(*arguments).numpy()
    np.testing.assert_allclose(found[wanted], expected[wanted], rtol=0, atol=1e-5)
    assert (found[~wanted] == [0, -1e4, -1e4]).all()
    assert np.abs(found - plain.numpy())[wanted].mean() > 0.01
