"""Calibration: whether what a network holds for probable occurs as often.

Voxels are sorted by the probability that they were given into bins of equal width. Of each bin the
mean probability (the confidence) is set against the share of its voxels for which it came true (the
accuracy); the expected calibration error is the mean of their distance, each bin weighted by its
voxels (Guo et al., 2017, arXiv:1706.04599).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.dataset.workers import Engine, run_cases, worker_count
from pixelnet_tf.errors import DataError, PixelNetError
from pixelnet_tf.evaluation.label_files import check_same_grid, read_labels
from pixelnet_tf.evaluation.matching import Matching
from pixelnet_tf.inference.outputs import MAPS
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.nifti import read_probabilities

#: Number of bins between 0 and 1; one ends where the next begins, at 0.1, 0.2, ...
BINS = 10
#: The sum of a voxel's probabilities may differ from 1 by so much.
_TOLERANCE = 1e-3

DEFINITIONS = {
    "voxels": "all that the reference judges, but those of the background to which the file gives "
              "a probability of exactly 1 for it, as it does outside the brain; all cases together",
    "classes": "of a lesion class: its probability, and whether the reference has the class",
    "predicted_class": "the largest probability, and whether the reference has its class",
    "regions": "where the file gives probabilities of overlapping regions, these stand in place of "
               "the lesion classes; what counts is each voxel in a lesion of the reference or with "
               "a probability above 0, and predicted_class is of all regions together: the larger "
               "of p and 1 - p, and whether it came true",
    "expected_calibration_error": f"sum over {BINS} bins of equal width of the share of the voxels "
                                  "times the distance of accuracy and mean confidence",
}


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy by bins, a number for each.

    Attributes:
        voxels: number of voxels.
        confidence, accuracy: mean probability, and share of the voxels for which it came true; None
            where a bin has no voxel.
        expected_calibration_error: over all bins; None where there is no voxel at all.
    """

    voxels: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    expected_calibration_error: float | None

    @classmethod
    def of(cls, sums: np.ndarray) -> Reliability:
        """Of sums (3, bin) float64: voxels, their probabilities, and how often these came true."""
        voxels, probable, true = sums
        means = [[float(total / n) if n else None for total, n in zip(totals, voxels, strict=True)]
                 for totals in (probable, true)]
        error = float(np.abs(probable - true).sum() / voxels.sum()) if voxels.any() else None
        return cls(tuple(int(n) for n in voxels), tuple(means[0]), tuple(means[1]), error)

    @property
    def fault(self) -> str | None:
        """What makes numbers impossible, of a file for example; None where nothing does."""
        sides = (self.confidence, self.accuracy)
        if not len(self.voxels) == len(self.confidence) == len(self.accuracy) == BINS:
            return f"there must be {BINS} bins"
        for side in sides:
            if any((n > 0) != (value is not None) or (value is not None and not 0 <= value <= 1)
                   for n, value in zip(self.voxels, side, strict=True)):
                return "a bin with voxels has numbers between 0 and 1, one without has none"
        return None


@dataclass(frozen=True)
class Calibration:
    """Calibration over cases.

    Attributes:
        cases: number of cases whose probabilities were found.
        predicted_class: of the class that is most probable, or of being in each region or not.
        classes: lesion class, or region where these have probabilities -> that of its probability.
    """

    cases: int
    predicted_class: Reliability
    classes: dict[str, Reliability]

    @property
    def fault(self) -> str | None:
        """As of `Reliability`."""
        return next((f for one in (self.predicted_class, *self.classes.values())
                     if (f := one.fault)), None)


@dataclass(frozen=True)
class _Case:
    """What calibration needs of a case."""

    name: str
    reference: Path
    probabilities: Path


def find_probabilities(matching: Matching) -> dict[str, Path]:
    """Case -> file of its probabilities, of the cases that have one.

    It is `probabilities/<case>.nii.gz` beside the segmentation, or, in BIDS, the `_probseg` of the
    same name.
    """
    found = {}
    for case, (_, prediction) in matching.pairs.items():
        beside = prediction.with_name(
            re.sub(r"_(dseg|mask)\.nii(\.gz)?$", "_probseg.nii.gz", prediction.name))
        for path in (prediction.parent / MAPS / f"{case}.nii.gz", beside):
            if path != prediction and path.is_file():
                found[case] = path
                break
    return found


def calibrate(matching: Matching, study: StudyConfig, workers: int | Engine = 1,
              reporter: Reporter | None = None, by_region: bool = False) -> Calibration | None:
    """Measure the calibration of the cases that have probabilities; None where there are none.

    by_region: they are those of the study's regions, not of its classes.

    A file that cannot be used (other classes, another grid, no probabilities) is left out with a
    warning: scores do not depend on it.

    Raises:
        RunError: a worker process died.
    """
    reporter = reporter_or_log(reporter)
    cases = [_Case(name, matching.pairs[name][0], path)
             for name, path in find_probabilities(matching).items()]
    sums: dict[str, np.ndarray] = {}
    for number, (case, outcome) in enumerate(run_cases(
            _measured, cases, (study, by_region), worker_count(workers, len(cases))), 1):
        reporter.progress("calibration", number, len(cases), case.name)
        if isinstance(outcome, PixelNetError):
            reporter.warning(f"left out of the calibration: {outcome.text}")
        else:
            sums[case.name] = outcome
    if not sums:
        return None
    # In the order of the cases: sums of floating-point numbers depend on it.
    total = np.sum([sums[case.name] for case in cases if case.name in sums], axis=0)
    names = tuple(study.regions) if by_region else study.class_names[1:]
    return Calibration(len(sums), Reliability.of(total[0]), {
        name: Reliability.of(one) for name, one in zip(names, total[1:], strict=True)})


def reliability_sums(truth: np.ndarray, probabilities: np.ndarray, label_values: Sequence[int],
                     ignore_label: int | None = None) -> np.ndarray:
    """Sum up the bins of one case.

    Args:
        truth: label values (x, y, z) uint8.
        probabilities: (x, y, z, class) float32.
        label_values: in the order of the classes, the background first.
        ignore_label: value of voxels that nobody has judged.

    Returns:
        (class, 3, bin) float64, first of the predicted class, then of each lesion class: number of
        voxels, sum of their probabilities, and how often these came true.
    """
    counted = (truth != 0) | (probabilities[..., 0] < 1)
    if ignore_label is not None:
        counted &= truth != ignore_label
    true, shares = truth[counted], probabilities[counted]
    values = np.asarray(label_values)
    predicted = shares.argmax(axis=-1)
    sides = [(shares.max(axis=-1, initial=0), values[predicted] == true),
             *((shares[:, index], true == values[index]) for index in range(1, len(values)))]
    return np.stack([_sums(probable, hits) for probable, hits in sides])


def region_reliability_sums(truth: np.ndarray, probabilities: np.ndarray,
                            regions: Sequence[Sequence[int]], ignore_label: int | None = None
                            ) -> np.ndarray:
    """What `reliability_sums` returns of probabilities (x, y, z, region) float32 of regions.

    Args:
        regions: label values of each.
    """
    counted = (truth != 0) | (probabilities > 0).any(axis=-1)
    if ignore_label is not None:
        counted &= truth != ignore_label
    true, shares = truth[counted], probabilities[counted]
    inside = np.stack([np.isin(true, values) for values in regions], axis=-1)
    sides = [(shares[:, number], inside[:, number]) for number in range(len(regions))]
    taken = (np.maximum(shares, 1 - shares).ravel(), (inside == (shares > 0.5)).ravel())
    return np.stack([_sums(probable, hits) for probable, hits in (taken, *sides)])


def _sums(probable: np.ndarray, hits: np.ndarray) -> np.ndarray:
    bins = np.minimum((probable * BINS).astype(np.intp), BINS - 1)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (
        np.ones(len(bins)), probable.astype(np.float64), hits.astype(np.float64))])


def _measured(case: _Case, study: StudyConfig, by_region: bool) -> np.ndarray | PixelNetError:
    try:
        truth, geometry = read_labels(case.reference, study, case.name, reference=True)
        shares, other = read_probabilities(case.probabilities)
        check_same_grid(case.name, geometry, other, case.reference, case.probabilities)
        _check(shares, study, by_region)
    except PixelNetError as error:
        return type(error).of(error, case=case.name, file=case.probabilities)
    # Where the sum may exceed 1 by the tolerance, one class alone may, too.
    shares = np.minimum(shares, 1)
    if by_region:
        return region_reliability_sums(truth, shares, list(study.regions.values()),
                                       study.ignore_label)
    return reliability_sums(truth, shares, study.label_values, study.ignore_label)


def _check(shares: np.ndarray, study: StudyConfig, by_region: bool) -> None:
    if by_region:
        if shares.shape[-1] != len(study.regions):
            raise DataError(f"holds {shares.shape[-1]} volumes, study.regions has "
                            f"{len(study.regions)} regions", value=shares.shape[-1],
                            hint="evaluate with the configuration that the network was trained by")
        if not (shares.min(initial=0) >= 0 and shares.max(initial=0) <= 1):
            raise DataError("holds no probabilities: they lie between 0 and 1",
                            hint="predict again with --probabilities")
        return
    if shares.shape[-1] != len(study.labels):
        raise DataError(f"holds {shares.shape[-1]} volumes, study.labels has {len(study.labels)} "
                        "classes", value=shares.shape[-1],
                        hint="predict again with --probabilities")
    if not (np.abs(shares.sum(axis=-1) - 1).max(initial=0) <= _TOLERANCE and shares.min() >= 0):
        raise DataError("holds no probabilities: they are at least 0 and have the sum 1 over the "
                        "classes", hint="predict again with --probabilities")


def by_name(calibration: Calibration) -> Mapping[str, Reliability]:
    """What is measured, in words -> its reliability: the predicted class first."""
    return {"predicted class": calibration.predicted_class, **calibration.classes}
