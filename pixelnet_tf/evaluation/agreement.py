"""How well surfaces and volumes of a region agree, beside the challenges' own measures.

They are computed by every protocol and change none of the challenges' measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelnet_tf.evaluation.overlap import OverlapCounts
from pixelnet_tf.evaluation.surfels import SurfelDistances, surface_dice

#: Standard deviations within which 95% of normally distributed differences lie.
_LIMITS = 1.96


def agreement_measures(tolerance_mm: float) -> dict[str, str]:
    """Measure of a case -> its definition."""
    return {
        "SurfaceDice": f"share of both surfaces, by area, that lies within {tolerance_mm:g} mm of "
                       "the other; one mask empty: 0, both: left out",
        "VolumeDifference": "volume of the prediction less that of the reference, ml",
    }


#: Names of the measures.
AGREEMENT_MEASURES = tuple(agreement_measures(1.0))


@dataclass(frozen=True)
class Agreement:
    """One region of one case.

    Attributes:
        reference_ml, prediction_ml: volume of either mask.
        surface_dice: share of the surfaces that agree; None where there are none.
    """

    reference_ml: float
    prediction_ml: float
    surface_dice: float | None

    @classmethod
    def of(cls, counts: OverlapCounts, surfels: SurfelDistances | None,
           voxel_mm3: float, tolerance_mm: float) -> Agreement:
        """Compute them; `surfels` is None where a mask is empty."""
        voxel_ml = voxel_mm3 / 1000
        if surfels is not None:
            near: float | None = surface_dice(surfels, tolerance_mm)
        else:
            near = None if counts.emptiness == "both_empty" else 0.0
        return cls(counts.reference * voxel_ml, counts.prediction * voxel_ml, near)

    @property
    def values(self) -> dict[str, float | None]:
        """Measure of `AGREEMENT_MEASURES` -> value; None where the case is left out of it."""
        return {"SurfaceDice": self.surface_dice,
                "VolumeDifference": self.prediction_ml - self.reference_ml}

    @property
    def fault(self) -> str | None:
        """What makes numbers impossible, of a file for example; None where nothing does."""
        volumes = (self.reference_ml, self.prediction_ml)
        if not all(math.isfinite(volume) and volume >= 0 for volume in volumes):
            return "a volume is a number of millilitres"
        if self.surface_dice is not None and not 0 <= self.surface_dice <= 1:
            return "surface_dice lies between 0 and 1"
        return None


@dataclass(frozen=True)
class VolumeAgreement:
    """The volumes of one region over the cases, by Bland and Altman (The Lancet, 1986).

    A difference is prediction less reference. Cases whose region is empty on both sides have no
    volume to agree about and are left out.

    Attributes:
        n: number of cases.
        bias_ml: mean difference; None without cases.
        std_ml: standard deviation of the differences, of the sample (n - 1); None below two cases.
        low_ml, high_ml: the limits of agreement, bias -/+ 1.96 standard deviations: 95% of further
            differences lie between them, where differences are normally distributed; None below
            two cases.
    """

    n: int
    bias_ml: float | None = None
    std_ml: float | None = None
    low_ml: float | None = None
    high_ml: float | None = None

    @classmethod
    def of(cls, cases: Mapping[str, Agreement]) -> VolumeAgreement:
        """Over the cases of one region."""
        differences = [case.prediction_ml - case.reference_ml for case in measured(cases).values()]
        if not differences:
            return cls(0)
        bias = float(np.mean(differences))
        if len(differences) < 2:
            return cls(1, bias)
        std = float(np.std(differences, ddof=1))
        return cls(len(differences), bias, std, bias - _LIMITS * std, bias + _LIMITS * std)


def measured(cases: Mapping[str, Agreement]) -> dict[str, Agreement]:
    """The cases that have a volume on either side."""
    return {name: case for name, case in cases.items() if case.reference_ml or case.prediction_ml}
