"""Lesions found and missed: connected components of a region, counted by whether they overlap.

The rule is that of the ISLES challenges from 2022 on: a lesion is a 26-connected component
(`volumes/lesions.py`); one of the reference is detected where the prediction shares a voxel with
it, and one of the prediction is a false positive where it shares none with the reference. It is
counted for every protocol and changes none of the challenges' own measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise

import numpy as np

from pixelnet_tf.evaluation.overlap import ratio
from pixelnet_tf.volumes.lesions import number_lesions

#: Volumes in ml at which a class of lesion sizes begins, after the first one that begins at 0.
SIZE_BOUNDS_ML = (0.1, 1.0, 10.0)
#: The classes of size in words, the smallest first.
SIZE_CLASSES = (f"under {SIZE_BOUNDS_ML[0]:g} ml",
                *(f"{low:g} to {high:g} ml" for low, high in pairwise(SIZE_BOUNDS_ML)),
                f"from {SIZE_BOUNDS_ML[-1]:g} ml")
#: Measure of a case -> its definition.
LESION_MEASURES = {
    "LesionF1": "2 TP / (2 TP + FP + FN), TP and FN the lesions of the reference that share a "
                "voxel with the prediction or none, FP those of the prediction that share none "
                "with the reference; no lesion on either side: 1",
    "LesionSensitivity": "TP / (TP + FN); over the cases with a lesion in the reference",
    "FalsePositives": "lesions of the prediction that share no voxel with the reference, a case",
}


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one region of one case, a number for each of `SIZE_CLASSES`.

    Attributes:
        reference: lesions of the reference.
        detected: of these, the ones that the prediction overlaps.
        predicted: lesions of the prediction.
        false_positives: of these, the ones that overlap no lesion of the reference.
    """

    reference: tuple[int, ...]
    detected: tuple[int, ...]
    predicted: tuple[int, ...]
    false_positives: tuple[int, ...]

    @property
    def values(self) -> dict[str, float | None]:
        """Measure of `LESION_MEASURES` -> value; None where the case is left out of it."""
        found, wrong = sum(self.detected), sum(self.false_positives)
        there = sum(self.reference)
        return {"LesionF1": ratio(2 * found, found + there + wrong, 1.0),
                "LesionSensitivity": found / there if there else None,
                "FalsePositives": float(wrong)}

    @property
    def fault(self) -> str | None:
        """What makes numbers impossible, of a file for example; None where nothing does."""
        if any(len(numbers) != len(SIZE_CLASSES) for numbers in astuple(self)):
            return f"each of {[f.name for f in fields(self)]} needs {len(SIZE_CLASSES)} numbers"
        for part, whole in ((self.detected, self.reference),
                            (self.false_positives, self.predicted)):
            if any(not 0 <= few <= all_ for few, all_ in zip(part, whole, strict=True)):
                return "more lesions are counted than there are"
        return None

    @classmethod
    def total(cls, counts: Sequence[LesionCounts]) -> LesionCounts:
        """The sum over cases."""
        return cls(*(tuple(int(n) for n in np.sum(one, axis=0)) for one
                     in zip(*map(astuple, counts), strict=True)))


def count_lesions(reference: np.ndarray, prediction: np.ndarray, voxel_mm3: float
                  ) -> LesionCounts:
    """Count the lesions of one region.

    Args:
        reference: mask, bool `(x, y, z)`; a crop serves where nothing of either lies outside it.
        prediction: mask, bool, the same shape.
        voxel_mm3: volume of a voxel.
    """
    voxel_ml = voxel_mm3 / 1000
    there, detected = _sizes_and_hits(reference, prediction, voxel_ml)
    predicted, confirmed = _sizes_and_hits(prediction, reference, voxel_ml)
    return LesionCounts(_by_size(there), _by_size(there[detected]), _by_size(predicted),
                        _by_size(predicted[~confirmed]))


def _sizes_and_hits(mask: np.ndarray, other: np.ndarray, voxel_ml: float
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Volume in ml of each component of a mask, and whether another mask overlaps it."""
    numbers, count = number_lesions(mask)
    voxels = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(numbers[other], minlength=count + 1)[1:]
    return voxels * voxel_ml, hits > 0


def _by_size(volumes_ml: np.ndarray) -> tuple[int, ...]:
    # Products of spacings are rounded: a volume that is a bound but for that lies above it.
    classes = np.digitize(volumes_ml * (1 + 1e-9), SIZE_BOUNDS_ML)
    return tuple(int(n) for n in np.bincount(classes, minlength=len(SIZE_CLASSES)))
