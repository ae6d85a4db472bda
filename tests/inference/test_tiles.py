"""The first layer on tiles, against a gather per pixel and a product."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.inference.tiles import TILE, TileLayer, cells_spanned, spreads_features
from pixelnet_tf.model.fast_trunk import Tap

RATES = (1, 2, 4, 8, 16, 32, 224)


def random_tap(rate: int, channels: int, border: int, size: int, seed: int = 0) -> Tap:
    """A map that covers the image with `border` around it, beginning at an odd cell."""
    rng = np.random.default_rng(seed + rate)
    origin = np.array([border // (2 * rate), border // (3 * rate)], np.int32)
    cells = (size + 2 * border) // rate + 2 - origin
    return Tap(tf.constant(rng.normal(size=(2, *cells, channels)), tf.float32), rate,
               tf.constant(origin))


def tile_pixels(tiles: np.ndarray, border: int) -> np.ndarray:
    """Canvas rows of n, y, x of every pixel of the tiles."""
    return np.array([[n, row * TILE + y + border, column * TILE + x + border]
                     for n, row, column in tiles
                     for y in range(TILE) for x in range(TILE)], np.float32)


TILES = np.array([[0, 0, 0], [1, 2, 1], [0, 3, 3], [1, 0, 2]], np.int32)


@pytest.mark.parametrize("rate", RATES)
def test_hypercolumns(rate):
    tap = random_tap(rate, 3, 37, 4 * TILE)
    found = TileLayer([tap], 37)(tf.constant(TILES))
    expected = tap.sample(tf.constant(tile_pixels(TILES, 37)))
    assert found.shape == (4, TILE**2, 3)
    np.testing.assert_allclose(tf.reshape(found, expected.shape), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 60])
def test_first_layer(channels):
    # With 60 channels the coarse maps are mapped before they are spread, with 2 after.
    taps = [random_tap(rate, channels, 37, 4 * TILE) for rate in RATES]
    assert {spreads_features(rate, channels) for rate in RATES} == (
        {True} if channels == 2 else {True, False})
    rng = np.random.default_rng(1)
    kernel = tf.constant(rng.normal(size=(len(RATES) * channels, 5)), tf.float32)
    bias = tf.constant(rng.normal(size=5), tf.float32)
    found = TileLayer(taps, 37, kernel, bias)(tf.constant(TILES))
    pixels = tf.constant(tile_pixels(TILES, 37))
    expected = tf.concat([tap.sample(pixels) for tap in taps], axis=1) @ kernel + bias
    np.testing.assert_allclose(tf.reshape(found, expected.shape), expected, rtol=0,
                               atol=1e-5 * np.abs(expected).max())


def test_cells_by_hand():
    # 16 pixels, the first anywhere between two centres: 17 cells at rate 1, 3 at rate 16.
    assert [cells_spanned(rate) for rate in (1, 4, 16, 224)] == [17, 6, 3, 3]
