"""Validation of a training by whole volumes, under the prior that the prediction will use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import FollowDecisions, PredictionConfig, Prior, StudyConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import gain_of
from pixelnet_tf.evaluation.overlap import ratio
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: Strengths of the prior correction that are tried; 0 is the paper's arg max, 1 Bayes' rule.
STRENGTHS = tuple(round(0.25 * i, 2) for i in range(11))


def case_validator(study: PreparedStudy, cases: Sequence[str], prediction: PredictionConfig,
                   precision: str, priors: ClassPriors
                   ) -> Callable[[PixelNet], dict[str, float]]:
    """Return a function that scores a model on whole validation volumes.

    It gives `dice_<class>` for each lesion class, or, of a network that scores regions,
    `dice_<region>` for each of them: the mean over the cases that have it or were given it, counted
    in voxels of the original grid. The prior is the configured one; where
    decisions of the validation are to be followed, that one or the one with its strength fitted, as
    they would be decided for this model. Cases are read anew each time, one at a time.
    """
    segmenter: SliceSegmenter | None = None
    fits = (prediction.decisions == FollowDecisions.APPLY or prediction.prior == Prior.FITTED)
    unit = priors.correction(Prior.CORRECTED)
    configured = priors.correction(prediction.prior)
    #: Added to the scores of the segmenter, which has the configured prior where that is all.
    tried = [configured, *(strength * unit for strength in STRENGTHS)] if fits else [0.0]

    def validate(model: PixelNet) -> dict[str, float]:
        nonlocal segmenter
        # Its graph reads the model's variables, so that one serves every validation of a run.
        if segmenter is None or segmenter.scorer.model is not model:
            segmenter = SliceSegmenter(model, None if fits else configured, precision=precision)
        section, regions = study.config.study, model.config.region_based
        # Thresholds are decided later: the paper's arg max, or half of each region.
        decoding = Decoding.of(section, replace(prediction, region_thresholds={}), regions)
        pairs = np.array([[confusion(decoding.class_numbers(scores + added), labels,
                                     len(section.labels)) for added in tried]
                          for scores, labels in _scored_cases(segmenter, study, cases, prediction)])
        used = 0
        if fits:
            best = 1 + best_strength(pairs[:, 1:], section, regions)[0]
            dice = np.array([[region_dice(one, section) for one in case[[0, best]]]
                             for case in pairs])
            if (prediction.prior == Prior.FITTED
                    or gain_of(dice[:, 1], dice[:, 0]).beyond_noise):
                used = best
        return _mean_dice(pairs[:, used], section, regions)

    return validate


def validated(study: StudyConfig, regions: bool) -> tuple[str, ...]:
    """What the Dice of a validation is of: the lesion classes, or the regions that are scored."""
    return tuple(study.regions) if regions else study.class_names[1:]


def best_strength(pairs: np.ndarray, study: StudyConfig, regions: bool = False
                  ) -> tuple[int, list[float]]:
    """The place of the strength with the best mean Dice of what is `validated`, and every mean.

    pairs (case, strength, class, class): voxels by true and predicted class (`confusion`).
    """
    means = [float(np.mean(list(_mean_dice(of_one, study, regions).values())))
             for of_one in np.moveaxis(pairs, 1, 0)]
    return int(np.argmax(means)), means


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Voxels by true and predicted class, (class, class) int64; those of no class (`IGNORED`) are
    left out."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs[labels < classes], minlength=classes**2).reshape(classes, classes)


def dice_of(pairs: np.ndarray) -> np.ndarray:
    """Dice (class - 1,) of each lesion class by a `confusion`; NaN where neither side has it."""
    sizes = pairs.sum(axis=0) + pairs.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (2 * np.diag(pairs) / sizes)[1:]


def dice_of_regions(pairs: np.ndarray, study: StudyConfig, empty: float = 1.0) -> list[float]:
    """Dice of each of the study's regions by a `confusion`; empty: that of one without voxels on
    both sides."""
    found = []
    for inside in study.region_classes.values():
        sizes = int(pairs[list(inside)].sum() + pairs[:, inside].sum())
        found.append(ratio(2 * int(pairs[np.ix_(inside, inside)].sum()), sizes, empty))
    return found


def region_dice(pairs: np.ndarray, study: StudyConfig) -> float:
    """Mean Dice over the study's regions by a `confusion`; 1 where one is empty on both sides."""
    return float(np.mean(dice_of_regions(pairs, study)))


def labelled_volume(study: PreparedStudy, case: str) -> PreparedVolume:
    """A validation case; raises `DataError` for one without segmentation."""
    volume = study.read_volume(case)
    if volume.labels is None:
        raise DataError(f"validation case {case} has no segmentation", file=study.path,
                        hint="prepare the study with its segmentations, or train without "
                             "validation cases")
    return volume


def _scored_cases(segmenter: SliceSegmenter, study: PreparedStudy, cases: Iterable[str],
                  prediction: PredictionConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores (slice, native height, native width, class) and true classes of every voxel.

    The labels of a prepared case lie on its scaled slices; read at the voxels they are the ones
    of the file (`SlicePlan.from_slices` is exact).

    Raises:
        DataError: a case without segmentation.
    """
    for case in cases:
        volume = labelled_volume(study, case)
        scores = score_voxels(segmenter, volume, study.config.study, prediction)
        assert volume.labels is not None
        yield scores, volume.plan.read_voxels(volume.labels)


def _mean_dice(pairs: np.ndarray, study: StudyConfig, regions: bool) -> dict[str, float]:
    """Mean over the cases of pairs (case, class, class), by the names of what is `validated`."""
    dice = np.array([dice_of_regions(case, study, np.nan) if regions else dice_of(case)
                     for case in pairs])
    found = {}
    for k, name in enumerate(validated(study, regions)):
        values = dice[:, k][~np.isnan(dice[:, k])]
        found[f"dice_{name}"] = float(values.mean()) if values.size else 1.0
    return found
