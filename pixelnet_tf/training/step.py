"""One solver step: loss and gradients of a mini-batch of slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from pixelnet_tf.config import SamplingConfig, Strategy
from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import Dropout, canvas_pixels, fast_taps
from pixelnet_tf.model.grid_head import grid_scores
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps
from pixelnet_tf.training.loss import Loss, cross_entropy, make_loss
from pixelnet_tf.training.state import TrainingState

#: A mini-batch, as the pipeline gives it.
Batch = dict[str, tf.Tensor]
LossAndGradients = tuple[tf.Tensor, list[tf.Tensor]]
#: The mini-batches of a solver step, and its number, to its loss.
Step = Callable[[Sequence[Batch], tf.Tensor], tf.Tensor]


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
                 lattice: int = 0, neighbours: tf.Tensor | None = None) -> tf.Tensor:
    """Scores (pixel, class) float32 of pixels in training.

    image (batch, height, width, channel); pixels_nyx (pixel, 3) rows of n, y, x in image
    coordinates; lattice as `lattice_of` gives it; neighbours as the model takes them. The plain
    form and the fast ones differ in rounding alone; with BatchNorm the plain one is taken, because
    the batch's statistics are those of the whole canvas.
    """
    if not fast or model.config.batch_norm:
        taps = plain_taps(model, image, dropout, training=True)
        return plain_scores(model, taps, pixels_nyx, dropout, neighbours)
    taps = fast_taps(model, image, precision=precision, dropout=dropout, neighbours=neighbours)
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
    (pixel,) int32, and `neighbours` where the model has any; lattice: of the pixels (`lattice_of`).
    Gradients are dense float32.
    """
    dropout = seeded_dropout(model.config.dropout, model.architecture.dropouts, seed)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        scores = pixel_scores(model, batch["image"], batch["pixels"], fast=fast,
                              precision=precision, dropout=dropout, lattice=lattice,
                              neighbours=batch.get("neighbours"))
        loss = loss_of(scores, batch["classes"])
    gradients = tape.gradient(loss, variables)
    missing = [v.name for v, g in zip(variables, gradients, strict=True) if g is None]
    if missing:
        raise ValueError(f"no gradient reaches {missing}")
    return loss, gradients


def make_step(state: TrainingState, sampling: SamplingConfig) -> Step:
    """The function from the mini-batches of a solver step and its number, from 1, to its loss.

    It computes the gradients, lets the solver change the weights and the average follow them; the
    loss is that before the change.
    """
    model, optimizer, trained, average = state.model, state.optimizer, state.trained, state.average
    training = state.config
    precision = tf.as_dtype(training.precision)
    loss_of = make_loss(training.loss, training.class_weights)
    tensors = [variable.value for variable in trained]

    def of_batch(batch: Batch, seed: tf.Tensor) -> LossAndGradients:
        return loss_and_gradients(
            model, batch, seed, variables=tensors, fast=training.fast, precision=precision,
            lattice=lattice_of(sampling), loss_of=loss_of)

    @tf.function(reduce_retracing=True)
    def one_batch(batch: Batch, step: tf.Tensor) -> tf.Tensor:
        loss, gradients = of_batch(batch, tf.stack([training.seed, step]))
        optimizer.apply(gradients, trained)
        average()
        return loss

    # A function of its own for each mini-batch, or the memory of all would be taken at once.
    @tf.function(reduce_retracing=True)
    def one_more(batch: Batch, step: tf.Tensor, number: tf.Tensor, loss: tf.Tensor,
                 gradients: list[tf.Tensor]) -> LossAndGradients:
        seed = tf.random.experimental.stateless_fold_in(tf.stack([training.seed, step]), number)
        new_loss, new = of_batch(batch, seed)
        return loss + new_loss, [a + b for a, b in zip(gradients, new, strict=True)]

    @tf.function
    def apply_mean(gradients: list[tf.Tensor]) -> None:
        optimizer.apply([g / training.solver.iter_size for g in gradients], trained)
        average()

    def several_batches(batches: Sequence[Batch], step: tf.Tensor) -> tf.Tensor:
        loss, gradients = tf.zeros([]), [tf.zeros_like(tensor) for tensor in tensors]
        for number, batch in enumerate(batches):
            loss, gradients = one_more(batch, step, tf.constant(number), loss, gradients)
        apply_mean(gradients)
        return loss / len(batches)

    if training.solver.iter_size > 1:
        return several_batches
    return lambda batches, step: one_batch(batches[0], step)
