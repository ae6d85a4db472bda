"""The challenges' rules: which measures, by which definition, and what an empty mask gives.

`brats` follows BraTS 2017 (paper Tables 1 and 2), `isles` the evaluator of ISLES 2015 and 2016,
which had the same five measures as 2017 (paper Tables 3 and 4), `brats2023` BraTS from 2023 on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelnet_tf.config import EmptyPolicy, EvaluationConfig, ProtocolName, StudyConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.agreement import Agreement
from pixelnet_tf.evaluation.lesion_wise import PENALTY_MM, LesionWiseRule, score_lesions
from pixelnet_tf.evaluation.lesions import LesionCounts, count_lesions
from pixelnet_tf.evaluation.overlap import OverlapCounts, count_overlaps, ratio
from pixelnet_tf.evaluation.surface import (
    REDUCERS,
    SurfaceDistances,
    SurfaceRule,
    surface_distances,
)
from pixelnet_tf.evaluation.surfels import (
    SurfelDistances,
    hausdorff95_surfels,
    surfel_distances,
)
from pixelnet_tf.volumes.lesions import bounding_box

Regions = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class RegionScore:
    """The measures of one region of one case.

    Attributes:
        emptiness: one of `overlap.EMPTINESS`.
        values: measure -> value; infinite where the rules say so, None where the rules leave
            the case out.
        averaged: measure -> whether the value enters mean, spread and quantiles.
        lesions: lesions found and missed; None for scores of a version that did not count them.
        agreement: agreement of surfaces and volumes; None likewise.
    """

    emptiness: str
    values: dict[str, float | None]
    averaged: dict[str, bool]
    lesions: LesionCounts | None = None
    agreement: Agreement | None = None

    @property
    def all_values(self) -> dict[str, float | None]:
        """Measure -> value, those of lesions and of agreement last."""
        return {**self.values, **self.further_values}

    @property
    def further_values(self) -> dict[str, float | None]:
        """Measure of lesions and of agreement -> value; None where a case is left out of it."""
        return {**(self.lesions.values if self.lesions else {}),
                **(self.agreement.values if self.agreement else {})}


@dataclass(frozen=True, eq=False)
class RegionMasks:
    """The two masks of one region, cut out around what either volume holds.

    Attributes:
        reference, prediction: bool `(x, y, z)`.
        counts: agreement over the whole volume.
        spacing_mm: voxel size along each axis.
        voxel_mm3: volume of a voxel.
        shape: shape of the whole volume.
        room: voxels of the volume before and after the cut along each axis.
        surfels: distances between the surfaces, by area; None where a mask is empty.
    """

    reference: np.ndarray
    prediction: np.ndarray
    counts: OverlapCounts
    spacing_mm: tuple[float, ...]
    voxel_mm3: float
    shape: tuple[int, ...]
    room: tuple[tuple[int, int], ...]
    surfels: SurfelDistances | None

    def within(self, voxels: int) -> tuple[np.ndarray, np.ndarray]:
        """The two masks with so many voxels around, or as many as the volume has there."""
        around = [(min(before, voxels), min(after, voxels)) for before, after in self.room]
        return np.pad(self.reference, around), np.pad(self.prediction, around)


class Protocol(ABC):
    """What a challenge computes for one case."""

    #: One of `ProtocolName`.
    name: str
    #: Distance in mm within which surfaces agree, for the surface Dice.
    surface_tolerance_mm: float = 1.0

    @property
    @abstractmethod
    def definitions(self) -> dict[str, str]:
        """Measure -> its definition in words, in the challenge's column order."""

    @abstractmethod
    def regions(self, study: StudyConfig) -> dict[str, tuple[int, ...]]:
        """Region -> label values, as the challenge scores them."""

    @abstractmethod
    def overlap_values(self, counts: OverlapCounts) -> dict[str, float]:
        """Measures that need the counts only."""

    @abstractmethod
    def values(self, masks: RegionMasks) -> tuple[dict[str, float | None], Collection[str]]:
        """All measures of a region, and the names of those that are left out of the means."""

    @property
    def settings(self) -> dict[str, Any]:
        """What else belongs to the record of its scores: key -> value."""
        return {"surface_tolerance_mm": self.surface_tolerance_mm}

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures in the challenge's column order."""
        return tuple(self.definitions)

    def score(
        self,
        reference: np.ndarray,
        prediction: np.ndarray,
        regions: Regions,
        spacing_mm: Sequence[float],
        ignored: int = 0,
        voxel_mm3: float | None = None,
    ) -> dict[str, RegionScore]:
        """Score one case.

        Args:
            reference: label values, uint8 `(x, y, z)`.
            prediction: label values, uint8, the same shape.
            regions: region -> label values.
            spacing_mm: voxel size along each axis.
            ignored: voxels that count for nothing, background in both arrays (`judged_alone`).
            voxel_mm3: volume of a voxel; None: that of a box of these sides, which it is but in a
                sheared grid.
        """
        if voxel_mm3 is None:
            voxel_mm3 = math.prod(spacing_mm)
        box = bounding_box(reference, prediction)
        ref, pred = np.ascontiguousarray(reference[box]), np.ascontiguousarray(prediction[box])
        room = tuple((span.start, length - span.stop)
                     for span, length in zip(box, reference.shape, strict=True))
        counts = count_overlaps(ref, pred, regions, voxels=reference.size - ignored)
        scores = {}
        for region, values in regions.items():
            inside = np.zeros(256, bool)
            inside[list(values)] = True
            truth, found = inside[ref], inside[pred]
            surfels = (surfel_distances(truth, found, spacing_mm)
                       if counts[region].emptiness == "none_empty" else None)
            scores[region] = self._score_region(RegionMasks(
                truth, found, counts[region], tuple(spacing_mm), voxel_mm3, reference.shape, room,
                surfels))
        return scores

    def _score_region(self, masks: RegionMasks) -> RegionScore:
        values, left_out = self.values(masks)
        return RegionScore(
            masks.counts.emptiness, {name: values[name] for name in self.measures},
            {name: name not in left_out for name in self.measures},
            count_lesions(masks.reference, masks.prediction, masks.voxel_mm3),
            Agreement.of(masks.counts, masks.surfels, masks.voxel_mm3,
                         self.surface_tolerance_mm))


class SurfaceProtocol(Protocol):
    """A challenge whose measures are those of overlaps and of one voxel's surface each."""

    surface_rule = SurfaceRule()

    @abstractmethod
    def distance_values(
        self, emptiness: str, distances: SurfaceDistances | None, shape: tuple[int, ...]
    ) -> tuple[dict[str, float | None], bool]:
        """Measures in mm and whether they are averaged; `distances` is None for an empty mask."""

    def values(self, masks: RegionMasks) -> tuple[dict[str, float | None], Collection[str]]:
        distances = None
        if masks.counts.emptiness == "none_empty":
            # The cut must not pass for the array's edge, where the surface rule may differ.
            distances = surface_distances(*masks.within(1), masks.spacing_mm, self.surface_rule)
        lengths, averaged = self.distance_values(masks.counts.emptiness, distances, masks.shape)
        return {**self.overlap_values(masks.counts), **lengths}, () if averaged else lengths


@dataclass(frozen=True)
class BratsProtocol(SurfaceProtocol):
    """BraTS 2017: Dice, sensitivity, specificity and Hausdorff95 per region (and precision).

    Both masks empty counts as perfect. One mask empty has no distance: with `brats2020` it is the
    image's diagonal in voxels (373.1287 for 240x240x155), with `exclude` the case is left out of
    Hausdorff95 alone.
    """

    empty_policy: str = EmptyPolicy.BRATS2020
    hausdorff95: str = "hausdorff95_pooled"
    surface_tolerance_mm: float = 1.0
    name = ProtocolName.BRATS.value

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "empty_policy": self.empty_policy}

    @property
    def definitions(self) -> dict[str, str]:
        penalty = ("the image's diagonal in voxels" if self.empty_policy == EmptyPolicy.BRATS2020
                   else "left out")
        return {
            "Dice": "2 TP / (2 TP + FP + FN); both masks empty: 1",
            "Sensitivity": "TP / (TP + FN); both masks empty: 1, reference empty: 0",
            "Specificity": "TN / (TN + FP) over the whole volume",
            "Hausdorff95": f"{self.hausdorff95}: {REDUCERS[self.hausdorff95].description}, mm; "
                           f"both masks empty: 0, one empty: {penalty}",
            "Precision": "TP / (TP + FP); both masks empty: 1, prediction empty: 0",
        }

    def regions(self, study: StudyConfig) -> dict[str, tuple[int, ...]]:
        return dict(study.regions)

    def overlap_values(self, counts: OverlapCounts) -> dict[str, float]:
        tp, fp = counts.true_positive, counts.false_positive
        perfect = float(counts.emptiness == "both_empty")
        return {
            "Dice": ratio(2 * tp, counts.reference + counts.prediction, perfect),
            "Sensitivity": ratio(tp, counts.reference, perfect),
            "Specificity": ratio(counts.true_negative, counts.true_negative + fp, 1.0),
            "Precision": ratio(tp, counts.prediction, perfect),
        }

    def distance_values(
        self, emptiness: str, distances: SurfaceDistances | None, shape: tuple[int, ...]
    ) -> tuple[dict[str, float | None], bool]:
        if distances is not None:
            return {"Hausdorff95": REDUCERS[self.hausdorff95].reduce(distances)}, True
        if emptiness == "both_empty":
            return {"Hausdorff95": 0.0}, True
        if self.empty_policy == EmptyPolicy.EXCLUDE:
            return {"Hausdorff95": None}, False
        return {"Hausdorff95": math.sqrt(sum(n * n for n in shape))}, True


@dataclass(frozen=True)
class IslesProtocol(SurfaceProtocol):
    """ISLES: Dice, Hausdorff, average distance, precision and recall of everything non-zero.

    Both masks empty gives 0 for the overlaps (1e-20 in the denominators) and for the distances;
    one empty gives infinite distances. Distances are averaged over the cases where both masks
    hold something, as the live server does.
    """

    surface_tolerance_mm: float = 1.0
    name = ProtocolName.ISLES.value
    surface_rule = SurfaceRule(from_connectivity=18, to_connectivity=26,
                               outside_is_foreground=True)

    @property
    def definitions(self) -> dict[str, str]:
        one_empty = "mm; over the cases where neither mask is empty"
        return {
            "Dice": "2 TP / (2 TP + FP + FN + 1e-20); both masks empty: 0",
            "Hausdorff": f"hausdorff: {REDUCERS['hausdorff'].description}, {one_empty}",
            "AverageDistance": "average_distance_symmetric: "
                               f"{REDUCERS['average_distance_symmetric'].description}, {one_empty}",
            "Precision": "TP / (TP + FP + 1e-20); prediction empty: 0",
            "Recall": "TP / (TP + FN + 1e-20); reference empty: 0",
        }

    def regions(self, study: StudyConfig) -> dict[str, tuple[int, ...]]:
        name = next(iter(study.regions)) if len(study.regions) == 1 else "lesion"
        return {name: tuple(value for value in study.label_values if value)}

    def overlap_values(self, counts: OverlapCounts) -> dict[str, float]:
        tp = counts.true_positive
        return {
            "Dice": 2 * tp / (counts.reference + counts.prediction + 1e-20),
            "Precision": tp / (counts.prediction + 1e-20),
            "Recall": tp / (counts.reference + 1e-20),
        }

    def distance_values(
        self, emptiness: str, distances: SurfaceDistances | None, shape: tuple[int, ...]
    ) -> tuple[dict[str, float | None], bool]:
        if distances is not None:
            return {"Hausdorff": REDUCERS["hausdorff"].reduce(distances),
                    "AverageDistance": REDUCERS["average_distance_symmetric"].reduce(distances)
                    }, True
        value = 0.0 if emptiness == "both_empty" else math.inf
        return {"Hausdorff": value, "AverageDistance": value}, False


@dataclass(frozen=True)
class Brats2023Protocol(Protocol):
    """BraTS from 2023 on: Dice and Hausdorff95 of each lesion, and those of the whole volume.

    Every distance is that of `surfels.py`; where there is none it is 374 mm.
    """

    rule: LesionWiseRule = field(default_factory=LesionWiseRule)
    surface_tolerance_mm: float = 1.0
    name = ProtocolName.BRATS2023.value

    @property
    def definitions(self) -> dict[str, str]:
        length = ("hausdorff95_surfels: larger of the two directions' 95th percentiles of surface "
                  "distances by area, mm")
        return {
            "LesionDice": "mean of the Dice of each lesion of the reference with the components "
                          "of the prediction that meet its dilation; missed or false: 0, no "
                          "lesion: 1. A lesion is what a dilation by "
                          f"{self.rule.dilation} voxels (18 neighbours) joins; those of "
                          f"{self.rule.threshold_mm3:g} mm³ or less are left out, a component "
                          "that meets none is false",
            "LesionHausdorff95": f"the same mean of {length}; missed or false: {PENALTY_MM:g}, no "
                                 "lesion: 0",
            "Dice": "2 TP / (2 TP + FP + FN); both masks empty: 1",
            "Hausdorff95": f"{length}; both masks empty: 0, one empty: {PENALTY_MM:g}",
            "Sensitivity": "TP / (TP + FN); both masks empty: 1, reference empty: 0",
            "Specificity": "TN / (TN + FP) over the whole volume",
            "LesionsFound": "lesions of the reference that a component of the prediction meets, a "
                            "case",
            "LesionsMissed": "lesions of the reference that none meets, a case",
            "LesionsFalse": "components of the prediction that meet no lesion, a case",
        }

    def regions(self, study: StudyConfig) -> dict[str, tuple[int, ...]]:
        return dict(study.regions)

    def overlap_values(self, counts: OverlapCounts) -> dict[str, float]:
        perfect = float(counts.emptiness == "both_empty")
        tp, tn = counts.true_positive, counts.true_negative
        return {"Dice": ratio(2 * tp, counts.reference + counts.prediction, perfect),
                "Sensitivity": ratio(tp, counts.reference, perfect),
                "Specificity": ratio(tn, tn + counts.false_positive, 1.0)}

    def values(self, masks: RegionMasks) -> tuple[dict[str, float | None], Collection[str]]:
        lesions = score_lesions(*masks.within(self.rule.dilation), masks.spacing_mm,
                                masks.voxel_mm3, self.rule)
        if masks.surfels is not None:
            length = hausdorff95_surfels(masks.surfels)
        else:
            length = 0.0 if masks.counts.emptiness == "both_empty" else PENALTY_MM
        return {**self.overlap_values(masks.counts), "Hausdorff95": length,
                "LesionDice": lesions.dice, "LesionHausdorff95": lesions.hausdorff95_mm,
                "LesionsFound": float(lesions.found), "LesionsMissed": float(lesions.missed),
                "LesionsFalse": float(lesions.false)}, ()


#: Every protocol by its name.
PROTOCOLS: dict[str, type[Protocol]] = {
    one.name: one for one in (BratsProtocol, IslesProtocol, Brats2023Protocol)}


def make_protocol(config: EvaluationConfig, hausdorff95: str = "hausdorff95_pooled") -> Protocol:
    """Return the protocol that the configuration names.

    Raises:
        ConfigError: an unknown Hausdorff95 definition.
    """
    known = [name for name in REDUCERS if name.startswith("hausdorff95")]
    if hausdorff95 not in known:
        raise ConfigError(f"the Hausdorff95 definition must be one of {known}, got {hausdorff95!r}",
                          value=hausdorff95)
    tolerance = config.surface_tolerance_mm
    if config.protocol == ProtocolName.ISLES:
        return IslesProtocol(tolerance)
    if config.protocol == ProtocolName.BRATS2023:
        return Brats2023Protocol(
            LesionWiseRule(config.lesion_dilation, config.lesion_threshold_mm3), tolerance)
    return BratsProtocol(config.empty_policy, hausdorff95, tolerance)
