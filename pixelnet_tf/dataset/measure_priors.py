"""Measuring the class frequencies of a training, real and sampled."""

from __future__ import annotations

import numpy as np

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.pipeline import in_turn, training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.sampler import expected_pixels
from pixelnet_tf.dataset.schedule import SliceSchedule

#: Slices that are drawn to measure the sampled frequencies where they cannot be worked out.
_DRAWN_SLICES = 300


def measure_priors(study: PreparedStudy, schedule: SliceSchedule,
                   sampling: SamplingConfig,
                   regions: tuple[tuple[int, ...], ...] = ()) -> ClassPriors:
    """Measure both frequencies over the training slices: the real one over all of them alike, the
    sampled one with each slice weighted by how often it is drawn.

    regions: as `ClassPriors` holds them.
    """
    rows, index = schedule.rows(), study.index
    counts = index.class_counts[rows].astype(np.float64)
    if sampling.background_in_brain:
        area = index.height[rows] * index.width[rows].astype(np.float64)
        lesion = counts[:, 1:].sum(axis=1)
        counts[:, 0] = np.maximum(index.brain_fraction[rows] * area - lesion, 0)
    real = counts.sum(axis=0)
    if sampling.lesion_mixing:
        # Where a lesion lands decides how much of it is seen: drawn, not worked out.
        drawn = _drawn_frequency(study, schedule, sampling, len(real))
    else:
        drawn = schedule.row_weights() @ expected_pixels(counts, sampling)
    return ClassPriors(study.config.study.class_names, tuple((real / real.sum()).tolist()),
                       tuple((drawn / drawn.sum()).tolist()), regions=regions)


def _drawn_frequency(study: PreparedStudy, schedule: SliceSchedule, sampling: SamplingConfig,
                     classes: int) -> np.ndarray:
    """Classes among the pixels of the first slices that the training itself draws, (class,)."""
    batches = training_batches(study, schedule, sampling, batch_slices=1, seed=schedule.seed)
    drawn = np.zeros(classes)
    for batch in in_turn(batches.take(_DRAWN_SLICES)):
        drawn += np.bincount(batch["classes"], minlength=classes)
    return drawn
