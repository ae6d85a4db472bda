"""The two challenges' rules: which measures, by which definition, and what an empty mask gives.

`brats` follows BraTS 2017 (paper Tables 1 and 2), `isles` the evaluator of ISLES 2015 and 2016,
which had the same five measures as 2017 (paper Tables 3 and 4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelnet_tf.config import EmptyPolicy, EvaluationConfig, ProtocolName, StudyConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.lesions import LesionCounts, count_lesions
from pixelnet_tf.evaluation.overlap import OverlapCounts, count_overlaps, ratio
from pixelnet_tf.evaluation.surface import (
    REDUCERS,
    SurfaceDistances,
    SurfaceRule,
    surface_distances,
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
    """

    emptiness: str
    values: dict[str, float | None]
    averaged: dict[str, bool]
    lesions: LesionCounts | None = None

    @property
    def all_values(self) -> dict[str, float | None]:
        """Measure -> value, those of lesions last."""
        return {**self.values, **(self.lesions.values if self.lesions else {})}


class Protocol(ABC):
    """What a challenge computes for one case."""

    #: `brats` or `isles`.
    name: str
    surface_rule = SurfaceRule()

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
    def distance_values(
        self, emptiness: str, distances: SurfaceDistances | None, shape: tuple[int, ...]
    ) -> tuple[dict[str, float | None], bool]:
        """Measures in mm and whether they are averaged; `distances` is None for an empty mask."""

    @property
    def settings(self) -> dict[str, str]:
        """What else belongs to the record of its scores: key -> value."""
        return {}

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
    ) -> dict[str, RegionScore]:
        """Score one case.

        Args:
            reference: label values, uint8 `(x, y, z)`.
            prediction: label values, uint8, the same shape.
            regions: region -> label values.
            spacing_mm: voxel size along each axis.
            ignored: voxels that count for nothing, background in both arrays (`judged_alone`).
        """
        box = bounding_box(reference, prediction)
        ref, pred = np.ascontiguousarray(reference[box]), np.ascontiguousarray(prediction[box])
        edges = _faces_at_edge(box, reference.shape)
        counts = count_overlaps(ref, pred, regions, voxels=reference.size - ignored)
        return {region: self._score_region(ref, pred, values, counts[region], spacing_mm,
                                           reference.shape, edges)
                for region, values in regions.items()}

    def _score_region(self, ref: np.ndarray, pred: np.ndarray, values: Sequence[int],
                      counts: OverlapCounts, spacing_mm: Sequence[float], shape: tuple[int, ...],
                      edges: tuple[tuple[int, int], ...]) -> RegionScore:
        distances = None
        inside = np.zeros(256, bool)
        inside[list(values)] = True
        truth, found = inside[ref], inside[pred]
        if counts.emptiness == "none_empty":
            # The crop must not pass for the array's edge, where the surface rule may differ.
            distances = surface_distances(np.pad(truth, edges), np.pad(found, edges),
                                          spacing_mm, self.surface_rule)
        lengths, averaged = self.distance_values(counts.emptiness, distances, shape)
        merged = {**self.overlap_values(counts), **lengths}
        return RegionScore(counts.emptiness, {name: merged[name] for name in self.measures},
                           {name: averaged or name not in lengths for name in self.measures},
                           count_lesions(truth, found, spacing_mm))


@dataclass(frozen=True)
class BratsProtocol(Protocol):
    """BraTS 2017: Dice, sensitivity, specificity and Hausdorff95 per region (and precision).

    Both masks empty counts as perfect. One mask empty has no distance: with `brats2020` it is the
    image's diagonal in voxels (373.1287 for 240x240x155), with `exclude` the case is left out of
    Hausdorff95 alone.
    """

    empty_policy: str = EmptyPolicy.BRATS2020
    hausdorff95: str = "hausdorff95_pooled"
    name = ProtocolName.BRATS.value

    @property
    def settings(self) -> dict[str, str]:
        return {"empty_policy": self.empty_policy}

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
class IslesProtocol(Protocol):
    """ISLES: Dice, Hausdorff, average distance, precision and recall of everything non-zero.

    Both masks empty gives 0 for the overlaps (1e-20 in the denominators) and for the distances;
    one empty gives infinite distances. Distances are averaged over the cases where both masks
    hold something, as the live server does.
    """

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


#: Every protocol by its name.
PROTOCOLS: dict[str, type[Protocol]] = {one.name: one for one in (BratsProtocol, IslesProtocol)}


def make_protocol(config: EvaluationConfig, hausdorff95: str = "hausdorff95_pooled") -> Protocol:
    """Return the protocol that the configuration names.

    Raises:
        ConfigError: an unknown Hausdorff95 definition.
    """
    known = [name for name in REDUCERS if name.startswith("hausdorff95")]
    if hausdorff95 not in known:
        raise ConfigError(f"the Hausdorff95 definition must be one of {known}, got {hausdorff95!r}",
                          value=hausdorff95)
    if config.protocol == ProtocolName.ISLES:
        return IslesProtocol()
    return BratsProtocol(config.empty_policy, hausdorff95)


def _faces_at_edge(
    box: tuple[slice, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Background voxels to put around a crop: none where its face is the array's own."""
    return tuple((int(span.start > 0), int(span.stop < length))
                 for span, length in zip(box, shape, strict=True))
