"""Scores of many pixels through the maps' own grids, against gathered hypercolumns."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import canvas_pixels, fast_taps
from pixelnet_tf.model.grid_head import grid_scores
from pixelnet_tf.model.pixelnet import plain_scores, plain_taps


def lattice_pixels(batch: int, height: int, width: int, stride: int, offset: tuple[int, int]
                   ) -> np.ndarray:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(batch), range(offset[0], height, stride),
                                range(offset[1], width, stride), indexing="ij"), -1).reshape(-1, 3)
    return rng.permutation(grid)[:len(grid) * 2 // 3].astype(np.float32)


@pytest.mark.parametrize("fields", [
    {}, {"fc7": "aligned"}, {"fc7": "none", "border": 16}, {"fc7": "none", "border": 0},
    {"head": "linear"},
], ids=lambda fields: "-".join(map(str, fields.values())) or "original")
@pytest.mark.parametrize(("kind", "stride", "offset"), [
    ("inner", 1, (0, 0)), ("mixed", 2, (1, 0)), ("full", 3, (2, 1)), ("empty", 2, (0, 1)),
])
def test_scores_and_gradients_are_the_gathered_ones(
        narrow_net, images, scores_and_gradients, fields, kind, stride, offset):
    model = narrow_net(**fields)
    image = tf.constant(images(kind, 40, 52, batch=2))
    pixels = tf.constant(lattice_pixels(2, 40, 52, stride, offset))
    of = partial(scores_and_gradients, model)

    fast, fast_gradients = of(lambda: grid_scores(
        model, fast_taps(model, image), canvas_pixels(model, pixels), stride))
    gathered, gathered_gradients = of(lambda: fast_scores(
        model, fast_taps(model, image), canvas_pixels(model, pixels)))
    plain = plain_scores(model, plain_taps(model, image), pixels)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    np.testing.assert_allclose(fast, gathered, rtol=0, atol=1e-5 * np.abs(plain).max())
    for variable, mine, theirs in zip(model.trainable_variables, fast_gradients,
                                      gathered_gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max() + 1e-7,
                                   err_msg=variable.path)


def test_a_mini_batch_without_a_pixel_costs_nothing(narrow_net, images, scores_and_gradients):
    model = narrow_net(fc7="none", border=16)
    image = tf.constant(images("full", 33, 33))
    scores, gradients = scores_and_gradients(model, lambda: grid_scores(
        model, fast_taps(model, image), canvas_pixels(model, tf.zeros([0, 3])), 2))
    assert scores.shape == (0, model.classes)
    for gradient in gradients:
        assert not np.any(gradient)


def test_one_pixel_alone(narrow_net, images):
    model = narrow_net(fc7="none", border=16)
    image = tf.constant(images("full", 33, 33))
    pixel = tf.constant([[0.0, 32.0, 0.0]])
    scores = grid_scores(model, fast_taps(model, image), canvas_pixels(model, pixel), 2)
    np.testing.assert_allclose(scores, plain_scores(model, plain_taps(model, image), pixel),
                               rtol=1e-4, atol=1e-5)
