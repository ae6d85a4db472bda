"""Scores of listed pixels with the first layer applied to the context map before interpolation.

The first layer of the perceptron is linear and so is bilinear interpolation: applied to the few
cells of fc7_conv that an image touches instead of to every pixel's 4096 interpolated numbers, its
largest part costs next to nothing. The sums are the same, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pixelnet_tf.model.fast_trunk import Tap, matrix_product
from pixelnet_tf.model.hypercolumn import interpolate_rows
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.model.vgg16 import Dropout


def first_kernel(model: PixelNet) -> tf.Tensor:
    """Kernel (channel, unit) of the first layer, in the order of the channels that taps give.

    Those are map by map, and within a map the slice's own and those of the slices beside it.
    """
    table = model.architecture
    own, *beside = (tf.convert_to_tensor(model.parts[layer.name].kernel)
                    for layer in (table.head[0], *table.beside))
    if not beside:
        return own
    widths = [tap.width for tap in table.taps]
    of_maps = zip(*(tf.split(kernel, widths) for kernel in (own, *beside)), strict=True)
    return tf.concat([rows for of_map in of_maps for rows in of_map], axis=0)


#: Maps from this rate on have far fewer cells than pixels are asked for.
_COARSE_RATE = 8


class Perceptron:
    """The head's layers, their weights cast once.

    Args:
        model: trained network.
        precision: type of the matrix products.
        first_rows: the rows of `first_kernel` that `first` multiplies; None: all.
    """

    def __init__(self, model: PixelNet, precision: tf.DType = tf.float32,
                 first_rows: tf.Tensor | None = None):
        self.precision = precision
        self.table = model.architecture
        self._weights = {}
        for layer in self.table.head:
            bias = tf.convert_to_tensor(model.parts[layer.name].bias)
            if layer is self.table.head[0]:
                kernel = first_kernel(model) if first_rows is None else first_rows
            else:
                kernel = tf.convert_to_tensor(model.parts[layer.name].kernel)
            self._weights[layer.name] = tf.cast(kernel, precision), tf.cast(bias, precision)

    @property
    def first_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (channel, unit) and bias (unit,) of the first layer."""
        return self._weights[self.table.head[0].name]

    def first(self, columns: tf.Tensor) -> tf.Tensor:
        """Sums (pixel, unit) of the first layer over hypercolumns (pixel, channel)."""
        return self._dense(self.table.head[0].name,
                           tf.nn.relu(columns) if self.table.relu_on_hypercolumn else columns)

    def finish(self, sums: tf.Tensor, dropout: Dropout | None = None) -> tf.Tensor:
        """Scores (pixel, class) float32 from the first layer's sums."""
        for before, layer in zip(self.table.head, self.table.head[1:], strict=False):
            values = tf.nn.relu(sums)
            if dropout is not None:
                values = dropout(values, before.dropout)
            sums = self._dense(layer.name, values)
        return tf.cast(sums, tf.float32)

    def _dense(self, name: str, values: tf.Tensor) -> tf.Tensor:
        kernel, bias = self._weights[name]
        return tf.nn.bias_add(matrix_product(tf.cast(values, self.precision), kernel), bias)


class FastHead:
    """The head on the maps of a few slices; what does not depend on the pixels is done once.

    Args:
        taps: maps of `fast_taps`.
        precision: type of the matrix products.
        box: (2, 2) int32, canvas coordinates of the first and the last row and column that are
            asked for. With it the first layer's sums of coarse maps that are read in several slices
            are worked out once a cell, and added up before they are interpolated, so that a pixel
            costs the same for any number of slices. For many pixels of few slices, and without
            gradients.
    """

    def __init__(self, model: PixelNet, taps: Sequence[Tap], precision: tf.DType = tf.float32,
                 box: tf.Tensor | None = None):
        self._near = list(taps)
        #: Coarse maps that were led through the first layer, their sums cell by cell.
        self._coarse: list[tuple[Tap, tf.Tensor, tf.Tensor]] = []
        # A ReLU between hypercolumn and head would not commute with the interpolation.
        if model.architecture.relu_on_hypercolumn:
            self._perceptron = Perceptron(model, precision)
            return
        rows, cells = [first_kernel(model)], list[Tap]()
        if model.architecture.context:
            cells, *rows = self._map_context(*rows)
        if box is not None:
            rows[0] = self._map_coarse(rows[0], box, precision)
        self._near += cells
        self._perceptron = Perceptron(model, precision, tf.concat(rows, axis=0))

    def _map_context(self, kernel: tf.Tensor) -> tuple[list[Tap], tf.Tensor, tf.Tensor]:
        """Lead the context through the first layer.

        Returns its cells as a map, the kernel's rows of the other maps, and those of the cells:
        each cell's share of the first layer's sums.
        """
        # The context comes last in the hypercolumn; the other maps are finer than listed pixels.
        *self._near, context = self._near
        context = context.gathered()
        # Split, because the gradient of two slices would be two whole matrices and their sum.
        channels = context.values.shape[-1]
        near, own = tf.split(kernel, [kernel.shape[0] - channels, channels])
        # A few rows against a large matrix: bound by reading it, so it is not cast.
        shares = tf.reshape(tf.tensordot(tf.cast(context.values, tf.float32), own, 1),
                            [-1, own.shape[1]])
        # Read at pixels, the map that holds a one in a channel of its own for every cell gives
        # the matrix of the interpolation: the product with the other maps' features has a few
        # columns more, and no wide cells are gathered.
        cells = tf.shape(context.values)[:3]
        count = tf.reduce_prod(cells)
        ones = tf.eye(count, dtype=context.values.dtype)
        return [context._replace(values=tf.reshape(ones, tf.concat([cells, [count]], 0)))], \
            near, shares

    def _map_coarse(self, kernel: tf.Tensor, box: tf.Tensor, precision: tf.DType) -> tf.Tensor:
        """Lead the coarse maps through the first layer; returns the kernel's rows of the others."""
        rows = tf.split(kernel, [tap.channels for tap in self._near])
        near = [(tap, part) for tap, part in zip(self._near, rows, strict=True)
                if tap.neighbours is None or tap.rate < _COARSE_RATE]
        for tap, part in zip(self._near, rows, strict=True):
            if tap.neighbours is None or tap.rate < _COARSE_RATE:
                continue
            cells = (tf.cast(box, tf.float32) - (tap.rate - 1) / 2) / tap.rate
            seen = tap.cut(tf.cast(tf.floor(cells[0]), tf.int32),
                           tf.cast(tf.math.ceil(cells[1]), tf.int32) + 1).gathered()
            sums = tf.tensordot(tf.cast(seen.values, precision), tf.cast(part, precision), 1)
            self._coarse.append((seen, tf.shape(sums)[:3], tf.reshape(
                tf.cast(sums, tf.float32), [-1, sums.shape[-1]])))
        self._near = [tap for tap, _ in near]
        return tf.concat([part for _, part in near], axis=0)

    def __call__(self, canvas_nyx: tf.Tensor, dropout: Dropout | None = None) -> tf.Tensor:
        """Scores (pixel, class) float32 of pixels.

        canvas_nyx (pixel, 3) float32 rows of n, y, x in canvas coordinates (`canvas_pixels`);
        dropout as in `fast_taps`.
        """
        sums = self._perceptron.first(
            tf.concat([tap.sample(canvas_nyx) for tap in self._near], axis=-1))
        for tap, size, rows in self._coarse:
            places = canvas_nyx - tf.cast(tf.concat([[0], tap.origin * tap.rate], 0), tf.float32)
            sums += tf.cast(interpolate_rows(rows, size, places, tap.rate),
                            self._perceptron.precision)
        return self._perceptron.finish(sums, dropout)


def fast_scores(model: PixelNet, taps: Sequence[Tap], canvas_nyx: tf.Tensor, *,
                precision: tf.DType = tf.float32, dropout: Dropout | None = None) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels, given the maps of `fast_taps`; see `FastHead`."""
    return FastHead(model, taps, precision)(canvas_nyx, dropout)
