"""Whole volumes: slices in batches through the segmenter, labels on the input's own grid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.config import Config
from pixelnet_tf.inference.ensemble import Ensemble
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.segmenter import Segmenter
from pixelnet_tf.volumes.prepare import PreparedVolume


@dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """labels (x, y, z) uint8 in the study's label values, on the input's grid; probabilities
    (x, y, z, class) float32, or None."""

    labels: np.ndarray
    probabilities: np.ndarray | None


def wanted_pixels(volume: PreparedVolume, config: Config) -> np.ndarray:
    """Pixels that are to be classified, (slice, height, width) bool.

    The ones that some voxel of the original grid is read at, and where `config.brain_only` says so
    only those inside the brain mask.
    """
    native = np.zeros(volume.brain.shape, bool)
    rows, columns = volume.plan.native_pixels_yx.T
    native[:, rows, columns] = True
    return native & volume.brain if config.brain_only else native


def segment_slices(segmenter: Segmenter | Ensemble, images: np.ndarray, wanted: np.ndarray,
                   batch_slices: int, progress: Callable[[int, int], None] | None = None
                   ) -> np.ndarray:
    """Scores (slice, height, width, class) float32 of slices with something wanted in them.

    Slices without a wanted pixel never reach the network. Batches are of equal size, the last one
    filled up, so that one trace and one set of kernels serve all.
    """
    scores = np.full((*wanted.shape, segmenter.classes), -1e4, np.float32)
    scores[..., 0] = 0.0
    busy = np.flatnonzero(wanted.any(axis=(1, 2)))
    for start in range(0, len(busy), batch_slices):
        rows = busy[start:start + batch_slices]
        scores[rows] = segmenter.scores(tf.constant(images[rows]), tf.constant(wanted[rows]))
        if progress:
            progress(start + len(rows), len(busy))
    return scores


def segment_volume(segmenter: Segmenter | Ensemble, volume: PreparedVolume, config: Config,
                   probabilities: bool = False,
                   progress: Callable[[int, int], None] | None = None) -> SegmentedVolume:
    """Segment a prepared volume and lead the result back to its original grid.

    Clean-up (`prediction.postprocess`) is applied to the labels, not to the probabilities.
    """
    scores = segment_slices(segmenter, volume.images, wanted_pixels(volume, config),
                            config.prediction.batch_slices, progress)
    return finish_volume(scores, volume, config, probabilities)


def finish_volume(scores: np.ndarray, volume: PreparedVolume, config: Config,
                  probabilities: bool = False) -> SegmentedVolume:
    """Scores (slice, height, width, class) to labels and probabilities on the original grid."""
    classes = scores.argmax(axis=-1).astype(np.uint8)
    labels = classes_to_values(volume.plan.from_slices(classes), config.study)
    brain = volume.plan.from_slices(volume.brain.astype(np.uint8)) > 0
    labels = postprocess_labels(labels, brain, config.study, config.prediction.postprocess)
    if not probabilities:
        return SegmentedVolume(labels, None)
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    maps = [volume.plan.from_slices(shifted[..., k]) for k in range(shifted.shape[-1])]
    return SegmentedVolume(labels, np.stack(maps, axis=-1))
