"""Whole volumes: slices in batches through the segmenter, labels on the input's own grid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.config import PostprocessConfig, PredictionConfig, StudyConfig
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: Slices (batch, height, width, channel) and their domain (batch, height, width) bool to label
#: values (batch, height, width) uint8, and probabilities (batch, height, width, class), or None
#: where none are asked for.
SegmentSlices = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class PredictionGrid:
    """Which pixels of a volume's prepared slices are computed, and which of them are read.

    The two differ where slices are scaled: pixels between the voxels of the original grid are
    image like all others, and what works with neighbouring pixels (the lattice of the adaptive
    mode, the guided filter) needs them, although no voxel is read there.

    Attributes:
        domain: (slice, height, width) bool, the pixels that show the volume (not the padding
            around it), and where prediction takes place inside the brain alone
            (`PredictionConfig.inside_brain`) only those inside the brain. What lies outside the
            domain is background by definition.
        read_out: (slice, height, width) bool, the pixels of the domain at which a voxel of the
            original grid is read; without scaling, all of them.
    """

    domain: np.ndarray
    read_out: np.ndarray

    @classmethod
    def of(cls, volume: PreparedVolume, inside_brain: bool) -> PredictionGrid:
        """The grid of a prepared volume: of all that it shows, or of its brain alone."""
        domain, native = np.zeros((2, *volume.brain.shape), bool)
        top_to_bottom, left_to_right = volume.plan.picture
        domain[:, top_to_bottom, left_to_right] = True
        rows, columns = volume.plan.native_pixels_yx.T
        native[:, rows, columns] = True
        if inside_brain:
            domain &= volume.brain
        return cls(domain, domain & native)

    def batches(self, batch_slices: int) -> Iterator[np.ndarray]:
        """Numbers of the slices that have something to read, `batch_slices` at a time."""
        busy = np.flatnonzero(self.read_out.any(axis=(1, 2)))
        for start in range(0, len(busy), batch_slices):
            yield busy[start:start + batch_slices]


@dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """labels (x, y, z) uint8 in the study's label values, on the input's grid; probabilities
    (x, y, z, class) float32, or None."""

    labels: np.ndarray
    probabilities: np.ndarray | None


def score_voxels(segmenter: SliceSegmenter | Ensemble, volume: PreparedVolume,
                 study: StudyConfig, prediction: PredictionConfig) -> np.ndarray:
    """Scores of every voxel of the original grid, in radiological view.

    Returns (slice, native height, native width, class) float32, as `SlicePlan.read_voxels` orders
    voxels; outside the domain of the `PredictionGrid` they are those of certain background.
    Slices without anything to read never reach the network.
    """
    grid, plan = PredictionGrid.of(volume, prediction.inside_brain(study)), volume.plan
    scores = np.empty((plan.slices, *plan.native_size, segmenter.classes), np.float32)
    scores[...] = segmenter.background.numpy()
    for rows in grid.batches(prediction.batch_slices):
        found = segmenter.scores(tf.constant(volume.images[rows]), tf.constant(grid.domain[rows]),
                                 tf.constant(grid.read_out[rows]))
        scores[rows] = plan.read_voxels(found.numpy())
    return scores


def segment_volume(segmenter: SliceSegmenter | Ensemble, volume: PreparedVolume,
                   study: StudyConfig, prediction: PredictionConfig,
                   probabilities: bool = False) -> SegmentedVolume:
    """Segment a prepared volume and lead the result back to its original grid.

    Clean-up (`prediction.postprocess`) is applied to the labels, not to the probabilities.
    """
    return finish_volume(score_voxels(segmenter, volume, study, prediction), volume, study,
                         prediction.postprocess, probabilities)


def finish_volume(scores: np.ndarray, volume: PreparedVolume, study: StudyConfig,
                  postprocess: PostprocessConfig, probabilities: bool = False) -> SegmentedVolume:
    """Scores of voxels, as `score_voxels` gives them, to labels and probabilities."""
    plan = volume.plan
    labels = classes_to_values(scores.argmax(axis=-1).astype(np.uint8), study)
    labels = clean_up(plan.to_volume(labels), volume, study, postprocess)
    if not probabilities:
        return SegmentedVolume(labels, None)
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return SegmentedVolume(labels, plan.to_volume(shifted))


def segment_remotely(segment_slices: SegmentSlices, volume: PreparedVolume, study: StudyConfig,
                     prediction: PredictionConfig, probabilities: bool = False) -> SegmentedVolume:
    """What `segment_volume` returns, by the labels that an exported or served model gives slices.

    The same slices in the same batches and with the same domain; outside it is background,
    whatever the answer says of it.
    """
    grid, plan = PredictionGrid.of(volume, prediction.inside_brain(study)), volume.plan
    shape = (plan.slices, *plan.native_size)
    labels = np.zeros(shape, np.uint8)
    maps = np.zeros((*shape, len(study.labels) if probabilities else 0), np.float32)
    maps[..., :1] = 1
    for rows in grid.batches(prediction.batch_slices):
        found, shares = segment_slices(volume.images[rows], grid.domain[rows])
        inside = plan.read_voxels(grid.domain[rows])
        labels[rows] = np.where(inside, plan.read_voxels(found), 0)
        if shares is not None:
            maps[rows] = np.where(inside[..., None], plan.read_voxels(shares), maps[rows])
    labels = clean_up(plan.to_volume(labels), volume, study, prediction.postprocess)
    return SegmentedVolume(labels, plan.to_volume(maps) if probabilities else None)


def clean_up(labels: np.ndarray, volume: PreparedVolume, study: StudyConfig,
             postprocess: PostprocessConfig) -> np.ndarray:
    """Labels (x, y, z) uint8 on the original grid after `prediction.postprocess`."""
    brain = volume.plan.from_slices(volume.brain.astype(np.uint8)) > 0
    return postprocess_labels(labels, brain, study, postprocess)
