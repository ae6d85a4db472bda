"""Lesion-wise Dice and Hausdorff95, by the rule that the BraTS challenges published for 2023.

Every lesion counts as much as every other, however small, and so does every false one. The rule
was published with the challenge's evaluator (github.com/rachitsaluja/BraTS-2023-Metrics), of which
nothing is taken here but the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pixelnet_tf.evaluation.surfels import hausdorff95_surfels, surfel_distances
from pixelnet_tf.volumes.lesions import number_lesions

#: Hausdorff95 in mm of a lesion that was missed, and of a false one.
PENALTY_MM = 374.0
#: The element of a dilation: a voxel and the 18 that share a face or an edge with it.
_STEP = ndimage.generate_binary_structure(3, 2)
#: What rounding makes of a volume that is the threshold.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class LesionWiseRule:
    """What the challenges of 2023 set differently; the defaults are those of the gliomas.

    Attributes:
        dilation: how often the reference is dilated, in voxels, before what touches is one lesion.
        threshold_mm3: lesions of the reference of this volume or less are left out.
    """

    dilation: int = 3
    threshold_mm3: float = 50.0


@dataclass(frozen=True)
class LesionWiseScore:
    """Means over the lesions of one region of one case, and what they are over.

    Attributes:
        dice, hausdorff95_mm: over found, missed and false lesions; 1 and 0 without any.
        found, missed: lesions of the reference, of more than the threshold.
        false: components of the prediction that belong to no lesion of the reference.
    """

    dice: float
    hausdorff95_mm: float
    found: int
    missed: int
    false: int


def score_lesions(reference: np.ndarray, prediction: np.ndarray,
                  spacing_mm: tuple[float, ...], voxel_mm3: float, rule: LesionWiseRule
                  ) -> LesionWiseScore:
    """Score one region lesion by lesion.

    A lesion of the reference is all of it that lies in one component of the dilated reference.
    To it belong the whole components of the prediction that meet the lesion's own dilation; one
    component may belong to several lesions. Components have 26 neighbours. What belongs to a
    lesion of the threshold or less is neither found nor false.

    Args:
        reference: bool `(x, y, z)`, the whole volume, or as much of it around both masks as the
            dilation reaches.
        prediction: bool, the same shape.
        spacing_mm: voxel size along each axis.
        voxel_mm3: volume of a voxel.
        rule: dilation and threshold.
    """
    numbers = np.where(reference, number_lesions(_dilated(reference, rule.dilation))[0], 0)
    components, count = number_lesions(prediction)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    belongs = np.zeros(count + 1, bool)
    dice: list[float] = []
    lengths: list[float] = []
    missed = 0
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        around = tuple(slice(max(span.start - rule.dilation, 0), span.stop + rule.dilation)
                       for span in box)
        lesion = numbers[around] == number
        met = np.unique(components[around][_dilated(lesion, rule.dilation)])
        chosen = np.zeros(count + 1, bool)
        chosen[met[met > 0]] = True
        belongs |= chosen
        size = int(np.count_nonzero(lesion))
        if size * voxel_mm3 <= rule.threshold_mm3 * (1 + _ROUNDING):
            continue
        if not chosen.any():
            dice.append(0.0)
            lengths.append(PENALTY_MM)
            missed += 1
            continue
        common = int(np.count_nonzero(chosen[components[around]] & lesion))
        dice.append(2 * common / (size + int(sizes[chosen].sum())))
        lengths.append(hausdorff95_surfels(surfel_distances(
            numbers == number, chosen[components], spacing_mm)))
    false = count - int(np.count_nonzero(belongs))
    total = len(dice) + false
    if not total:
        return LesionWiseScore(1.0, 0.0, 0, 0, 0)
    return LesionWiseScore(sum(dice) / total, (sum(lengths) + PENALTY_MM * false) / total,
                           len(dice) - missed, missed, false)


def _dilated(mask: np.ndarray, times: int) -> np.ndarray:
    # scipy takes 0 iterations for as many as change anything.
    return ndimage.binary_dilation(mask, _STEP, iterations=times) if times else mask
