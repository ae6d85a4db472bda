"""Several runs as one: what a path, a pattern or a cross-validation's folder stands for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import PredictionConfig
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.io.files import file_digest
from pixelnet_tf.runs.compatibility import AVERAGE, AVERAGE_ON_SPLIT, check_fit
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.runs.pack import Unpacked, is_pack, unpack

#: Name of a fold's run in the folder of a cross-validation.
_FOLD = re.compile(r"fold_(0|[1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Runs:
    """The runs whose scores are averaged, at least one.

    Attributes:
        runs: each a trained run.
        whole: the cross-validation whose folds they are, all of them; its split.json and
            decisions.json are those of the average. None for other runs.
        unpacked: the file that they come from, where they all come from one.
    """

    runs: tuple[RunFolder, ...]
    whole: RunFolder | None = None
    unpacked: Unpacked | None = None

    @classmethod
    def find(cls, paths: Sequence[str]) -> Runs:
        """Find the runs that paths name.

        A path is a run (as `RunFolder` takes it), the folder of a cross-validation, which stands
        for all its folds, a pattern such as `RUN/fold_*`, or a file that `write_pack` wrote.

        Raises:
            ConfigError: no path. ModelError: a pattern that no run fits, or a fold that has not
                ended.
        """
        if not paths:
            raise ConfigError("from_run needs at least one run",
                              hint="give the --out folder of `pixelnet-tf train`")
        if any(map(is_pack, paths)):
            return cls._with_packs(paths)
        found = [run for path in paths for run in _expanded(path)]
        runs = tuple(RunFolder(path) for path in found)
        parents = {posixpath.dirname(path.rstrip("/")) for path in found}
        if len(parents) == 1 and all(run.kind is None for run in runs):
            whole = RunFolder(parents.pop() or ".")
            names = sorted(posixpath.basename(path.rstrip("/")) for path in found)
            if not whole.exists() and names == sorted(folds_in(whole.path)):
                return cls(runs, whole)
        return cls(runs)

    @classmethod
    def _with_packs(cls, paths: Sequence[str]) -> Runs:
        packs = {path: unpack(path) for path in paths if is_pack(path)}
        if len(paths) == 1:
            one, = packs.values()
            return cls(one.runs, one.whole, one)
        runs: list[RunFolder] = []
        for path in paths:
            runs += packs[path].runs if path in packs else [RunFolder(each)
                                                            for each in _expanded(path)]
        # The folders of all packs are there as long as their runs are used.
        for run in runs:
            run.held = tuple(packs.values())
        return cls(tuple(runs))

    def check_fit(self, same_split: bool = False) -> None:
        """Raise `ConfigError` where their scores cannot be averaged.

        same_split: refuse runs of other splits, but the folds of one cross-validation, whose test
        cases none of them has seen.
        """
        purpose = AVERAGE_ON_SPLIT if same_split and self.whole is None else AVERAGE
        for other in self.runs[1:]:
            check_fit(self.runs[0].basis(), other.basis(), purpose)

    def networks(self, prediction: PredictionConfig) -> list[TrainedNetwork]:
        """The network of each run, with the correction that a section `prediction` asks for.

        Raises:
            PixelNetError: as `RunFolder.network`.
        """
        return [run.network(prediction.prior, prediction.class_offsets, self.strength)
                for run in self.runs]

    def correction(self, prediction: PredictionConfig) -> np.ndarray:
        """What is added to the mean of the networks' scores, (class,) float32."""
        return np.stack([run.correction(prediction.prior, prediction.class_offsets, self.strength)
                         for run in self.runs]).mean(axis=0)

    @property
    def strength(self) -> float | None:
        """Strength of the fitted prior, where it is that of all networks together."""
        decisions = self.decisions()
        return None if decisions is None else decisions.strength

    def decisions(self) -> Decisions | None:
        """What was decided for one run, or for the average of a cross-validation's folds.

        None where nothing was, and for folds other than those that decided, or trained anew since.
        """
        if self.whole is None:
            return self.runs[0].decisions() if len(self.runs) == 1 else None
        return self._decided_by_folds

    @cached_property
    def _decided_by_folds(self) -> Decisions | None:
        assert self.whole is not None
        found = self.whole.decisions()
        if self.unpacked is not None or found is None:
            return found
        held_out = {name for run in self.runs for name in run.split().test}
        same = held_out == {*found.cases} and found.files in ((), digests_of(self.runs))
        return found if same else None


def digests_of(runs: Iterable[RunFolder]) -> tuple[str, ...]:
    """SHA-256 of the networks of runs that have ended, ascending, as `Decisions` holds them."""
    return tuple(sorted(file_digest(run.file("model.keras")) for run in runs))


def folds_in(folder: str) -> list[str]:
    """Names of the folds' runs in the folder of a cross-validation, in the order of numbers."""
    if not tf.io.gfile.isdir(folder):
        return []
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    return sorted((name for name in names if _FOLD.fullmatch(name)
                   and tf.io.gfile.exists(posixpath.join(folder, name, "config.yaml"))),
                  key=lambda name: int(name.partition("_")[2]))


def fold_folder(folder: str, number: int) -> str:
    """Where the run of a fold lies in the folder of a cross-validation."""
    return posixpath.join(folder, f"fold_{number}")


def _expanded(path: str) -> list[str]:
    if any(character in path for character in "*?[") and not tf.io.gfile.exists(path):
        found = [each for each in tf.io.gfile.glob(path)
                 if each.endswith(".keras") or RunFolder(each).exists()]
        if not found:
            raise ModelError("no run fits this pattern", file=path,
                             hint="give the --out folders of `pixelnet-tf train`, as in "
                                  "'RUN/fold_*'")
        # fold_10 after fold_9.
        return sorted(found, key=lambda each: [
            (int(part), "") if part.isdigit() else (-1, part)
            for part in re.split(r"([0-9]+)", each)])
    if RunFolder(path).exists():
        return [path]
    folds = [posixpath.join(path.rstrip("/"), name) for name in folds_in(path.rstrip("/"))]
    for fold in folds:
        if not tf.io.gfile.exists(RunFolder(fold).file("model.keras")):
            raise ModelError("the training of this fold has not ended", file=fold,
                             hint="let `pixelnet-tf train --folds ... --resume` finish it, or name "
                                  "the other folds by a --model each")
    return folds or [path]
