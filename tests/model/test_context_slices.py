"""Hypercolumns that reach into neighbouring slices: each form of the head against the plain one."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.fast_head import FastHead, fast_scores
from pixelnet_tf.model.fast_trunk import canvas_pixels, fast_taps
from pixelnet_tf.model.grid_head import grid_scores
from pixelnet_tf.model.hypercolumn import slices_beside
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps

VARIANTS = ({"context_slices": 3}, {"context_slices": 5, "fc7": "none", "border": 16},
            {"context_slices": 3, "head": "linear", "border": 48, "fc7": "aligned"})


def lattice_pixels(targets: int, height: int, width: int) -> np.ndarray:
    grid = np.stack(np.meshgrid(range(targets), range(1, height, 2), range(0, width, 2),
                                indexing="ij"), -1).reshape(-1, 3)
    return np.random.default_rng(0).permutation(grid)[:len(grid) // 2].astype(np.float32)


def test_the_order_of_the_slices_and_their_kernels():
    table = Architecture.of(ModelConfig(context_slices=5, head_widths=(7,)), 2)
    assert table.offsets == (0, -1, 1, -2, 2)
    assert [layer.name for layer in table.beside] == [
        "fc6_new_below1", "fc6_new_above1", "fc6_new_below2", "fc6_new_above2"]
    assert table.blob_shapes(3)["fc6_new_above2"] == ((7, 5568),)
    alone = Architecture.of(ModelConfig(), 2)
    assert alone.offsets == (0,)
    assert alone.beside == ()
    with pytest.raises(ConfigError, match="context_slices must be 1, 3 or 5, got 2"):
        ModelConfig(context_slices=2)


def test_beyond_the_ends_of_a_stack_the_nearest_slice_is_read():
    np.testing.assert_array_equal(slices_beside(3, (0, -1, 1, -2, 2)), [
        [0, 0, 1, 0, 2], [1, 0, 2, 0, 2], [2, 1, 2, 0, 2]])
    np.testing.assert_array_equal(slices_beside(1, (0, -1, 1)), [[0, 0, 0]])


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_every_form_has_the_scores_and_gradients_of_the_plain_hypercolumn(
        narrow_net, images, scores_and_gradients, fields):
    model = narrow_net(**fields)
    image = tf.constant(images("mixed", 40, 52, batch=4))
    # Two slabs: slices 0 and 1 of one volume, 2 and 3 of another; 1 and 2 are drawn from.
    offsets = model.architecture.offsets
    neighbours = tf.constant([[1, 0, 1, 0, 1], [2, 2, 3, 2, 3]], tf.int32)[:, :len(offsets)]
    pixels = tf.constant(lattice_pixels(2, 40, 52))
    of = partial(scores_and_gradients, model)

    plain, expected = of(lambda: model([image, pixels, neighbours]))
    forms = {
        "plain": lambda: plain_scores(model, plain_taps(model, image), pixels,
                                      neighbours=neighbours),
        "listed": lambda: fast_scores(model, fast_taps(model, image, neighbours=neighbours),
                                      canvas_pixels(model, pixels)),
        "grid": lambda: grid_scores(model, fast_taps(model, image, neighbours=neighbours),
                                    canvas_pixels(model, pixels), 2),
    }
    box = tf.constant([[0, 0], [39, 51]]) + model.config.border
    coarse = FastHead(model, fast_taps(model, image, neighbours=neighbours), box=box)
    np.testing.assert_allclose(coarse(canvas_pixels(model, pixels)), plain, rtol=0,
                               atol=1e-5 * np.abs(plain).max())
    for name, form in forms.items():
        scores, gradients = of(form)
        np.testing.assert_allclose(scores, plain, rtol=0, atol=1e-5 * np.abs(plain).max(),
                                   err_msg=name)
        for variable, mine, theirs in zip(model.trainable_variables, gradients, expected,
                                          strict=True):
            assert np.abs(theirs).max() > 0
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max(),
                                       err_msg=f"{name} {variable.path}")


def test_a_fresh_network_with_context_is_the_one_without(images):
    narrow = {"widths": (3, 4, 6, 8, 8), "fc7": "none", "head_widths": (9,), "border": 16,
              "head_filler": "he"}
    alone, deep = (PixelNet(ModelConfig(**narrow, context_slices=count), 2, 3, seed=1)
                   for count in (1, 3))
    image = tf.constant(images("inner", 32, 32, batch=3))
    pixels = tf.constant(lattice_pixels(3, 32, 32))
    np.testing.assert_array_equal(
        plain_scores(deep, plain_taps(deep, image), pixels),
        plain_scores(alone, plain_taps(alone, image), pixels))
    # With a third of the kernel for each slice, three equal slices give the same.
    kernel = alone.parts["fc6_new"].kernel.numpy()
    for name in ("fc6_new", "fc6_new_below1", "fc6_new_above1"):
        deep.parts[name].kernel.assign(kernel / 3)
    same = tf.repeat(image[:1], 3, axis=0)
    np.testing.assert_allclose(
        plain_scores(deep, plain_taps(deep, same), pixels),
        plain_scores(alone, plain_taps(alone, same), pixels), rtol=0, atol=1e-5)
