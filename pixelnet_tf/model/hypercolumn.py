"""The hypercolumn: feature maps read at sampled pixels (paper section 2.1; Caffe's RandBI)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.errors import ModelError

INTERPOLATIONS = ("bilinear", "nearest")
OUT_OF_RANGE = ("error", "clamp")


@keras.saving.register_keras_serializable("pixelnet_tf")
class Hypercolumn(keras.layers.Layer):
    """Concatenated features of all maps at given pixels, as Caffe's RandBI and RandComp give them.

    Called with `[map_1, ..., map_M, pixels]`: maps `(batch, height, width, channel)` of any float
    type, pixels `(pixel, 3)` float32 rows of n, y, x. Returns `(pixel, sum of channels)` in the
    type of the first map. Gradients of pixels that touch one cell add up, in every map.

    Parameters
    ----------
    rates
        Stride of each map in pixels of the canvas, in the order of the maps.
    pad
        A cell i lies at pixel `rate * i + (rate - 1) / 2`; else at `rate * i`.
    interpolation
        "bilinear" (RandBI) or "nearest" (RandComp).
    out_of_range
        What happens to a pixel past a map's last row or column. "error" as in Caffe, which aborts
        there (`tf.errors.InvalidArgumentError`); "clamp" reads the last cell. A pixel before the
        first cell always reads the first one, and an image number outside the batch is always an
        error.

    Raises
    ------
    ModelError
        The number of maps is not the number of rates.

    Examples
    --------
    Two maps of one image, of a cell a pixel and of a cell every two pixels. Pixel (1, 1) lies a
    quarter of the way from the first cell of a row of the coarse map to the second:

    >>> import numpy as np, pixelnet_tf as px
    >>> fine = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    >>> coarse = np.array([[[[0], [8]], [[0], [8]]]], "float32")
    >>> px.Hypercolumn(rates=[1, 2])([fine, coarse, np.array([[0, 1, 1]], "float32")]).numpy()
    array([[5., 2.]], dtype=float32)
    """

    def __init__(
        self,
        rates: Sequence[float],
        pad: bool = True,
        interpolation: str = "bilinear",
        out_of_range: str = "error",
        **kwargs: Any,
    ):
        # Keras would round the pixels' coordinates to bfloat16 under a mixed policy.
        super().__init__(autocast=False, **kwargs)
        _check_option("interpolation", interpolation, INTERPOLATIONS)
        _check_option("out_of_range", out_of_range, OUT_OF_RANGE)
        if not rates or min(rates) < 1:
            raise ModelError(f"hypercolumn {self.name!r} needs rates of at least 1, got {rates}",
                             value=rates)
        self.rates = tuple(float(rate) for rate in rates)
        self.pad = bool(pad)
        self.interpolation = interpolation
        self.out_of_range = out_of_range

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        if len(input_shape) != len(self.rates) + 1:
            raise ModelError(f"hypercolumn {self.name!r} has {len(self.rates)} rates {self.rates} "
                             f"and got {len(input_shape) - 1} maps", value=len(input_shape) - 1,
                             hint="give one map for each rate, then the pixels")
        for shape in input_shape[:-1]:
            if len(shape) != 4:
                raise ModelError(f"hypercolumn {self.name!r}: a map must be (batch, height, "
                                 f"width, channel), got shape {tuple(shape)}", value=tuple(shape))
        pixels = input_shape[-1]
        if len(pixels) != 2 or pixels[-1] not in (3, None):
            raise ModelError(f"hypercolumn {self.name!r}: pixels must be (pixel, 3) rows of n, y, "
                             f"x, got shape {tuple(pixels)}", value=tuple(pixels))
        self.built = True

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        *maps, pixels_nyx = inputs
        return _hypercolumn(
            tuple(maps), pixels_nyx, rates=self.rates, pad=self.pad,
            interpolation=self.interpolation, out_of_range=self.out_of_range,
        )

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        *maps, pixels = inputs
        channels = [feature_map.shape[-1] for feature_map in maps]
        depth = None if None in channels else sum(channels)
        return keras.KerasTensor((pixels.shape[0], depth), dtype=maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rates": list(self.rates),
            "pad": self.pad,
            "interpolation": self.interpolation,
            "out_of_range": self.out_of_range,
        }


def slices_beside(count: tf.Tensor | int, offsets: Sequence[int]) -> tf.Tensor:
    """Which slice of a stack each slice's hypercolumns are read from, (count, offset) int32.

    The stack holds consecutive slices of one volume, the lowest first. Where a slice is not there,
    beyond the first and the last one, the nearest one is read in its place.
    """
    places = tf.range(count)[:, None] + tf.constant(offsets, tf.int32)[None]
    return tf.clip_by_value(places, 0, count - 1)


def pixels_beside(pixels_nyx: tf.Tensor, neighbours: tf.Tensor) -> list[tf.Tensor]:
    """The places of pixels in each of the slices that their hypercolumns are read from.

    pixels_nyx (pixel, 3), n being a row of neighbours (target, offset) int32, which holds image
    numbers. Returns rows of image number, y, x for each offset.
    """
    ops = keras.ops
    images = ops.cast(ops.take(neighbours, ops.cast(pixels_nyx[:, 0], "int32"), axis=0),
                      pixels_nyx.dtype)
    return [ops.concatenate([images[:, k:k + 1], pixels_nyx[:, 1:]], axis=1)
            for k in range(neighbours.shape[1])]


@tf.function(reduce_retracing=True, autograph=False)
def _hypercolumn(maps: tuple[tf.Tensor, ...], pixels_nyx: tf.Tensor, *, rates: tuple[float, ...],
                 pad: bool, interpolation: str, out_of_range: str) -> tf.Tensor:
    columns = [
        sample_map(feature_map, pixels_nyx, rate, pad, out_of_range, interpolation)
        for feature_map, rate in zip(maps, rates, strict=True)
    ]
    return tf.concat([tf.cast(column, maps[0].dtype) for column in columns], axis=-1)


def sample_map(
    feature_map: tf.Tensor,
    pixels_nyx: tf.Tensor,
    rate: float,
    pad: bool = True,
    out_of_range: str = "clamp",
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Features of one map at given pixels.

    feature_map `(batch, height, width, channel)` of any float type, pixels_nyx `(pixel, 3)`
    float32, finite; returns `(pixel, channel)` in the map's type, computed in float32. Options and
    errors as in `Hypercolumn`.
    """
    pixels_nyx = tf.stop_gradient(tf.cast(pixels_nyx, tf.float32))
    batch, height, width = tf.unstack(tf.shape(feature_map)[:3])
    n = tf.cast(pixels_nyx[:, 0], tf.int32)  # Caffe's cast: truncated
    y, x = pixels_nyx[:, 1], pixels_nyx[:, 2]
    checks = [_assert_in_batch(n, batch)]
    if out_of_range == "error":
        for axis, v, size in (("row", y, height), ("column", x, width)):
            checks.append(_assert_in_map(v, rate, pad, size, axis, interpolation))
    with tf.control_dependencies([check for check in checks if check is not None]):
        n = tf.identity(n)
    if interpolation == "nearest":
        cells = tf.stack([n, _nearest(y, rate, pad, height), _nearest(x, rate, pad, width)], -1)
        return tf.gather_nd(feature_map, cells)
    y1, y2, ry = interpolation_weights(y, rate, pad, height)
    x1, x2, rx = interpolation_weights(x, rate, pad, width)
    corners = tf.stack(
        [tf.stack([n, row, column], -1) for row in (y1, y2) for column in (x1, x2)], axis=1
    )
    return _interpolate(feature_map, corners, ry[:, None], rx[:, None])


def interpolate_rows(rows: tf.Tensor, size: tf.Tensor, pixels_nyx: tf.Tensor, rate: float
                     ) -> tf.Tensor:
    """What `sample_map` reads of a map with very many channels: (pixel, channel) float32.

    rows (batch * height * width, channel) float32 is the map cell by cell; size (3,) int32 its
    batch, height and width. A product with the sparse matrix of the weights needs no copy of the
    cells for each pixel.
    """
    n = tf.cast(pixels_nyx[:, 0], tf.int32)
    y1, y2, ry = interpolation_weights(pixels_nyx[:, 1], rate, True, size[1])
    x1, x2, rx = interpolation_weights(pixels_nyx[:, 2], rate, True, size[2])
    cells = tf.stack([(n * size[1] + y) * size[2] + x for y in (y1, y2) for x in (x1, x2)], axis=1)
    weights = tf.stack([a * b for a in (1 - ry, ry) for b in (1 - rx, rx)], axis=1)
    count = tf.shape(n)[0]
    places = tf.stack([tf.repeat(tf.range(count), 4), tf.reshape(cells, [-1])], axis=1)
    matrix = tf.SparseTensor(tf.cast(places, tf.int64), tf.reshape(weights, [-1]),
                             tf.cast(tf.stack([count, tf.shape(rows)[0]]), tf.int64))
    return tf.sparse.sparse_dense_matmul(matrix, rows)


@tf.custom_gradient
def _interpolate(feature_map: tf.Tensor, corners: tf.Tensor, ry: tf.Tensor, rx: tf.Tensor
                 ) -> tuple[tf.Tensor, Callable]:
    """Bilinear mean of the corners (pixel, 4, 3), in the order 11, 12, 21, 22 of row and column."""
    # bfloat16 numbers are added up in float32; a float64 network stays one.
    working = tf.float64 if feature_map.dtype == tf.float64 else tf.float32
    v11, v12, v21, v22 = (tf.cast(tf.gather_nd(feature_map, corner), working)
                          for corner in tf.unstack(corners, axis=1))
    ry, rx = tf.cast(ry, working), tf.cast(rx, working)
    # The order of Caffe's sums, so that float32 rounds the same way.
    value = (v11 * (1 - ry) + v21 * ry) * (1 - rx) + (v12 * (1 - ry) + v22 * ry) * rx
    shape = tf.shape(feature_map)

    def gradient(top_diff: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        # One scatter of all corners, pixel by pixel as in Caffe: TensorFlow's own gradient keeps
        # more maps, adds in another order, and would add bfloat16 numbers.
        y, x = tf.cast(ry, tf.float64), tf.cast(rx, tf.float64)
        weights = tf.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)
        updates = tf.cast(top_diff, working)[:, None] * tf.cast(weights, working)
        map_diff = tf.scatter_nd(corners, updates, shape)
        return tf.cast(map_diff, feature_map.dtype), None, None, None

    return tf.cast(value, feature_map.dtype), gradient


def interpolation_weights(
    v: tf.Tensor, rate: float, pad: bool, size: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Neighbouring cells of coordinates along one axis, and the weight of the second one.

    v `(pixel,)` float32 in pixels of the canvas, size the number of cells. Returns `(t1, t2, r)`:
    int32 cells and float32 weights of t2. As RandBI: everything before the first cell's centre
    reads the first cell; here everything past the last one's reads the last cell, too.
    """
    # Clamped as a float: a far coordinate must not overflow the integer.
    t = tf.minimum(_cell_position(v, rate, pad), tf.cast(size, tf.float32) - 1)
    t1 = tf.maximum(tf.floor(t), 0)
    t2 = tf.maximum(tf.math.ceil(t), 0)
    r = tf.where(t1 != t2, t - t1, tf.zeros_like(t))
    return tf.cast(t1, tf.int32), tf.cast(t2, tf.int32), r


def _cell_position(v: tf.Tensor, rate: float, pad: bool) -> tf.Tensor:
    offset = tf.constant((rate - 1) / 2 if pad else 0.0, tf.float32)
    distance = tf.cast(v, tf.float32) - offset
    # TensorFlow's graph optimiser turns a division by a constant into a product with its rounded
    # reciprocal, which moves the last valid pixel out of the map. In float64 either gives, once
    # rounded, the float32 quotient that Caffe has.
    return tf.cast(tf.cast(distance, tf.float64) / rate, tf.float32)


def _round_half_away(t: tf.Tensor) -> tf.Tensor:
    """C's `round`: halves away from zero (TensorFlow's goes to the even number)."""
    magnitude = tf.floor(tf.abs(t))
    return tf.sign(t) * (magnitude + tf.cast(tf.abs(t) - magnitude >= 0.5, t.dtype))


def _nearest(v: tf.Tensor, rate: float, pad: bool, size: tf.Tensor) -> tf.Tensor:
    t = tf.minimum(_round_half_away(_cell_position(v, rate, pad)), tf.cast(size, tf.float32) - 1)
    return tf.cast(tf.maximum(t, 0), tf.int32)


def _assert_in_batch(n: tf.Tensor, batch: tf.Tensor) -> tf.Operation | None:
    return tf.debugging.Assert(
        tf.reduce_all((n >= 0) & (n < batch)),
        ["hypercolumn: a pixel's image number lies outside the batch; smallest, largest, batch:",
         tf.reduce_min(n), tf.reduce_max(n), batch],
    )


def _assert_in_map(v: tf.Tensor, rate: float, pad: bool, size: tf.Tensor, axis: str,
                   interpolation: str) -> tf.Operation | None:
    position = _cell_position(v, rate, pad)
    last = (
        tf.math.ceil(position) if interpolation == "bilinear" else _round_half_away(position)
    )
    # Compared as floats, so that NaN fails too.
    return tf.debugging.Assert(
        tf.reduce_all(last < tf.cast(size, tf.float32)),
        [f"hypercolumn: a pixel lies past the last {axis} of the map of rate {rate:g}; the image "
         "is too small for the rates (a border around it makes room), or use "
         "out_of_range='clamp'; cells, largest cell asked for:", size, tf.reduce_max(last)],
    )


def _check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ModelError(f"{name} must be one of {list(allowed)}, got {value!r}", value=value)
