"""The tf.data pipeline of training: slices from shards, varied, with sampled pixels, in batches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pixelnet_tf import draws
from pixelnet_tf.config import PLANES, SamplingConfig, Strategy
from pixelnet_tf.dataset.augment import Slice, augment, drop_modalities, training_slice
from pixelnet_tf.dataset.index import SliceIndex
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.sampler import sample_pixels
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import DataError

#: What a record of a shard holds (`shards.to_record`).
_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "labels": tf.io.FixedLenFeature([], tf.string),
    "brain": tf.io.FixedLenFeature([], tf.string),
    "height": tf.io.FixedLenFeature([], tf.int64),
    "width": tf.io.FixedLenFeature([], tf.int64),
}


def parse_record(serialized: tf.Tensor, channels: int) -> dict[str, tf.Tensor]:
    """Decode one record inside a graph.

    Args:
        serialized: scalar string, as `PreparedStudy.read_record_bytes` or a TFRecordDataset
            gives it.
        channels: number of the image's channels.

    Returns:
        image (height, width, channel) float32, labels (height, width) int32 class indices,
        brain (height, width) bool.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.stack([record["height"], record["width"]])

    def array(name: str, dtype: tf.DType, *last: int) -> tf.Tensor:
        flat = tf.io.decode_raw(tf.io.decode_compressed(record[name], "ZLIB"), dtype)
        return tf.ensure_shape(tf.reshape(flat, [*tf.unstack(shape), *last]), [None, None, *last])

    return {"image": array("image", tf.float32, channels),
            "labels": tf.cast(array("labels", tf.uint8), tf.int32),
            "brain": tf.cast(array("brain", tf.uint8), tf.bool)}


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


def parts_of(batch_slices: int, replicas: int) -> list[range]:
    """Which drawn slices of a mini-batch each of several replicas takes: runs of equal length, the
    first ones longer by one where they do not come out even.

    >>> parts_of(5, 2)
    [range(0, 3), range(3, 5)]
    """
    sizes = [batch_slices // replicas + (number < batch_slices % replicas)
             for number in range(replicas)]
    return [range(stop - size, stop)
            for size, stop in zip(sizes, itertools.accumulate(sizes), strict=True)]


def slabs_in_turn(schedule: SliceSchedule, index: SliceIndex, batch_slices: int,
                  first_batch: int, part: range | None = None
                  ) -> Iterator[tuple[int, tuple[int, int], np.ndarray, np.ndarray, np.ndarray,
                                      np.ndarray, np.ndarray, int]]:
    """The slices of each mini-batch where hypercolumns are read from several.

    Yields the position of the first drawn slice; height and width of the largest slice; of each
    slice that is needed the number of its slab, its index row, and its place among the drawn ones
    (-1: not drawn); of each drawn slice the places of those that it is read from, (batch, offset)
    int32; the number of each needed slice in the mini-batch, and how many that has. Within a slab
    each slice stands once, however many are read from it.

    part: the drawn slices to give, and what they need, where other replicas take the rest of the
    mini-batch; None: all.
    """
    part = range(batch_slices) if part is None else part
    for first in itertools.count(first_batch * batch_slices, batch_slices):
        positions = range(first, first + batch_slices)
        rows = index.beside(np.array([schedule.row(position) for position in positions]),
                            schedule.offsets)
        places: dict[tuple[int, int], int] = {}
        neighbours = np.array([[places.setdefault((position // schedule.slab, row), len(places))
                                for row in beside]
                               for position, beside in zip(positions, rows.tolist(), strict=True)])
        slabs, needed = np.array(list(places), np.int64).T
        size = int(index.height[needed].max()), int(index.width[needed].max())
        kept, own = np.unique(neighbours[part.start:part.stop], return_inverse=True)
        own = own.reshape(len(part), -1).astype(np.int32)
        targets = np.full(len(kept), -1, np.int32)
        targets[own[:, 0]] = range(len(part))
        yield (first + part.start, size, slabs[kept], needed[kept], targets, own,
               kept.astype(np.int32), len(needed))


def training_batches(study: PreparedStudy, schedule: SliceSchedule, sampling: SamplingConfig, *,
                     batch_slices: int, first_batch: int = 0, seed: int = 0,
                     part: range | None = None) -> tf.data.Dataset:
    """Endless mini-batches, the same for the same seed and number.

    Args:
        study, schedule: where slices come from, and in which order.
        batch_slices: slices of a mini-batch.
        first_batch: number of the mini-batch to begin with.
        part: the drawn slices of each mini-batch that are read here, where other replicas read the
            others (`parts_of`); None: all. What is drawn for a slice is the same in every part.

    Returns a dataset of dictionaries: `image` (batch, height, width, channel) float32, slices of
    different sizes padded with zeros below and to the right; `pixels` (batch * N, 3) float32 rows
    of n, y, x, or as many as there are with the strategy `all`, none of
    them ignored; `classes` (pixel,) int32; `row` (batch,) int64, the index rows.

    Where the schedule has several `offsets`, `image` holds the drawn slices and those beside
    them, each once, and `neighbours` (batch, offset) int32 says which of them the
    hypercolumns of a drawn slice are read from, as the model takes it; the n of pixels and `row`
    are of drawn slices. What is drawn in one slab, and what lies beside it, is varied alike.

    Of a part there are also `places` (batch,) int32, the numbers of its images in the whole
    mini-batch, and `images` () int32, how many that has; images are as large as there.
    """
    part, whole_batch = range(batch_slices) if part is None else part, part is None
    channels = len(study.config.study.modalities)
    classes = len(study.config.study.labels)
    # A lesion comes from a slice of the same plane: across it, it has another shape.
    planes, with_lesion = study.index.plane, schedule.with_lesion
    donors = tf.ragged.constant([with_lesion[planes[with_lesion] == plane]
                                 for plane in range(len(PLANES))], tf.int64)

    def positions() -> Iterator[tuple[int, int, tuple[int, int]]]:
        index = study.index
        for first in itertools.count(first_batch * batch_slices, batch_slices):
            rows = [schedule.row(first + place) for place in range(batch_slices)]
            size = int(index.height[rows].max()), int(index.width[rows].max())
            for place in part:
                yield first + place, rows[place], size

    def varied(row: tf.Tensor, seed: tf.Tensor, own_seed: tf.Tensor | None = None) -> Slice:
        data = tf.numpy_function(study.read_record_bytes, [row], tf.string, stateful=False)
        return augment(parse_record(tf.ensure_shape(data, []), channels), sampling, seed, own_seed)

    @tf.autograph.experimental.do_not_convert
    def load(position: tf.Tensor, row: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
        own = draws.fold_in(tf.constant([seed, 0x5eed], tf.int32), tf.cast(position, tf.int32))
        alike = donors[tf.gather(planes, row)]
        record, pixel_seed = training_slice(varied, row, own, alike, tf.size(alike), sampling)
        pixels_yx, drawn = sampled(record, position, pixel_seed)
        return {"image": padded(seen(record, own), size), "pixels": pixels_yx, "classes": drawn,
                "row": row}

    def padded(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """An image with zeros below and to the right: as large as the mini-batch's largest, which
        another replica may read."""
        after = tf.maximum(size - tf.shape(image)[:2], 0)
        return tf.pad(image, [[0, after[0]], [0, after[1]], [0, 0]])

    def seen(record: Slice, seed: tf.Tensor) -> tf.Tensor:
        """The image of a slice, some of whose modalities may be missing."""
        if not sampling.modality_dropout or channels == 1:
            return record["image"]
        return drop_modalities(record["image"], sampling.modality_dropout,
                               draws.fold_in(seed, 0x6d64))

    def sampled(record: Slice, position: tf.Tensor, pixel_seed: tf.Tensor
                ) -> tuple[tf.Tensor, tf.Tensor]:
        allowed = record["brain"] if sampling.background_in_brain else tf.ones_like(record["brain"])
        # One lattice for all slices of a step.
        corner = draws.integers([2], [seed, tf.cast(position // batch_slices, tf.int32)], 0,
                                sampling.lattice)
        return sample_pixels(record["labels"], allowed, pixel_seed, classes=classes,
                             config=sampling, corner_yx=corner)

    @tf.autograph.experimental.do_not_convert
    def flatten(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pixels = batch["pixels"]
        targets = batch.get("target", tf.range(tf.shape(pixels)[0]))
        n = tf.broadcast_to(targets[:, None, None], [*tf.unstack(tf.shape(pixels)[:2]), 1])
        rows = tf.reshape(tf.concat([n, pixels], axis=2), [-1, 3])
        drawn = tf.reshape(batch["classes"], [-1])
        if (sampling.strategy == Strategy.ALL or study.config.study.ignore_label is not None
                or "target" in batch):
            # A slice with fewer pixels than the batch's largest was filled up, one beside the drawn
            # ones has none, and one that was moved may show nothing but what nobody has judged.
            real = drawn >= 0
            rows, drawn = tf.boolean_mask(rows, real), tf.boolean_mask(drawn, real)
        found = {"image": batch["image"], "pixels": tf.cast(rows, tf.float32), "classes": drawn,
                 "row": batch["row"]}
        if whole_batch or "target" in batch:
            return found
        return found | {"places": tf.range(part.start, part.stop),
                        "images": tf.constant(batch_slices)}

    @tf.autograph.experimental.do_not_convert
    def in_slab(position: tf.Tensor, slab: tf.Tensor, row: tf.Tensor, target: tf.Tensor,
                size: tf.Tensor) -> dict[str, tf.Tensor]:
        """A slice varied as its slab is; of one that is not drawn (target -1) no pixels."""
        own = tf.constant([seed, 0x51ab], tf.int32)
        # What is left over of several cases makes a slab, too.
        for number in (slab, tf.gather(study.index.case, row)):
            own = draws.fold_in(own, tf.cast(number, tf.int32))
        record = varied(row, own, draws.fold_in(own, tf.cast(row, tf.int32)))
        image = padded(seen(record, own), size)
        pixel_seed = draws.fold_in(tf.constant([seed, 0x5eed], tf.int32),
                                   tf.cast(position, tf.int32))
        pixels_yx, drawn = tf.cond(
            target >= 0, lambda: sampled(record, position, pixel_seed),
            lambda: (tf.zeros([0, 2], tf.int32), tf.zeros([0], tf.int32)))
        return {"image": image, "pixels": tf.ensure_shape(pixels_yx, [None, 2]),
                "classes": tf.ensure_shape(drawn, [None]), "row": row, "target": target}

    @tf.autograph.experimental.do_not_convert
    def stacked(first: tf.Tensor, size: tf.Tensor, slabs: tf.Tensor, rows: tf.Tensor,
                targets: tf.Tensor, neighbours: tf.Tensor, places: tf.Tensor, images: tf.Tensor
                ) -> tf.data.Dataset:
        """One mini-batch of all slices that its drawn ones are read from."""
        slices = tf.data.Dataset.from_tensor_slices(
            (first + tf.cast(targets, tf.int64), slabs, rows, targets)
        ).map(lambda *each: in_slab(*each, size), num_parallel_calls=2, deterministic=True)
        whole = slices.padded_batch(tf.size(rows, tf.int64), padding_values=filling | {"target": 0})
        share = {} if whole_batch else {"places": places, "images": images}
        return whole.map(lambda batch: flatten(batch) | share | {
            "row": tf.gather(batch["row"], neighbours[:, 0]), "neighbours": neighbours})

    filling = {"image": 0.0, "pixels": 0, "classes": -1, "row": tf.constant(0, tf.int64)}
    number, size_spec = tf.TensorSpec([], tf.int64), tf.TensorSpec([2], tf.int32)
    if len(schedule.offsets) > 1:
        spec = (number, size_spec, *[tf.TensorSpec([None], tf.int64)] * 2,
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([len(part), len(schedule.offsets)], tf.int32),
                tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32))
        return tf.data.Dataset.from_generator(
            lambda: slabs_in_turn(schedule, study.index, batch_slices, first_batch, part),
            output_signature=spec).flat_map(stacked).prefetch(2)
    slices = tf.data.Dataset.from_generator(positions, output_signature=(number, number, size_spec))
    slices = slices.map(load, num_parallel_calls=2, deterministic=True)
    return slices.padded_batch(len(part), padding_values=filling, drop_remainder=True
                               ).map(flatten).prefetch(2)
