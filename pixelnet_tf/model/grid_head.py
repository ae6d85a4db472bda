"""Scores of many pixels of few slices: the first layer on each map's own grid.

The first layer of the perceptron is linear and so is bilinear interpolation. Where nearly every
pixel of a slice is asked for, the sums of a coarse map are worked out once a cell instead of once a
pixel, and then interpolated: a slice costs one pass of small products, not a gathered hypercolumn a
pixel. The sums are those of `FastHead`, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pixelnet_tf.model.fast_head import Perceptron, first_kernel
from pixelnet_tf.model.fast_trunk import Tap
from pixelnet_tf.model.hypercolumn import pixels_beside
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.model.vgg16 import Dropout

#: Maps up to this rate are read as features: they have fewer channels than the first layer has
#: units, and hardly fewer cells than there are pixels.
_FINE_RATE = 2


def grid_scores(model: PixelNet, taps: Sequence[Tap], canvas_nyx: tf.Tensor, stride: int = 1, *,
                precision: tf.DType = tf.float32, dropout: Dropout | None = None) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels that lie on a lattice, given the maps of `fast_taps`.

    Args:
        canvas_nyx: (pixel, 3) float32 rows of n, y, x in canvas coordinates (`canvas_pixels`); at
            least one. The y of all pixels differ by multiples of the stride, and so do the x.
        stride: distance of the lattice's rows and columns in pixels; 1 takes any pixels.
        precision: type of the matrix products.
        dropout: the dropout, as `fast_taps` takes it.
    """
    table = model.architecture
    places = tf.cast(tf.round(canvas_nyx), tf.int32)
    lattice = _Lattice(places, stride)
    if table.relu_on_hypercolumn:
        # The first layer cannot be applied before interpolation.
        perceptron = Perceptron(model, precision)
        columns = tf.concat([lattice.features(tap) for tap in taps], axis=-1)
        return perceptron.finish(perceptron.first(columns), dropout)
    # Split once: the gradient of slices would be a whole matrix each.
    rows = tf.split(first_kernel(model), [tap.channels for tap in taps])
    fine = [(tap, part) for tap, part in zip(taps, rows, strict=True) if tap.rate <= _FINE_RATE]
    coarse = [(tap, part) for tap, part in zip(taps, rows, strict=True) if tap.rate > _FINE_RATE]
    perceptron = Perceptron(model, precision, tf.concat([part for _, part in fine], axis=0))
    sums = perceptron.first(tf.concat([lattice.features(tap) for tap, _ in fine], -1))
    # Added up on the lattice, so that pixels are picked from one array.
    grids = [lattice.grid(tap, tf.tensordot(tf.cast(tap.gathered().values, precision),
                                            tf.cast(part, precision), 1)) for tap, part in coarse]
    sums += tf.gather_nd(tf.add_n(grids), lattice.index)
    return perceptron.finish(sums, dropout)


class _Lattice:
    """The smallest lattice of rows and columns that holds all pixels.

    Args:
        places: (pixel, 3) int32 rows of n, y, x in canvas coordinates.
        stride: between rows, and between columns.
    """

    def __init__(self, places: tf.Tensor, stride: int):
        # A mini-batch may be without a pixel; its lattice is one place, which nothing reads.
        some = tf.cond(tf.size(places) > 0, lambda: places, lambda: tf.zeros([1, 3], places.dtype))
        first, last = tf.reduce_min(some, axis=0)[1:], tf.reduce_max(some, axis=0)[1:]
        self._places = places
        self._lines = [tf.cast(tf.range(first[axis], last[axis] + 1, stride), tf.float32)
                       for axis in (0, 1)]
        #: (pixel, 3) int32: image, row and column of the lattice at which each pixel lies.
        self.index = tf.concat([places[:, :1], (places[:, 1:] - first) // stride], axis=1)

    def features(self, tap: Tap) -> tf.Tensor:
        """A map read at the pixels: (pixel, channel)."""
        if tap.rate > 1:
            return tf.gather_nd(self.grid(tap, tap.gathered().values), self.index)
        # Every pixel is a cell; beyond the map it reads the last one.
        most = tf.shape(tap.values)[1:3] - 1
        cells = tf.clip_by_value(self._places[:, 1:] - tap.origin, 0, most)
        places = tf.concat([self._places[:, :1], cells], axis=1)
        if tap.neighbours is None:
            return tf.gather_nd(tap.values, places)
        return tf.concat([tf.gather_nd(tap.values, place)
                          for place in pixels_beside(places, tap.neighbours)], axis=-1)

    def grid(self, tap: Tap, values: tf.Tensor) -> tf.Tensor:
        """A map's values read bilinearly on the lattice: (batch, row, column, channel)."""
        batch, channels = tf.shape(values)[0], values.shape[-1]
        rows, low, high = self._weights(tap, 0, tf.shape(values)[1], values.dtype)
        values = values[:, low:high]
        width = tf.shape(values)[2]
        flat = tf.reshape(values, [batch, high - low, width * channels])
        values = tf.reshape(tf.matmul(tf.tile(rows[None], [batch, 1, 1]), flat),
                            [-1, width, channels])
        columns, low, high = self._weights(tap, 1, width, values.dtype)
        values = values[:, low:high]
        values = tf.matmul(tf.tile(columns[None], [tf.shape(values)[0], 1, 1]), values)
        return tf.reshape(values, [batch, tf.shape(rows)[0], tf.shape(columns)[0], channels])

    def _weights(self, tap: Tap, axis: int, count: tf.Tensor, dtype: tf.DType
                 ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Weights (line, cell) of the cells from `low` to `high` that lie under the lines."""
        shift = tf.cast(tap.origin[axis] * tap.rate, tf.float32) + (tap.rate - 1) / 2
        # A pixel before the first cell or past the last one reads that one.
        position = tf.clip_by_value((self._lines[axis] - shift) / tap.rate, 0.0,
                                    tf.cast(count - 1, tf.float32))
        low = tf.cast(tf.floor(position[0]), tf.int32)
        high = tf.cast(tf.math.ceil(position[-1]), tf.int32) + 1
        cells = tf.cast(tf.range(low, high), tf.float32)
        return tf.cast(tf.nn.relu(1.0 - tf.abs(position[:, None] - cells)), dtype), low, high
