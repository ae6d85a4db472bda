"""Validation of a training by whole volumes, under the prior that the prediction will use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import FollowDecisions, PredictionConfig, Prior, StudyConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import gain_of
from pixelnet_tf.evaluation.overlap import ratio
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

    It gives `dice_<class>` for each lesion class: the mean over the cases that have the class or
    were given it, counted in voxels of the original grid. The prior is the configured one; where
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
        pairs = np.array([[confusion((scores + added).argmax(axis=-1), labels, model.classes)
                           for added in tried]
                          for scores, labels in _scored_cases(segmenter, study, cases, prediction)])
        used = 0
        if fits:
            best = 1 + best_strength(pairs[:, 1:], study.config.study)[0]
            dice = np.array([[region_dice(one, study.config.study) for one in case[[0, best]]]
                             for case in pairs])
            if (prediction.prior == Prior.FITTED
                    or gain_of(dice[:, 1], dice[:, 0]).beyond_noise):
                used = best
        return _mean_dice(np.array([dice_of(case) for case in pairs[:, used]]), study.config.study)

    return validate


def best_strength(pairs: np.ndarray, study: StudyConfig) -> tuple[int, list[float]]:
    """The place of the strength with the best mean Dice of the lesion classes, and every mean.

    pairs (case, strength, class, class): voxels by true and predicted class (`confusion`).
    """
    means = [float(np.mean(list(_mean_dice(np.array([dice_of(case) for case in of_one]),
                                           study).values())))
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


def region_dice(pairs: np.ndarray, study: StudyConfig) -> float:
    """Mean Dice over the study's regions by a `confusion`; 1 where one is empty on both sides."""
    found = []
    for values in study.regions.values():
        inside = [study.label_values.index(value) for value in values]
        sizes = int(pairs[inside].sum() + pairs[:, inside].sum())
        found.append(ratio(2 * int(pairs[np.ix_(inside, inside)].sum()), sizes, 1.0))
    return float(np.mean(found))


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


def _mean_dice(dice: np.ndarray, study: StudyConfig) -> dict[str, float]:
    found = {}
    for k, name in enumerate(study.class_names[1:]):
        values = dice[:, k][~np.isnan(dice[:, k])]
        found[f"dice_{name}"] = float(values.mean()) if values.size else 1.0
    return found
