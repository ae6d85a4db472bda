"""The tf.data pipeline of training: slices from shards, varied, with sampled pixels, in batches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import tensorflow as tf

from pixelnet_tf.config import SamplingConfig, Strategy
from pixelnet_tf.dataset.augment import Slice, augment, mix_lesions
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.sampler import sample_pixels
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.dataset.shards import parse_record
from pixelnet_tf.errors import DataError


def in_turn(batches: tf.data.Dataset) -> Iterator[dict[str, tf.Tensor]]:
    """Iterate over batches; what a shard could not give is told as it is told elsewhere.

    Raises:
        DataError: a record is missing or damaged.
    """
    try:
        yield from batches
    except tf.errors.OpError as error:
        # An error of Python's comes out of a graph as text, with the way that it took.
        told = re.search(r"DataError: ([^\n]+)", str(error))
        if told is None:
            raise
        raise DataError(told[1]) from None


def training_batches(study: PreparedStudy, schedule: SliceSchedule, sampling: SamplingConfig, *,
                     batch_slices: int, first_batch: int = 0, seed: int = 0) -> tf.data.Dataset:
    """Endless mini-batches, the same for the same seed and number.

    Args:
        study, schedule: where slices come from, and in which order.
        batch_slices: slices of a mini-batch.
        first_batch: number of the mini-batch to begin with.

    Returns a dataset of dictionaries: `image` (batch, height, width, channel) float32, slices of
    different sizes padded with zeros below and to the right; `pixels` (batch * N, 3) float32 rows
    of n, y, x, or as many as there are with the strategy `all`, none of
    them ignored; `classes` (pixel,) int32; `row` (batch,) int64, the index rows.
    """
    channels = len(study.config.study.modalities)
    classes = len(study.config.study.labels)
    donors = tf.constant(schedule.with_lesion, tf.int64)

    def positions() -> Iterator[tuple[int, int]]:
        for position in itertools.count(first_batch * batch_slices):
            yield position, schedule.row(position)

    def varied(row: tf.Tensor, seed: tf.Tensor) -> Slice:
        data = tf.numpy_function(study.read_record_bytes, [row], tf.string, stateful=False)
        return augment(parse_record(tf.ensure_shape(data, []), channels), sampling, seed)

    def mixed(record: Slice, seed: tf.Tensor) -> Slice:
        pick_seed, vary_seed, mix_seed = tf.unstack(
            tf.random.experimental.stateless_split(seed, 3))
        pick = tf.random.stateless_uniform([], pick_seed, 0, tf.size(donors), tf.int32)
        return mix_lesions(record, varied(donors[pick], vary_seed), sampling.lesion_mixing,
                           mix_seed)

    def load(position: tf.Tensor, row: tf.Tensor) -> dict[str, tf.Tensor]:
        own = tf.random.experimental.stateless_fold_in(
            tf.constant([seed, 0x5eed], tf.int32), tf.cast(position, tf.int32))
        vary_seed, pixel_seed = tf.unstack(tf.random.experimental.stateless_split(own, 2))
        record = varied(row, vary_seed)
        if sampling.lesion_mixing:
            record = mixed(record, tf.random.experimental.stateless_fold_in(own, 2))
        allowed = record["brain"] if sampling.background_in_brain else tf.ones_like(record["brain"])
        # One lattice for all slices of a step.
        corner = tf.random.stateless_uniform(
            [2], [seed, tf.cast(position // batch_slices, tf.int32)], 0, sampling.lattice, tf.int32)
        pixels_yx, drawn = sample_pixels(record["labels"], allowed, pixel_seed, classes=classes,
                                         config=sampling, corner_yx=corner)
        return {"image": record["image"], "pixels": pixels_yx, "classes": drawn, "row": row}

    def flatten(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pixels = batch["pixels"]
        n = tf.broadcast_to(tf.range(tf.shape(pixels)[0])[:, None, None],
                            [*tf.unstack(tf.shape(pixels)[:2]), 1])
        rows = tf.reshape(tf.concat([n, pixels], axis=2), [-1, 3])
        drawn = tf.reshape(batch["classes"], [-1])
        if sampling.strategy == Strategy.ALL or study.config.study.ignore_label is not None:
            # A slice with fewer pixels than the batch's largest was filled up, and one that was
            # moved may show nothing but what nobody has judged.
            real = drawn >= 0
            rows, drawn = tf.boolean_mask(rows, real), tf.boolean_mask(drawn, real)
        return {"image": batch["image"], "pixels": tf.cast(rows, tf.float32), "classes": drawn,
                "row": batch["row"]}

    spec = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int64))
    slices = tf.data.Dataset.from_generator(positions, output_signature=spec)
    slices = slices.map(load, num_parallel_calls=2, deterministic=True)
    filling = {"image": 0.0, "pixels": 0, "classes": -1, "row": tf.constant(0, tf.int64)}
    return slices.padded_batch(batch_slices, padding_values=filling, drop_remainder=True
                               ).map(flatten).prefetch(2)
