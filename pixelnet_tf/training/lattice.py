"""The adaptive mode's lattice, decided on cases whose exact scores are known.

The mode is a function of the exact scores: which pixels it looks at, and what it fills in. So it is
acted on scores that are held, without the network, and the cheapest lattice that keeps to the bound
is found within seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from scipy import ndimage

from pixelnet_tf.config import LatticeConfig
from pixelnet_tf.inference.adaptive import Beside, adaptive_scores
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.volume import PredictionGrid, score_between
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.runs.decisions import LatticeTrial
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: The lattices that are tried, (stride, slices), and their margins.
LATTICES = ((4, 1), (4, 2), (4, 4), (8, 2))
MARGINS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
#: Pixels of the slices that are looked at together.
_TOGETHER = 2**20
#: Voxels from which on a lesion must not be lost.
_LESION = 10


@dataclass(frozen=True, eq=False)
class ExactCase:
    """A case whose exact scores are known.

    Attributes:
        volume: it, with labels.
        grid: what is predicted of it.
        scores: (slice, height, width, score) float32, corrected; outside the domain those of
            certain background.
    """

    volume: PreparedVolume
    grid: PredictionGrid
    scores: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How the adaptive mode's labels of cases agree with the exact ones.

    Attributes:
        equal: the smallest share over the cases of equal brain voxels.
        dice: the smallest Dice of both over the cases and classes.
        difference: the largest change of a class's Dice against the truth.
        lost: lesions of ten voxels or more of which nothing is left, in all cases.
        work: multiplications, as a share of those with the default lattice.
    """

    equal: float
    dice: float
    difference: float
    lost: int
    work: float

    def within(self, bound: float) -> bool:
        """Whether a bound on the share of equal voxels is kept, and what goes with it."""
        return (self.equal >= bound and self.difference <= 2 * (1 - bound)
                and self.dice >= 1 - 5 * (1 - bound) and not self.lost)


class _Remembered:
    """What `score_between` asks of a segmenter, answered from exact scores in place of images."""

    def __init__(self, classes: int, decoding: Decoding, lattice: LatticeConfig):
        self.classes, self.decoding, self.lattice = classes, decoding, lattice
        self.every, self.background = lattice.slices, tf.constant(decoding.background)
        self.seen_slices = self.seen_pixels = 0
        self.model = self

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor,
               beside: Beside | None = None) -> tf.Tensor:
        scores, scored = adaptive_scores(
            self, [image], domain, read_out, tf.zeros([self.classes]),  # type: ignore[arg-type]
            self.decoding, self.lattice, beside)
        if beside is not None:
            scored &= ~beside.decided
        self.seen_slices += int(image.shape[0])
        self.seen_pixels += int(tf.math.count_nonzero(scored))
        return scores

    def head(self, taps: Sequence[tf.Tensor], domain: tf.Tensor) -> tf.Tensor:
        return taps[0]

    def listed(self, head: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(head, pixels)


def decide_lattice(cases: Sequence[ExactCase], table: Architecture, channels: int,
                   decoding: Decoding, bound: float, averaged: bool = False
                   ) -> tuple[LatticeConfig, LatticeTrial]:
    """The lattice of the least work that keeps to a bound on every case.

    averaged: it is for the average of several networks, which looks at every slice.

    Where none does, it is the closest one: every slice, the smaller stride, the largest margin.
    """
    base = agreement(cases, table, channels, decoding, LatticeConfig())
    found: list[tuple[LatticeConfig, Agreement]] = []
    for stride, slices in LATTICES:
        if averaged and slices > 1:
            continue
        # A larger margin looks at more: the smallest that keeps to the bound is searched.
        low, high = 0, len(MARGINS)
        while low < high:
            middle = (low + high) // 2
            lattice = LatticeConfig(stride, slices, MARGINS[middle])
            one = agreement(cases, table, channels, decoding, lattice)
            if one.within(bound):
                found.append((lattice, one))
                high = middle
            else:
                low = middle + 1
    if found:
        lattice, best = min(found, key=lambda each: each[1].work)
    else:
        lattice = LatticeConfig(*LATTICES[0], MARGINS[-1])
        best = agreement(cases, table, channels, decoding, lattice)
    return lattice, LatticeTrial(bound, best.equal, best.dice, best.difference, best.lost,
                                 best.work / base.work, bool(found))


def agreement(cases: Sequence[ExactCase], table: Architecture, channels: int, decoding: Decoding,
              lattice: LatticeConfig) -> Agreement:
    """Act the adaptive mode on cases and compare its labels with the exact ones."""
    equal, dice, difference, lost, work = 1.0, 1.0, 0.0, 0, 0.0
    for case in cases:
        plan, labels = case.volume.plan, case.volume.labels
        assert labels is not None
        height, width = case.grid.domain.shape[1:]
        acted = _Remembered(case.scores.shape[-1], decoding, lattice)
        voxels = np.empty((plan.slices, *plan.native_size, acted.classes), np.float32)
        voxels[...] = decoding.background
        if not np.array_equal(case.grid.read_out, case.grid.domain):
            acted.every = 1
        score_between(acted, replace(case.volume, images=case.scores), case.grid,
                      max(_TOGETHER // (height * width), 1), voxels)
        one = label_agreement(decoding.class_numbers(plan.read_voxels(case.scores)),
                              decoding.class_numbers(voxels), plan.read_voxels(labels),
                              plan.read_voxels(case.volume.brain))
        equal, dice = min(equal, one.equal), min(dice, one.dice)
        difference, lost = max(difference, one.difference), lost + one.lost
        box = [np.flatnonzero(case.grid.domain.any(axis=axes)) for axes in ((0, 2), (0, 1))]
        sides = [int(np.ptp(lines)) + 1 if len(lines) else 0 for lines in box]
        # The trunk sees the brain's box and what it reaches, not the canvas.
        work += acted.seen_slices * table.box_work(channels, *sides)
        work += acted.seen_pixels * table.pixel_work(channels)
    return Agreement(equal, dice, difference, lost, work)


def label_agreement(exact: np.ndarray, found: np.ndarray, truth: np.ndarray, brain: np.ndarray
                    ) -> Agreement:
    """How classes of a case (slice, height, width) agree with the exact ones; of no known work.

    truth: the classes of the reference. brain: (slice, height, width) bool.
    """
    dice, difference = 1.0, 0.0
    for index in range(1, int(max(exact.max(), found.max(), truth.max())) + 1):
        one, other, true = (each == index for each in (exact, found, truth))
        dice = min(dice, _dice(one, other))
        difference = max(difference, abs(_dice(one, true) - _dice(other, true)))
    parts, count = ndimage.label(exact > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    kept = np.bincount(parts[found > 0], minlength=count + 1)
    return Agreement(float((exact == found)[brain].mean()) if brain.any() else 1.0, dice,
                     difference, int(((sizes >= _LESION) & (kept == 0))[1:].sum()), 0.0)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def words(lattice: LatticeConfig, trial: LatticeTrial) -> str:
    """The decision in a sentence."""
    return (f"adaptive mode: lattice of {lattice.stride} pixels, every "
            f"{ {1: 'slice', 2: 'second slice', 4: 'fourth slice'}[lattice.slices]}, margin "
            f"{lattice.margin:g} ({trial.equal:.3%} of a case's brain voxels as in exact mode, "
            f"bound {trial.bound:.3%}{'' if trial.kept else ', not kept'})")

