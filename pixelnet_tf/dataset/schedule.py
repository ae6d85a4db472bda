"""The order in which training reads slices: a function of seed and position alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError


class SliceSchedule:
    """Training slices in a fresh order every epoch.

    An epoch holds every slice with a lesion once and a share `sampling.lesion_free_slices` of
    those without, drawn anew each epoch. Slices without brain hold nothing and are left out.
    Position i of the training is the same slice in every run with the same seed, so that a resumed
    run starts at its step without reading what came before.

    Args:
        study: prepared study.
        cases: names of the training cases.
        sampling: its `lesion_free_slices`.
        seed: seed of the order.

    Raises:
        DataError: no slice with a lesion among the cases.
    """

    def __init__(self, study: PreparedStudy, cases: Sequence[str], sampling: SamplingConfig,
                 seed: int):
        index, rows = study.index, study.index.rows_of(cases)
        rows = rows[index.brain_fraction[rows] > 0]
        lesion = index.class_counts[rows][:, 1:].sum(axis=1) > 0
        self.seed = seed
        self.with_lesion, self.without_lesion = rows[lesion], rows[~lesion]
        self.epoch_slices = len(self.with_lesion) + round(
            sampling.lesion_free_slices * len(self.without_lesion))
        if not len(self.with_lesion):
            raise DataError(f"no slice of the {len(cases)} training cases has a lesion",
                            file=study.path, hint="check the label map and the split")
        self._epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def row(self, position: int) -> int:
        """Index row of the slice at this position, counted from the start of the training."""
        epoch, place = divmod(position, self.epoch_slices)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return int(self._epoch[1][place])

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        free = self.epoch_slices - len(self.with_lesion)
        drawn = rng.choice(self.without_lesion, free, replace=False)
        return rng.permutation(np.concatenate([self.with_lesion, drawn]))

    def rows(self) -> np.ndarray:
        """Every row that may occur, (n,) int64."""
        return np.sort(np.concatenate([self.with_lesion, self.without_lesion]))

    def row_weights(self) -> np.ndarray:
        """How often each of `rows` occurs in an epoch on average, (n,) float64."""
        share = (self.epoch_slices - len(self.with_lesion)) / max(len(self.without_lesion), 1)
        return np.where(np.isin(self.rows(), self.with_lesion), 1.0, share)
