"""Mini-batches of slices that lie in memory, with static shapes, for programs that XLA compiles.

The tf.data pipeline reads shards and calls Python; a compiled training step can do neither. Here
the same slices are varied and sampled by the same functions from the same seeds, so that batch i is
the one that `training_batches` gives, but for rounding and the order of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pixelnet_tf import draws
from pixelnet_tf.config import SamplingConfig, Strategy
from pixelnet_tf.dataset.augment import Slice, augment, gathered_warp, training_slice
from pixelnet_tf.dataset.pipeline import parse_record
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.sampler import sample_pixels_statically
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError


class ResidentSlices(NamedTuple):
    """Slices of one size, and which of them have a lesion to lay into others.

    images (slice, height, width, channel) float32; labels (slice, height, width) int32; brain
    (slice, height, width) bool; donors (slice,) int32, places of those with a lesion, filled up
    with zeros behind them; donor_count () int32. Arrays, or tensors of a graph.
    """

    images: tf.Tensor
    labels: tf.Tensor
    brain: tf.Tensor
    donors: tf.Tensor
    donor_count: tf.Tensor


def read_resident(study: PreparedStudy, schedule: SliceSchedule) -> tuple[ResidentSlices,
                                                                         np.ndarray]:
    """Every slice that a schedule may draw, as arrays, and their index rows, (slice,) int64.

    Raises `ConfigError` where the slices have different sizes.
    """
    rows = schedule.rows()
    sizes = {*zip(study.index.height[rows].tolist(), study.index.width[rows].tolist(),
                  strict=True)}
    if len(sizes) > 1:
        raise ConfigError(f"slices have the sizes {sorted(sizes)}, and a compiled step has one",
                          hint="set prepare.slice_size and run `pixelnet-tf prepare` again")
    channels = len(study.config.study.modalities)
    records = [parse_record(tf.constant(study.read_record_bytes(row)), channels) for row in rows]
    images, labels, brain = (np.stack([record[key].numpy() for record in records])
                             for key in ("image", "labels", "brain"))
    donors = np.zeros(len(rows), np.int32)
    with_lesion = np.searchsorted(rows, schedule.with_lesion)
    donors[:len(with_lesion)] = with_lesion
    return ResidentSlices(images, labels, brain, donors, np.int32(len(with_lesion))), rows


def check_compiles(sampling: SamplingConfig, offsets: Sequence[int]) -> None:
    """Raise `ConfigError` where a batch has no static shapes, or reaches into other slices."""
    if sampling.strategy == Strategy.ALL or sampling.modality_dropout or len(offsets) > 1:
        raise ConfigError("a compiled batch knows slices alone, of a known number of pixels",
                          hint="set sampling.strategy=balanced or uniform, "
                               "sampling.modality_dropout=0 and model.context_slices=1")


def resident_batch(slices: ResidentSlices, places: tf.Tensor, first: tf.Tensor,
                   sampling: SamplingConfig, classes: int, seed: int) -> dict[str, tf.Tensor]:
    """The mini-batch that begins at a position of the training, as `training_batches` gives it.

    Args:
        places: (batch,) int32, places of its slices among the resident ones.
        first: () int32, position of the first slice since the start of the training.
        classes: number of classes.
        seed: `training.seed`.

    Returns `image`, `pixels` and `classes`; the pixels of a slice in the order of their places.
    """
    def varied(place: tf.Tensor, own: tf.Tensor) -> Slice:
        record = {"image": slices.images[place], "labels": slices.labels[place],
                  "brain": slices.brain[place]}
        return augment(record, sampling, own, by=gathered_warp)

    images, pixels, drawn = [], [], []
    for number, place in enumerate(tf.unstack(places)):
        own = draws.fold_in(tf.constant([seed, 0x5eed], tf.int32), first + number)
        record, pixel_seed = training_slice(varied, place, own, slices.donors, slices.donor_count,
                                            sampling)
        allowed = record["brain"] if sampling.background_in_brain else tf.ones_like(record["brain"])
        pixels_yx, classes_drawn = sample_pixels_statically(
            record["labels"], allowed, pixel_seed, classes=classes, config=sampling)
        images.append(record["image"])
        pixels.append(tf.pad(pixels_yx, [[0, 0], [1, 0]], constant_values=number))
        drawn.append(classes_drawn)
    return {"image": tf.stack(images), "pixels": tf.cast(tf.concat(pixels, 0), tf.float32),
            "classes": tf.concat(drawn, 0)}
