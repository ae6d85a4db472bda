"""Dense prediction: scores of whole slices, exactly, adaptively, or by the plain hypercolumn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

from pixelnet_tf.config import AUTO, Precision
from pixelnet_tf.inference.tiles import TILE, TileLayer
from pixelnet_tf.model.empty_canvas import separable_blocks
from pixelnet_tf.model.fast_head import FastHead, Perceptron
from pixelnet_tf.model.fast_trunk import (
    Tap,
    Weights,
    canvas_pixels,
    empty_responses,
    fast_taps,
    mask_box,
    trunk_weights,
)
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps
from pixelnet_tf.model.precision import number_type

#: Pixels that pass the head together: enough for the matrix products, little memory.
CHUNK = 2048
#: Slices, and pixels in all of them, that `prediction.batch_slices: auto` takes together.
_SLICES, _PIXELS = 8, 2**19


def slices_together(batch_slices: int | Literal["auto"], height: int | tf.Tensor,
                    width: int | tf.Tensor) -> int | tf.Tensor:
    """How many slices of a size are computed together: `prediction.batch_slices`."""
    if batch_slices != AUTO:
        return batch_slices
    return tf.clip_by_value(_PIXELS // (height * width), 1, _SLICES)


def in_parts(total: tf.Tensor, size: int | tf.Tensor, answer: Callable[[tf.Tensor], tf.Tensor],
             shape: Sequence[int | None]) -> tf.Tensor:
    """Answers to a number of rows, some rows at a time, one after the other in a tensor.

    TensorFlow would begin ten parts side by side, which is not faster (a part's products fill every
    core) and keeps ten of them in memory.

    Args:
        total, size: how many rows there are, and of a part.
        answer: gives what belongs to the rows from `start` to `start + size`, float32.
        shape: of what it gives, and of all together; the first dimension is None.
    """
    count = (total + size - 1) // size
    parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=shape)
    _, parts = tf.while_loop(
        lambda number, _: number < count,
        lambda number, parts: (number + 1, parts.write(number, answer(number * size))),
        (tf.constant(0), parts), parallel_iterations=1)
    return tf.ensure_shape(parts.concat(), shape)


class Known(NamedTuple):
    """What the trunk works with that no image changes: its weights, and what its last blocks answer
    to an empty canvas (`empty_responses`)."""

    weights: Weights
    empty: tuple[tf.Tensor, ...]


class DenseScorer(tf.Module):
    """Scores of every wanted pixel of whole slices, as plain TensorFlow operations.

    Args:
        model: trained network.
        precision: `float32`, or `bfloat16` for convolutions and matrix products; `auto`: as fits
            this machine.
    """

    def __init__(self, model: PixelNet, precision: str = Precision.FLOAT32):
        super().__init__()
        self.model = model
        self.precision = number_type(precision, model.config)

    def reference(self, image: tf.Tensor, neighbours: tf.Tensor | None = None) -> tf.Tensor:
        """Scores (target, height, width, class) of every pixel by the plain hypercolumn.

        The whole canvas, a gather a pixel, the whole perceptron: what the original does, kept as
        the yardstick of speed and of exactness.

        Args:
            image: (batch, height, width, channel) float32.
            neighbours: as `fast_taps` takes them; None: every slice is a target.
        """
        taps = plain_taps(self.model, image)
        targets = tf.shape(image if neighbours is None else neighbours)[:1]
        shape = tf.concat([targets, tf.shape(image)[1:3]], 0)
        pixels = tf.reshape(tf.stack(tf.meshgrid(*(tf.range(shape[i]) for i in range(3)),
                                                 indexing="ij"), axis=-1), [-1, 3])
        pixels = tf.cast(pixels, tf.float32)
        scores = in_parts(
            tf.shape(pixels)[0], CHUNK, lambda start: plain_scores(
                self.model, taps, pixels[start:start + CHUNK], neighbours=neighbours),
            [None, self.model.classes])
        return tf.reshape(scores, tf.concat([shape, [self.model.classes]], 0))

    def known(self, size: tf.Tensor) -> Known:
        """What `taps` works with that no image changes.

        size: (2,) int32, height and width of the images.
        """
        weights = trunk_weights(self.model, self.precision)
        return Known(weights, tuple(empty_responses(self.model, weights, size)))

    def known_spec(self) -> Known:
        """What `known` gives, of images of any size, as a signature."""
        table, kind = self.model.architecture, self.precision
        kernels = {name: shapes for name, shapes in table.blob_shapes(self.model.channels).items()
                   if name in table.trunk_names}
        weights, inputs = {}, self.model.channels
        for name, (kernel, bias) in kernels.items():
            weights[name] = (tf.TensorSpec([*kernel[2:], inputs, kernel[0]], kind),
                             tf.TensorSpec(bias, kind))
            inputs = kernel[0]
        blocks = separable_blocks(table.border)
        widths = [table.blocks[blocks - 1][-1].width, *(
            layer.width for block in table.blocks[blocks:] for layer in block)] if blocks else []
        return Known(weights, tuple(tf.TensorSpec([1, None, None, width], kind)
                                    for width in widths))

    def taps(self, image: tf.Tensor, neighbours: tf.Tensor | None = None,
             known: Known | None = None, read: tf.Tensor | None = None) -> list[Tap]:
        """The maps of the hypercolumn, computed where the image is; arguments of `reference`.

        known: what `known` gives for images of this size; None: it is worked out on the way.
        read: as `fast_taps` takes it.
        """
        weights, empty = known or (None, ())
        return fast_taps(self.model, image, precision=self.precision, neighbours=neighbours,
                         weights=weights, empty=empty, read=read)

    def exact(self, taps: list[Tap], wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores of the wanted pixels; the same numbers as `reference`, but for rounding.

        Args:
            taps: taps of the same slices.
            wanted: (target, height, width) bool.

        Returns `(pixels_nyx, scores)`: (pixel, 3) int32 and (pixel, class) float32, tile by tile.
        """
        model = self.model
        by_tile = _tiles_of(wanted)
        tiles = tf.cast(tf.where(tf.reduce_any(by_tile, axis=-1)), tf.int32)
        masks = tf.gather_nd(by_tile, tiles)
        perceptron = Perceptron(model, self.precision)
        # Behind a ReLU on the hypercolumn the first layer cannot be applied before interpolation.
        late = model.architecture.relu_on_hypercolumn
        layer = TileLayer(taps, model.architecture.border,
                          *((None, None) if late else perceptron.first_weights))
        step = CHUNK // (TILE * TILE)

        def tile_scores(start: tf.Tensor) -> tf.Tensor:
            values = tf.boolean_mask(layer(tiles[start:start + step]), masks[start:start + step])
            return perceptron.finish(perceptron.first(values) if late else values)

        scores = in_parts(tf.shape(tiles)[0], step, tile_scores, [None, model.classes])
        place = tf.cast(tf.where(masks), tf.int32)
        tile, inside = tf.gather(tiles, place[:, 0]), place[:, 1]
        y = tile[:, 1] * TILE + inside // TILE
        x = tile[:, 2] * TILE + inside % TILE
        return tf.stack([tile[:, 0], y, x], axis=1), scores

    def head(self, taps: Sequence[Tap], domain: tf.Tensor) -> FastHead:
        """The head for scattered pixels of a domain (target, height, width) bool."""
        if not self.model.architecture.beside:
            return FastHead(self.model, taps, self.precision)
        top, left, bottom, right = tf.unstack(mask_box(domain))
        border = self.model.architecture.border
        return FastHead(self.model, taps, self.precision, tf.stack(
            [[top, left], [bottom - 1, right - 1]]) + border)

    def listed(self, head: FastHead, pixels_nyx: tf.Tensor) -> tf.Tensor:
        """Scores (pixel, class) float32 of scattered pixels (pixel, 3) int32.

        A gather a pixel, which costs less than a tile's share where few of its pixels are asked.
        """
        return in_parts(
            tf.shape(pixels_nyx)[0], CHUNK,
            lambda start: head(canvas_pixels(self.model, pixels_nyx[start:start + CHUNK])),
            [None, self.model.classes])


def _tiles_of(wanted: tf.Tensor) -> tf.Tensor:
    """(batch, height, width) bool to (batch, tile row, tile column, pixel of the tile)."""
    size = tf.shape(wanted)[1:3]
    after = -size % TILE
    padded = tf.pad(wanted, [[0, 0], [0, after[0]], [0, after[1]]])
    rows, columns = tf.unstack((size + after) // TILE)
    split = tf.reshape(padded, [-1, rows, TILE, columns, TILE])
    return tf.reshape(tf.transpose(split, [0, 1, 3, 2, 4]), [-1, rows, columns, TILE * TILE])
