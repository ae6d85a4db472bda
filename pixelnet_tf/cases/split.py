"""The case-level split: training, validation and test cases, and folds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixelnet_tf.config import SplitConfig
from pixelnet_tf.errors import ConfigError, nearest_hint


@dataclass(frozen=True)
class Split:
    """Case names of each part; no case stands in two of them.

    `folds` cut the cases of `train` and `validation` together; the test cases stay apart.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folds: tuple[tuple[str, ...], ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        """Every case of the split, by name."""
        return tuple(sorted((*self.train, *self.validation, *self.test)))

    def choose(self, part: str, only: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the cases of a part (`train`, `validation` or `test`); of these, the ones named.

        Raises:
            ConfigError: a case that does not belong to the part; its own part is named.
        """
        names = getattr(self, part)
        for name in only:
            if name not in names:
                own = next((f"a {other} case" for other in ("train", "validation", "test")
                            if name in getattr(self, other)), "no case")
                raise ConfigError(
                    f"case {name!r} is {own} of the run's split, not one of its {len(names)} "
                    f"{part} cases{nearest_hint(name, names)}; to take it all the same, leave "
                    "--split out")
        return tuple(only) or names

    def fold(self, number: int) -> Split:
        """Return the split that tests on fold `number` (from 0) and trains on the other folds.

        As many cases as this split validates on are taken for validation from the folds after
        it, in order; at least one case is left to train on.

        Raises:
            ConfigError: there is no such fold.
        """
        if not 0 <= number < len(self.folds):
            raise ConfigError(
                f"fold {number} does not exist; " + (f"the folds are 0 to {len(self.folds) - 1}"
                if self.folds else "the study was prepared without folds (split.folds is 0)"))
        after = [fold for i in range(1, len(self.folds))
                 for fold in self.folds[(number + i) % len(self.folds)]]
        count = min(len(self.validation), len(after) - 1)
        return Split(tuple(sorted(after[count:])), tuple(sorted(after[:count])),
                     tuple(sorted(self.folds[number])))

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Split:
        """Build a split from what `to_json` gave."""
        return cls(*(tuple(tree[part]) for part in ("train", "validation", "test")),
                   folds=tuple(tuple(fold) for fold in tree["folds"]))


def draw_split(case_names: list[str], config: SplitConfig) -> Split:
    """Draw the split; it depends on the set of names and on `config` alone.

    Cases of one patient (`split.patient`) stay together, so the parts can be off their size by
    less than one patient. A fraction above 0 gives at least one patient, validation only while
    there are patients left to train on.

    Raises:
        ConfigError: nothing would be left to train on, or fewer patients than folds.
    """
    patients: dict[str, list[str]] = {}
    for name in sorted(case_names):
        patients.setdefault(patient_of(name, config.patient), []).append(name)
    order = [patients[key] for key in sorted(patients)]
    order = [order[i] for i in np.random.default_rng(config.seed).permutation(len(order))]
    total = len(case_names)
    test, rest = _take(order, _count(config.test, total) if len(order) > 1 else 0)
    validation, train = _take(rest, _count(config.validation, total)
                              if len(rest) > 1 or config.validation >= 1 else 0)
    if not train:
        raise ConfigError(
            f"split.test = {config.test:g} and split.validation = {config.validation:g} leave "
            f"none of {total} cases to train on; lower them")
    if config.folds > len(rest):
        raise ConfigError(f"split.folds = {config.folds}, but only {len(rest)} patients are left "
                          "beside the test cases")
    folds = tuple(_names(rest[i::config.folds]) for i in range(config.folds))
    return Split(_names(train), _names(validation), _names(test), folds)


def patient_of(case_name: str, pattern: str) -> str:
    """Return the patient of a case: what the pattern's first group matches, else the name."""
    match = re.search(pattern, case_name) if pattern else None
    if match is None:
        return case_name
    return match.group(1) if match.re.groups else match.group(0)


def _count(size: float, total: int) -> int:
    if size >= 1 or size == 0:
        return int(size)
    return max(1, round(size * total))


def _take(groups: list[list[str]], count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Cut off the first groups that hold at least `count` cases together."""
    taken = 0
    for position, group in enumerate(groups):
        if taken >= count:
            return groups[:position], groups[position:]
        taken += len(group)
    return groups, []


def _names(groups: list[list[str]]) -> tuple[str, ...]:
    return tuple(sorted(name for group in groups for name in group))
