"""One solver step: loss and gradients of a mini-batch of slices."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pixelnet_tf.config import SamplingConfig, Strategy
from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import Dropout, canvas_pixels, fast_taps
from pixelnet_tf.model.grid_head import grid_scores
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps
from pixelnet_tf.training.loss import Loss, cross_entropy

#: A mini-batch, as the pipeline gives it.
Batch = dict[str, tf.Tensor]
LossAndGradients = tuple[tf.Tensor, list[tf.Tensor]]


def seeded_dropout(rate: float, names: Sequence[str], seed: tf.Tensor) -> Dropout | None:
    """Caffe's dropout, scaled by 1 / (1 - rate); None where the rate is 0.

    names: all dropouts of the network. Each draws its own mask, by its place among them, whatever
    the order of the calls. seed (2,) int32: the same seed gives the same masks, so that a resumed
    run repeats them.
    """
    if not rate:
        return None
    numbers = {name: number for number, name in enumerate(names, start=1)}

    def apply(values: tf.Tensor, name: str) -> tf.Tensor:
        own = tf.random.experimental.stateless_fold_in(seed, numbers[name])
        # Two numbers from each drawn one: drawing is most of the cost.
        count = tf.size(values)
        drawn_bits = tf.random.stateless_uniform([(count + 1) // 2], own, None, None, tf.uint32)
        drawn = tf.reshape(tf.bitcast(drawn_bits, tf.uint16), [-1])[:count]
        keep = tf.reshape(drawn >= round(rate * 2**16), tf.shape(values))
        # The backward pass keeps the mask alone, a byte a number.
        scaled = values * tf.cast(1.0 / (1.0 - rate), values.dtype)
        return tf.where(keep, scaled, tf.zeros([], values.dtype))

    return apply


#: From so many pixels a slice on, the first layer is cheaper on the maps' own grids.
MANY_PIXELS = 4096


def lattice_of(sampling: SamplingConfig) -> int:
    """Stride of the lattice that the drawn pixels lie on where they are many, 0 where few."""
    if sampling.strategy == Strategy.ALL:
        return sampling.lattice
    return 1 if sampling.pixels > MANY_PIXELS else 0


def pixel_scores(model: PixelNet, image: tf.Tensor, pixels_nyx: tf.Tensor, *, fast: bool,
                 precision: tf.DType = tf.float32, dropout: Dropout | None = None,
                 lattice: int = 0) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels in training.

    image (batch, height, width, channel); pixels_nyx (pixel, 3) rows of n, y, x in image
    coordinates; lattice as `lattice_of` gives it. The plain form and the fast ones differ in
    rounding alone; with BatchNorm the plain one is taken, because the batch's statistics are those
    of the whole canvas.
    """
    if not fast or model.config.batch_norm:
        taps = plain_taps(model, image, dropout, training=True)
        return plain_scores(model, taps, pixels_nyx, dropout)
    taps = fast_taps(model, image, precision=precision, dropout=dropout)
    canvas_nyx = canvas_pixels(model, pixels_nyx)
    if lattice:
        return grid_scores(model, taps, canvas_nyx, lattice, precision=precision, dropout=dropout)
    return fast_scores(model, taps, canvas_nyx, precision=precision, dropout=dropout)


def loss_and_gradients(model: PixelNet, batch: Batch, seed: tf.Tensor, *,
                       variables: Sequence[tf.Variable], fast: bool = True,
                       precision: tf.DType = tf.float32, lattice: int = 0,
                       loss_of: Loss = cross_entropy) -> LossAndGradients:
    """Loss () and one gradient per variable for a batch of the pipeline.

    batch: `image` (batch, height, width, channel) float32, `pixels` (pixel, 3) float32, `classes`
    (pixel,) int32; lattice: of the pixels (`lattice_of`). Gradients are dense float32.
    """
    dropout = seeded_dropout(model.config.dropout, model.architecture.dropouts, seed)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        scores = pixel_scores(model, batch["image"], batch["pixels"], fast=fast,
                              precision=precision, dropout=dropout, lattice=lattice)
        loss = loss_of(scores, batch["classes"])
    gradients = tape.gradient(loss, variables)
    missing = [v.name for v, g in zip(variables, gradients, strict=True) if g is None]
    if missing:
        raise ValueError(f"no gradient reaches {missing}")
    return loss, gradients
