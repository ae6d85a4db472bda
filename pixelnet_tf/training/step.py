"""One solver step: loss and gradients of a mini-batch of slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pixelnet_tf import draws
from pixelnet_tf.config import HARD_CANDIDATES, SamplingConfig, Strategy, TrainingConfig
from pixelnet_tf.model.fast_head import fast_scores
from pixelnet_tf.model.fast_trunk import Dropout, canvas_pixels, fast_taps
from pixelnet_tf.model.grid_head import grid_scores
from pixelnet_tf.model.pixelnet import PixelNet, plain_scores, plain_taps
from pixelnet_tf.model.precision import number_type
from pixelnet_tf.training.loss import Loss, Regions, cross_entropy, make_loss, pixel_losses
from pixelnet_tf.training.replicas import Replicas
from pixelnet_tf.training.share import Share, drawn_rows
from pixelnet_tf.training.state import TrainingState

#: A mini-batch, as the pipeline gives it.
Batch = dict[str, tf.Tensor]
LossAndGradients = tuple[tf.Tensor, list[tf.Tensor]]
#: The mini-batches of a solver step, and its number, to its loss; with several replicas each
#: mini-batch is a sequence of parts.
Step = Callable[[Sequence[Any], tf.Tensor], tf.Tensor]


def seeded_dropout(rate: float, names: Sequence[str], seed: tf.Tensor,
                   rows: tf.Tensor | None = None) -> Dropout | None:
    """Caffe's dropout, scaled by 1 / (1 - rate); None where the rate is 0.

    names: all dropouts of the network. Each draws its own mask, by its place among them, whatever
    the order of the calls. seed (2,) int32: the same seed gives the same masks, so that a resumed
    run repeats them. rows (row,) int32: where the values are a replica's part, the numbers of their
    first axis in the whole mini-batch, whose masks each replica draws its part of.
    """
    if not rate:
        return None
    numbers = {name: number for number, name in enumerate(names, start=1)}

    def apply(values: tf.Tensor, name: str) -> tf.Tensor:
        own = draws.fold_in(seed, numbers[name])
        if rows is None:
            # Two numbers from each drawn one: drawing is most of the cost.
            count = tf.size(values)
            drawn_bits = draws.bits([(count + 1) // 2], own)
            drawn = tf.reshape(tf.bitcast(drawn_bits, tf.uint16), [-1])[:count]
        else:
            drawn = drawn_rows(own, rows, tf.reduce_prod(tf.shape(values)[1:]))
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
    return 1 if sampling.drawn_pixels > MANY_PIXELS else 0


def pixel_scorer(model: PixelNet, image: tf.Tensor, *, fast: bool,
                 precision: tf.DType = tf.float32, dropout: Dropout | None = None,
                 lattice: int = 0, neighbours: tf.Tensor | None = None
                 ) -> Callable[[tf.Tensor, Dropout | None], tf.Tensor]:
    """The function from pixels to their scores (pixel, class) float32 in training, the maps being
    worked out once: pixels_nyx (pixel, 3), rows of n, y, x in image coordinates, and the dropout
    of the head.

    image (batch, height, width, channel); dropout of the maps; lattice as `lattice_of` gives it;
    neighbours as the model takes them. The plain form and the fast ones differ in rounding alone;
    with BatchNorm the plain one is taken, because the batch's statistics are those of the whole
    canvas.
    """
    if not fast or model.config.batch_norm:
        plain = plain_taps(model, image, dropout, training=True)
        return lambda pixels, of_head: plain_scores(model, plain, pixels, of_head, neighbours)
    taps = fast_taps(model, image, precision=precision, dropout=dropout, neighbours=neighbours)

    def scores(pixels_nyx: tf.Tensor, of_head: Dropout | None) -> tf.Tensor:
        canvas_nyx = canvas_pixels(model, pixels_nyx)
        if lattice:
            return grid_scores(model, taps, canvas_nyx, lattice, precision=precision,
                               dropout=of_head)
        return fast_scores(model, taps, canvas_nyx, precision=precision, dropout=of_head)

    return scores


def hard_places(losses: tf.Tensor, groups: tf.Tensor, hard: float, seed: tf.Tensor,
                share: Share | None = None, pixels: tf.Tensor | None = None) -> tf.Tensor:
    """Places of the pixels to train on among drawn candidates (`sampling.hard_pixels`), int32.

    Of every group a share is taken at random, 1 - hard of what is trained on; of the rest, which
    is `HARD_CANDIDATES` times the other share, the ones with the largest losses.

    Args:
        losses: (pixel,) float32. groups: (pixel,) int32, the class and slice of each pixel.
        hard: share of the pixels trained on that are hard.
        seed: (2,) int32.
        share: of a replica that holds a part of the mini-batch, and its `pixels` (pixel, 3). A
            group is whole there, as a slice is.
    """
    count = tf.math.unsorted_segment_sum(tf.ones_like(losses), groups, tf.reduce_max(groups) + 1)
    plain = tf.round(count * (1 - hard) / (1 + (HARD_CANDIDATES - 1) * hard))
    # Of a group that is too small for its shares one pixel stays.
    most = tf.maximum(tf.round((count - plain) / HARD_CANDIDATES),
                      tf.cast((count > 0) & (plain == 0), count.dtype))
    if share is None:
        numbers = draws.uniform(tf.shape(losses), seed)
    else:
        rows, count_all = share.numbered(pixels)
        numbers = tf.gather(draws.uniform([count_all], seed), rows)
    drawn = _ranks(numbers, groups)
    at_random = drawn < tf.gather(plain, groups)
    # What is taken at random comes last among the hard ones.
    among = tf.where(at_random, -1.0, losses)
    worst = _ranks(-among, groups) < tf.gather(most, groups)
    return tf.cast(tf.where(at_random | worst)[:, 0], tf.int32)


def _ranks(keys: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    """Place of each number among those of its group, from the smallest, (n,) float32."""
    order = tf.argsort(keys, stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(groups, order), stable=True))
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(groups), groups, tf.reduce_max(groups) + 1)
    first = tf.gather(tf.cumsum(sizes, exclusive=True), tf.gather(groups, order))
    ranks = tf.range(tf.size(groups)) - first
    return tf.cast(tf.scatter_nd(order[:, None], ranks, tf.shape(groups)), tf.float32)


def loss_and_gradients(model: PixelNet, batch: Batch, seed: tf.Tensor, *,
                       variables: Sequence[tf.Variable], fast: bool = True,
                       precision: tf.DType = tf.float32, lattice: int = 0,
                       loss_of: Loss = cross_entropy, hard: float = 0.0,
                       regions: Regions = (), share: Share | None = None) -> LossAndGradients:
    """Loss () and one gradient per variable for a batch of the pipeline.

    batch: `image` (batch, height, width, channel) float32, `pixels` (pixel, 3) float32, `classes`
    (pixel,) int32, and `neighbours` where the model has any; lattice: of the pixels (`lattice_of`);
    hard: the share `sampling.hard_pixels`, for which the batch's pixels are the candidates: they
    are scored once without gradient and without dropout in the head; regions: class indices of
    each, where the network scores regions. Gradients are dense float32.

    share: of a replica that holds a part of the mini-batch. The loss is then that of the whole one,
    and the replica's gradients add up with the others' to those of the whole one.
    """
    def dropout_of(rows: tf.Tensor | None) -> Dropout | None:
        return seeded_dropout(model.config.dropout, model.architecture.dropouts, seed, rows)

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        score = pixel_scorer(model, batch["image"], fast=fast, precision=precision,
                             dropout=dropout_of(share.places if share else None), lattice=lattice,
                             neighbours=batch.get("neighbours"))
        pixels, classes = batch["pixels"], batch["classes"]
        if hard:
            with tape.stop_recording():
                losses = pixel_losses(score(pixels, None), classes, regions)
                # Of regions there may be fewer than classes.
                most = tf.reduce_max(classes) + 1 if regions else model.classes
                groups = tf.cast(pixels[:, 0], tf.int32) * most + classes
                kept = hard_places(losses, groups, hard, seed, share, pixels)
                pixels, classes = tf.gather(pixels, kept), tf.gather(classes, kept)
        rows = share.numbered(pixels)[0] if share and model.config.dropout else None
        loss = loss_of(score(pixels, dropout_of(rows)), classes,
                       total=share.total if share else None)
    gradients = tape.gradient(loss, variables)
    missing = [v.name for v, g in zip(variables, gradients, strict=True) if g is None]
    if missing:
        raise ValueError(f"no gradient reaches {missing}")
    return loss, gradients


def make_step(state: TrainingState, sampling: SamplingConfig, regions: Regions = (),
              replicas: Replicas | None = None) -> Step:
    """The function from the mini-batches of a solver step and its number, from 1, to its loss.

    It computes the gradients, lets the solver change the weights and the average follow them; the
    loss is that before the change. regions: class indices of each, where the network scores
    regions.

    replicas: whose variables the state's are. The step then takes, for each mini-batch, the part of
    each replica of this process.
    """
    model, optimizer, trained, average = state.model, state.optimizer, state.trained, state.average
    training = state.config
    precision = number_type(training.precision, model.config)
    loss_of = make_loss(training.loss, training.class_weights, regions)
    tensors = [variable.value for variable in trained]

    def of_batch(batch: Batch, seed: tf.Tensor) -> LossAndGradients:
        return loss_and_gradients(
            model, batch, seed, variables=tensors, fast=training.fast, precision=precision,
            lattice=lattice_of(sampling), loss_of=loss_of, hard=sampling.hard_pixels,
            regions=regions, share=Share(batch) if replicas else None)

    def one_batch(batch: Batch, step: tf.Tensor) -> tf.Tensor:
        loss, gradients = of_batch(batch, tf.stack([training.seed, step]))
        optimizer.apply(gradients, trained)
        average()
        return loss

    # A function of its own for each mini-batch, or the memory of all would be taken at once.
    def one_more(batch: Batch, step: tf.Tensor, number: tf.Tensor, loss: tf.Tensor,
                 gradients: list[tf.Tensor]) -> LossAndGradients:
        seed = draws.fold_in(tf.stack([training.seed, step]), number)
        new_loss, new = of_batch(batch, seed)
        return loss + new_loss, [a + b for a, b in zip(gradients, new, strict=True)]

    def apply_mean(gradients: list[tf.Tensor]) -> None:
        optimizer.apply([g / training.solver.iter_size for g in gradients], trained)
        average()

    if replicas:
        return _on_replicas(replicas, one_batch, one_more, apply_mean, tensors, training)
    of_one, of_more, apply = (
        tf.function(each, reduce_retracing=True, autograph=False)
        for each in (one_batch, one_more, apply_mean))

    def several_batches(batches: Sequence[Batch], step: tf.Tensor) -> tf.Tensor:
        loss, gradients = tf.zeros([]), [tf.zeros_like(tensor) for tensor in tensors]
        for number, batch in enumerate(batches):
            loss, gradients = of_more(batch, step, tf.constant(number), loss, gradients)
        apply(gradients)
        return loss / len(batches)

    if training.solver.iter_size > 1:
        return several_batches
    return lambda batches, step: of_one(batches[0], step)


def _on_replicas(replicas: Replicas, one_batch: Callable[..., tf.Tensor],
                 one_more: Callable[..., LossAndGradients], apply_mean: Callable[..., None],
                 tensors: Sequence[tf.Variable], training: TrainingConfig) -> Step:
    """The step of several replicas from that of one."""
    # Gradients of several mini-batches stay with their replica until the last one.
    of_one, of_more, apply = map(replicas.function, (one_batch, one_more, apply_mean))

    def one(batches: Sequence[Sequence[Batch]], step: tf.Tensor) -> tf.Tensor:
        return of_one([(part, step) for part in batches[0]])[0]

    def several(batches: Sequence[Sequence[Batch]], step: tf.Tensor) -> tf.Tensor:
        sums = [(tf.zeros([]), [tf.zeros_like(tensor) for tensor in tensors])
                for _ in replicas.local]
        for number, parts in enumerate(batches):
            sums = of_more([(part, step, tf.constant(number), *own)
                            for part, own in zip(parts, sums, strict=True)])
        apply([(gradients,) for _, gradients in sums])
        return sums[0][0] / len(batches)

    return several if training.solver.iter_size > 1 else one
