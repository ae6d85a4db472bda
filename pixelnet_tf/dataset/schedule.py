"""The order in which training reads slices: a function of seed and position alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelnet_tf.config import PLANES, SamplingConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError


class SliceSchedule:
    """Training slices in a fresh order every epoch.

    An epoch holds every slice with a lesion once and a share `sampling.lesion_free_slices` of
    those without, drawn anew each epoch. Slices without brain hold nothing and are left out.
    Position i of the training is the same slice in every run with the same seed, so that a resumed
    run starts at its step without reading what came before.

    Where hypercolumns reach into other slices, the order is one of slabs, `slab` slices each:
    slices of one case and plane that follow each other, and of what is left over some of several.
    An epoch then lacks fewer slices than a slab has, others each time.

    Args:
        study: prepared study.
        cases: names of the training cases.
        sampling: its `lesion_free_slices` and `slab_slices`.
        seed: seed of the order.
        offsets: the slices that hypercolumns are read from (`ModelConfig.offsets`).
        planes: planes whose slices are drawn, all alike (`ModelConfig.planes`).

    Raises:
        DataError: no slice with a lesion among the cases, or none of a plane was prepared.
    """

    def __init__(self, study: PreparedStudy, cases: Sequence[str], sampling: SamplingConfig,
                 seed: int, offsets: Sequence[int] = (0,), planes: Sequence[str] = PLANES[:1]):
        index, rows = study.index, study.index.rows_of(cases, planes)
        if absent := [name for name in planes[1:] if PLANES.index(name) not in index.plane[rows]]:
            raise DataError(f"holds no {absent[0]} slices of the training cases, which "
                            f"model.planes={list(planes)} asks for", file=study.path,
                            value=absent[0], hint="run `pixelnet-tf prepare` again with that "
                                                  "model.planes")
        rows = rows[index.brain_fraction[rows] > 0]
        lesion = index.class_counts[rows][:, 1:].sum(axis=1) > 0
        self.seed, self.offsets = seed, tuple(offsets)
        self._stack = index.stack
        self.with_lesion, self.without_lesion = rows[lesion], rows[~lesion]
        self.epoch_slices = len(self.with_lesion) + round(
            sampling.lesion_free_slices * len(self.without_lesion))
        if not len(self.with_lesion):
            raise DataError(f"no slice of the {len(cases)} training cases has a lesion",
                            file=study.path, hint="check the label map and the split")
        self.slab = min(sampling.slab_slices, self.epoch_slices) if len(self.offsets) > 1 else 1
        self._drawn_slices = self.epoch_slices
        self.epoch_slices -= self.epoch_slices % self.slab
        self._epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def row(self, position: int) -> int:
        """Index row of the slice at this position, counted from the start of the training."""
        epoch, place = divmod(position, self.epoch_slices)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return int(self._epoch[1][place])

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        free = self._drawn_slices - len(self.with_lesion)
        if self.slab > 1:
            return self._slabs(free, rng)
        drawn = rng.choice(self.without_lesion, free, replace=False)
        return rng.permutation(np.concatenate([self.with_lesion, drawn]))

    def _slabs(self, free: int, rng: np.random.Generator) -> np.ndarray:
        """The rows of an epoch, slab by slab, `free` of them without a lesion."""
        runs = self._runs(self.with_lesion, rng)
        others = self._runs(self.without_lesion, rng)
        for number in rng.permutation(len(others)):
            runs.append(others[number][:free])
            free -= len(runs[-1])
        whole = [run for run in runs if len(run) == self.slab]
        parts = [run for run in runs if len(run) < self.slab]
        rest = np.concatenate([np.zeros(0, np.int64),
                               *(parts[number] for number in rng.permutation(len(parts)))])
        rest = rest[:len(rest) // self.slab * self.slab].reshape(-1, self.slab)
        return rng.permutation(np.concatenate([rest, *(run[None] for run in whole)])).ravel()

    def _runs(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Rows stack by stack in runs of a slab each, the first and the last perhaps shorter."""
        runs = []
        for stack in np.unique(self._stack[rows]):
            own = rows[self._stack[rows] == stack]
            runs += np.split(own, np.arange(rng.integers(self.slab), len(own), self.slab))
        return runs

    def rows(self) -> np.ndarray:
        """Every row that may occur, (n,) int64."""
        return np.sort(np.concatenate([self.with_lesion, self.without_lesion]))

    def row_weights(self) -> np.ndarray:
        """How often each of `rows` occurs in an epoch on average, (n,) float64."""
        share = (self._drawn_slices - len(self.with_lesion)) / max(len(self.without_lesion), 1)
        return np.where(np.isin(self.rows(), self.with_lesion), 1.0, share)
