"""The response to an empty canvas, from miniatures, against the whole canvas."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.model.architecture import BLOCKS
from pixelnet_tf.model.empty_canvas import (
    constant_response,
    empty_pooled_map,
    separable_blocks,
)


def random_kernels(blocks: int, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    kernels, channels = [], 2
    for count in map(len, BLOCKS[:blocks]):
        layers = []
        for _ in range(count):
            layers.append((tf.constant(rng.normal(0, 0.4, (3, 3, channels, 3)), tf.float32),
                           tf.constant(rng.normal(0.1, 0.3, 3), tf.float32)))
            channels = 3
        kernels.append(layers)
    return kernels


def whole_canvas(kernels, height: int, width: int) -> tf.Tensor:
    x = tf.zeros([1, height, width, 2])
    for layers in kernels:
        for kernel, bias in layers:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + bias)
        x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    return x


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_stretched_miniatures_are_the_whole_canvas(blocks):
    kernels = random_kernels(blocks)
    for height, width in ((200, 201), (233, 214), (301, 256)):
        expected = whole_canvas(kernels, height, width)
        found = empty_pooled_map(kernels, tf.constant(height), tf.constant(width))
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_constant_is_the_middle_of_a_canvas():
    (kernel, bias), = random_kernels(1)[0][:1]
    values = tf.constant([0.7, -0.2])
    canvas = tf.nn.conv2d(tf.broadcast_to(values, [1, 5, 5, 2]), kernel, 1, "SAME") + bias
    np.testing.assert_allclose(constant_response(kernel, bias, values), canvas[0, 2, 2],
                               rtol=1e-5)


def test_blocks_by_hand():
    # Without a border the image touches the canvas's edge; a wide border frees four blocks.
    assert separable_blocks(0) == 0
    assert separable_blocks(100) == 4
    found = [separable_blocks(border) for border in range(0, 130)]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3, 4}
    # The two convolutions of the first block reach 2 pixels from either side, and its box takes 4.
    assert found.index(1) >= 4
