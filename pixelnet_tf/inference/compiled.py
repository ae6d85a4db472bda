"""The exact scores of slices as a StableHLO program, for any runtime that takes one."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from pixelnet_tf.config import Precision
from pixelnet_tf.inference.dense import CHUNK
from pixelnet_tf.inference.tiles import TILE, TileLayer
from pixelnet_tf.model.fast_head import Perceptron
from pixelnet_tf.model.fast_trunk import Tap
from pixelnet_tf.model.pixelnet import PixelNet, plain_taps
from pixelnet_tf.model.stablehlo import lowered


@dataclass(frozen=True)
class ScoresProgram:
    """Compiled scores of slices.

    Attributes:
        module: the portable StableHLO module. Its arguments are the images (slice, height, width,
            channel) float32, then the values of `inputs`; its result the scores (slice, height,
            width, class) float32.
        inputs: numbers of the model's variables, in the order of the arguments.
    """

    module: bytes
    inputs: tuple[int, ...]


def whole_scores(model: PixelNet, images: tf.Tensor, precision: str = Precision.FLOAT32
                 ) -> tf.Tensor:
    """Scores (slice, height, width, class) float32 of every pixel, with static shapes throughout.

    The exact form's tiles over the whole canvas: the numbers of `DenseScorer.reference`, but for
    rounding.

    Args:
        images: (slice, height, width, channel) float32, of a known shape; height and width are
            multiples of 16.
        precision: of the head's matrix products; the trunk's are float32.
    """
    table, kind = model.architecture, tf.as_dtype(precision)
    taps = [Tap(tf.cast(values, kind), tap.rate, tf.zeros([2], tf.int32))
            for values, tap in zip(plain_taps(model, images), table.taps, strict=True)]
    perceptron = Perceptron(model, kind)
    late = table.relu_on_hypercolumn
    layer = TileLayer(taps, table.border, *((None, None) if late else perceptron.first_weights))
    count, height, width, _ = images.shape
    rows, columns = height // TILE, width // TILE
    tiles = tf.reshape(tf.stack(tf.meshgrid(tf.range(count), tf.range(rows), tf.range(columns),
                                            indexing="ij"), axis=-1), [-1, 3])
    step = min(CHUNK // TILE**2, count * rows * columns)
    chunks = -(-count * rows * columns // step)
    # The last chunk is filled up with the first tile, so that all have one shape.
    tiles = tf.pad(tiles, [[0, chunks * step - count * rows * columns], [0, 0]])

    def of_tiles(part: tf.Tensor) -> tf.Tensor:
        values = tf.reshape(layer(part), [step * TILE**2, -1])
        return perceptron.finish(perceptron.first(values) if late else values)

    scores = tf.map_fn(of_tiles, tf.reshape(tiles, [chunks, step, 3]), parallel_iterations=1,
                       fn_output_signature=tf.TensorSpec([step * TILE**2, model.classes]))
    scores = tf.reshape(scores, [-1, TILE, TILE, model.classes])[:count * rows * columns]
    scores = tf.reshape(scores, [count, rows, columns, TILE, TILE, model.classes])
    return tf.reshape(tf.transpose(scores, [0, 1, 3, 2, 4, 5]),
                      [count, height, width, model.classes])


def scores_program(model: PixelNet, slices: int, height: int, width: int,
                   precision: str = Precision.FLOAT32) -> ScoresProgram:
    """Compile `whole_scores` for so many slices of one size."""
    @tf.function(jit_compile=True, autograph=False)
    def scores(images: tf.Tensor) -> tf.Tensor:
        return whole_scores(model, images, precision)

    given = tf.TensorSpec([slices, height, width, model.channels], tf.float32)
    return ScoresProgram(*lowered(scores, [given],
                                  [variable.value for variable in model.variables]))
