"""Validation of a training by whole volumes, and the fit of the prior's strength."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import PredictionConfig, Prior, StudyConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels
from pixelnet_tf.model.pixelnet import PixelNet

#: Strengths of the prior correction that are tried; 0 is the paper's arg max, 1 Bayes' rule.
STRENGTHS = tuple(round(0.25 * i, 2) for i in range(11))


def case_validator(study: PreparedStudy, cases: Sequence[str], prediction: PredictionConfig,
                   precision: str, priors: ClassPriors
                   ) -> Callable[[PixelNet], dict[str, float]]:
    """Return a function that scores a model on whole validation volumes.

    It gives `dice_<class>` for each lesion class: the mean over the cases that have the class or
    were given it, with the prior corrected, counted in voxels of the original grid. Cases are read
    anew each time, one at a time.
    """
    segmenter: SliceSegmenter | None = None

    def validate(model: PixelNet) -> dict[str, float]:
        nonlocal segmenter
        # Its graph reads the model's variables, so that one serves every validation of a run.
        if segmenter is None or segmenter.scorer.model is not model:
            segmenter = SliceSegmenter(model, priors.correction(Prior.CORRECTED),
                                       precision=precision)
        dice = [class_dice(scores.argmax(axis=-1), labels, model.classes)
                for scores, labels in _scored_cases(segmenter, study, cases, prediction)]
        return _mean_dice(np.array(dice), study.config.study)

    return validate


def fit_prior_strength(model: PixelNet, study: PreparedStudy, cases: Sequence[str],
                       prediction: PredictionConfig, precision: str, priors: ClassPriors
                       ) -> tuple[ClassPriors, dict[float, float]]:
    """Choose the strength of the prior correction by the mean Dice over validation cases.

    Dice is that of voxels of the original grid.

    Returns the priors with the strength and the mean Dice of every strength tried.
    """
    unit = priors.correction(Prior.CORRECTED)
    segmenter = SliceSegmenter(model, precision=precision)
    dice = []
    for scores, labels in _scored_cases(segmenter, study, cases, prediction):
        dice.append([class_dice((scores + strength * unit).argmax(axis=-1), labels, model.classes)
                     for strength in STRENGTHS])
    means = [float(np.mean(list(_mean_dice(rows, study.config.study).values())))
             for rows in np.moveaxis(np.array(dice), 1, 0)]
    best = STRENGTHS[int(np.argmax(means))]
    return replace(priors, strength=best), dict(zip(STRENGTHS, means, strict=True))


def class_dice(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Dice (class - 1,) of each lesion class over a volume; NaN where neither side has it."""
    pairs = np.bincount((labels.astype(np.int64) * classes + predicted).ravel(),
                        minlength=classes**2).reshape(classes, classes)
    sizes = pairs.sum(axis=0) + pairs.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (2 * np.diag(pairs) / sizes)[1:]


def _scored_cases(segmenter: SliceSegmenter, study: PreparedStudy, cases: Iterable[str],
                  prediction: PredictionConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores (slice, native height, native width, class) and true classes of every voxel.

    The labels of a prepared case lie on its scaled slices; read at the voxels they are the ones
    of the file (`SlicePlan.from_slices` is exact).

    Raises:
        DataError: a case without segmentation.
    """
    for case in cases:
        volume = study.read_volume(case)
        if volume.labels is None:
            raise DataError(f"validation case {case} has no segmentation", file=study.path,
                            hint="prepare the study with its segmentations, or train without "
                                 "validation cases")
        scores = score_voxels(segmenter, volume, study.config.study, prediction)
        yield scores, volume.plan.read_voxels(volume.labels)


def _mean_dice(dice: np.ndarray, study: StudyConfig) -> dict[str, float]:
    found = {}
    for k, name in enumerate(study.class_names[1:]):
        values = dice[:, k][~np.isnan(dice[:, k])]
        found[f"dice_{name}"] = float(values.mean()) if values.size else 1.0
    return found
