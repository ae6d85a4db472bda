"""Overlap of two label volumes: all regions' counts in one pass, and ratios made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OverlapCounts:
    """Voxels of one region by agreement of reference and prediction."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def reference(self) -> int:
        """Voxels of the region in the reference."""
        return self.true_positive + self.false_negative

    @property
    def prediction(self) -> int:
        """Voxels of the region in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def emptiness(self) -> str:
        """Which of the two masks is empty, by one of the names in `EMPTINESS`."""
        if self.reference:
            return "none_empty" if self.prediction else "prediction_empty"
        return "reference_empty" if self.prediction else "both_empty"


#: The kinds of a pair of masks that the protocols tell apart.
EMPTINESS = ("none_empty", "both_empty", "reference_empty", "prediction_empty")


def count_overlaps(
    reference: np.ndarray,
    prediction: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    voxels: int | None = None,
) -> dict[str, OverlapCounts]:
    """Count agreement for all regions in one pass over the two volumes.

    Args:
        reference: label values, uint8, any shape.
        prediction: label values, uint8, the same shape.
        regions: region -> the label values that it unites.
        voxels: voxels of the whole volume, where the arrays are a crop outside which both hold
            background only; they are added to the true negatives.
    """
    # 16 bits hold a pair of 8-bit labels: one histogram has every pair's count.
    pairs = np.left_shift(reference.astype(np.uint16), 8)
    pairs |= prediction
    joint = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    outside = 0 if voxels is None else voxels - reference.size
    counts = {}
    for region, values in regions.items():
        inside = np.zeros(256, bool)
        inside[list(values)] = True
        counts[region] = OverlapCounts(
            true_positive=int(joint[inside][:, inside].sum()),
            false_positive=int(joint[~inside][:, inside].sum()),
            false_negative=int(joint[inside][:, ~inside].sum()),
            true_negative=int(joint[~inside][:, ~inside].sum()) + outside,
        )
    return counts


def ratio(numerator: float, denominator: float, when_undefined: float) -> float:
    """Divide, with the value that a protocol gives to nothing divided by nothing."""
    return numerator / denominator if denominator else when_undefined
