"""The cut and the clean-up of a contestant, chosen on validation cases by one rule for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.config import PostprocessConfig, PredictionConfig, StudyConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.evaluation.comparison import gain_of
from pixelnet_tf.evaluation.tuning import mean_dice
from pixelnet_tf.inference.volume import clean_up, score_voxels
from pixelnet_tf.training.validation import labelled_volume
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: Added to the scores of all lesion classes: 0 is the arg max.
OFFSETS = (0.0, *(sign * size for size in (0.5, 1.0, 2.0, 3.0, 4.0, 5.0) for sign in (-1, 1)))


class Scorer(Protocol):
    """What a contestant's network is to the race: `SliceSegmenter`, or the peer's."""

    background: tf.Tensor
    planes: tuple[str, ...]
    classes: int

    def scores(self, image: Any, domain: Any, read_out: Any = None) -> tf.Tensor: ...


@dataclass(frozen=True)
class Choice:
    """An offset and a clean-up."""

    offset: float
    clean: PostprocessConfig

    def __str__(self) -> str:
        parts = [f"cut {self.offset:+g}"]
        if self.clean.largest_component:
            parts.append("largest component")
        parts += [f"components from {size} voxels" for size in
                  self.clean.minimum_component.values()]
        return ", ".join(parts)


#: The arg max as it is.
PLAIN = Choice(0.0, PostprocessConfig())


def choices(study: StudyConfig) -> list[Choice]:
    """Every offset with every clean-up of the region of most labels; the arg max comes first."""
    region = max(study.regions, key=lambda name: len(study.regions[name]))
    cleans = [PostprocessConfig(), PostprocessConfig(largest_component=(region,)),
              *(PostprocessConfig(minimum_component={region: size}) for size in (100, 1000))]
    return [Choice(offset, clean) for clean in cleans for offset in OFFSETS]


def case_scores(scorer: Scorer, volume: PreparedVolume, study: StudyConfig,
                prediction: PredictionConfig) -> np.ndarray:
    """(slice, height, width, class) float32 of a case's voxels."""
    return score_voxels(scorer, volume, study, prediction)  # type: ignore[arg-type]


def labels_by(choice: Choice, scores: np.ndarray, volume: PreparedVolume, study: StudyConfig
              ) -> np.ndarray:
    """Label values (x, y, z) uint8."""
    return _labels(choice, _highest(scores), volume, study)


def _highest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every voxel the background's score, the highest of a lesion, and whose that is, uint8.

    A cut moves the scores of all lesions alike, so that the lesion stays the same.
    """
    lesions = scores[..., 1:]
    return (scores[..., 0].copy(), lesions.max(axis=-1),
            (lesions.argmax(axis=-1) + 1).astype(np.uint8))


def _labels(choice: Choice, highest: tuple[np.ndarray, np.ndarray, np.ndarray],
            volume: PreparedVolume, study: StudyConfig) -> np.ndarray:
    background, score, lesion = highest
    classes = np.where(score + np.float32(choice.offset) > background, lesion, np.uint8(0))
    return clean_up(volume.plan.to_volume(classes_to_values(classes, study)), volume, study,
                    choice.clean)


def dice_table(scorer: Scorer, prepared: PreparedStudy, cases: tuple[str, ...],
               prediction: PredictionConfig, tried: Sequence[Choice]) -> np.ndarray:
    """Mean Dice over the regions, (case, choice)."""
    study = prepared.config.study
    rows = []
    for case in cases:
        volume = labelled_volume(prepared, case)
        truth = volume.plan.to_volume(classes_to_values(
            volume.plan.read_voxels(volume.labels), study))
        highest = _highest(case_scores(scorer, volume, study, prediction))
        rows.append([mean_dice(truth, _labels(choice, highest, volume, study), study)
                     for choice in tried])
    return np.array(rows)


def best_choice(table: np.ndarray) -> int:
    """Place of the choice with the best mean, where it gains more than its noise; else 0."""
    place = int(np.argmax(table.mean(axis=0)))
    return place if place and gain_of(table[:, place], table[:, 0]).beyond_noise else 0


def left_out_dice(table: np.ndarray) -> np.ndarray:
    """Dice (case,) of each case by what the others choose; by the arg max where there are none."""
    if len(table) < 2:
        return table[:, 0]
    return np.array([table[i, best_choice(np.delete(table, i, axis=0))]
                     for i in range(len(table))])
