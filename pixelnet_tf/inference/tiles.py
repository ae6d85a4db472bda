"""The first layer of the head on square tiles of pixels, without a gather per pixel.

Along one axis, bilinear interpolation at the pixels of a tile is a small matrix of hat functions
over the few cells that the tile spans. The first layer is linear: for a coarse map it is applied
to those cells, and the matrix spreads the sums over the tile's pixels; for a fine map the features
are spread first. Which order is cheaper follows from the map's rate and channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from pixelnet_tf.model.fast_trunk import Tap

#: Pixels along a tile's side.
TILE = 16


def cells_spanned(rate: int) -> int:
    """Cells of a map that the pixels of a tile can touch along one axis."""
    return math.ceil((TILE - 1) / rate) + 2


def spreads_features(rate: int, channels: int) -> bool:
    """Whether interpolating features costs less than interpolating the first layer's sums.

    In multiply-adds a pixel and hidden unit: `channels` against the cells' share of the product
    plus the interpolation of the sums.
    """
    cells = cells_spanned(rate) ** 2
    return channels <= cells * (1 + channels / TILE**2)


class TileLayer:
    """The first layer's pre-activations (or the hypercolumns) for tiles of pixels.

    Args:
        taps: maps of `fast_taps`.
        border: pixels between canvas and image.
        kernel: (channel, unit) of the first layer, in the order of the hypercolumn; None gives
            hypercolumns.
        bias: (unit,).
    """

    def __init__(self, taps: Sequence[Tap], border: int, kernel: tf.Tensor | None = None,
                 bias: tf.Tensor | None = None):
        self.border, self.bias = border, bias
        self._spread, self._mapped, kernels = [], [], []
        start = 0
        for tap in taps:
            channels = tap.channels
            if kernel is None:
                self._spread.append(tap)
                continue
            rows = kernel[start:start + channels]
            start += channels
            if spreads_features(tap.rate, channels):
                self._spread.append(tap)
                kernels.append(rows)
            elif tap.rate > TILE:
                # A few cells for many tiles: mapped once, not once a tile.
                whole = tap.gathered()
                self._mapped.append((whole._replace(values=tf.tensordot(whole.values, rows, 1)),
                                     None))
            else:
                self._mapped.append((tap, rows))
        self._kernel = None if kernel is None else tf.concat(kernels, axis=0)

    def __call__(self, tiles: tf.Tensor) -> tf.Tensor:
        """Values (tile, pixel, unit or channel) of tiles (tile, 3) int32: n, tile row, tile column.

        Pixels in row-major order, TILE^2 of them.
        """
        features = tf.concat([self._interpolated(tap, tiles) for tap in self._spread], axis=-1)
        if self._kernel is None:
            return features
        values = tf.nn.bias_add(tf.tensordot(features, self._kernel, 1), self.bias)
        if self._mapped:
            cells, weights = zip(*(self._mapped_cells(tap, rows, tiles)
                                   for tap, rows in self._mapped), strict=True)
            values += tf.matmul(tf.concat(weights, axis=-1), tf.concat(cells, axis=1))
        return values

    def _positions(self, tiles: tf.Tensor, axis: int) -> tf.Tensor:
        """Canvas coordinates (tile, position) float32 of the pixels along one axis."""
        first = tiles[:, 1 + axis, None] * TILE + self.border
        return tf.cast(first + tf.range(TILE)[None], tf.float32)

    def _window(self, tap: Tap, tiles: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Cells (tile, cell, cell, channel) under the tiles, and the hats along both axes.

        A cell before the first or past the last one is that one: RandBI's clamp.
        """
        count = cells_spanned(tap.rate)
        cells, hats = [], []
        for axis in (0, 1):
            v = self._positions(tiles, axis)
            t = (v - (tap.rate - 1) / 2) / tap.rate
            cell = tf.floor(t[:, :1]) + tf.range(count, dtype=tf.float32)[None]
            hat = tf.nn.relu(1.0 - tf.abs(t[:, :, None] - cell[:, None, :]))
            last = tf.shape(tap.values)[1 + axis] - 1
            inside = tf.cast(cell, tf.int32) - tap.origin[axis]
            cells.append(tf.maximum(tf.minimum(inside, last), 0))
            hats.append(tf.cast(hat, tap.values.dtype))
        rows, columns = tf.broadcast_to(cells[0][:, :, None], [tf.shape(tiles)[0], count, count]), \
            tf.broadcast_to(cells[1][:, None, :], [tf.shape(tiles)[0], count, count])
        numbers = ([tiles[:, 0]] if tap.neighbours is None
                   else tf.unstack(tf.gather(tap.neighbours, tiles[:, 0]), axis=1))
        windows = [tf.gather_nd(tap.values, tf.stack(
            [tf.broadcast_to(number[:, None, None], tf.shape(rows)), rows, columns], axis=-1))
            for number in numbers]
        return windows[0] if len(windows) == 1 else tf.concat(windows, axis=-1), hats

    def _interpolated(self, tap: Tap, tiles: tf.Tensor) -> tf.Tensor:
        window, (rows, columns) = self._window(tap, tiles)
        count, channels = cells_spanned(tap.rate), tap.channels
        if tap.rate == 1:
            window = window[:, :TILE, :TILE]
        else:
            # Rows, then columns; each is a product with a small matrix.
            flat = tf.reshape(window, [-1, count, count * channels])
            half = tf.reshape(tf.matmul(rows, flat), [-1, count, channels])
            repeated = tf.repeat(columns, TILE, axis=0)
            window = tf.matmul(repeated, half)
        return tf.reshape(window, [-1, TILE * TILE, channels])

    def _mapped_cells(self, tap: Tap, kernel: tf.Tensor | None, tiles: tf.Tensor
                      ) -> tuple[tf.Tensor, tf.Tensor]:
        """The first layer's sums (tile, cell, unit) and their weights (tile, pixel, cell)."""
        window, (rows, columns) = self._window(tap, tiles)
        count = cells_spanned(tap.rate)
        cells = tf.reshape(window, [-1, count * count, window.shape[-1]])
        if kernel is not None:
            cells = tf.tensordot(cells, kernel, 1)
        weights = rows[:, :, None, :, None] * columns[:, None, :, None, :]
        return cells, tf.reshape(weights, [-1, TILE * TILE, count * count])
