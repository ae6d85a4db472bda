"""The case-level split: training, validation and test cases, and folds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pixelnet_tf.config import SplitConfig
from pixelnet_tf.errors import ConfigError, nearest_hint
from pixelnet_tf.io.plain import PlainError, build, convert

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Case names of each part; no case stands in two of them, and no patient.

    `folds` cut the cases of `train` and `validation` together; the test cases stay apart.
    `patients` are the cases of each patient who has several.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folds: tuple[tuple[str, ...], ...] = ()
    patients: tuple[tuple[str, ...], ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        """Every case of the split, by name."""
        return tuple(sorted((*self.train, *self.validation, *self.test)))

    def choose(self, part: str, only: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the cases of a part (`train`, `validation` or `test`); of these, the ones named.

        Raises:
            ConfigError: no such part, or a case that does not belong to it; its own part is named.
        """
        if part not in PARTS:
            raise ConfigError(f"a split has the parts {', '.join(PARTS)}, not {part!r}"
                              f"{nearest_hint(part, PARTS)}", value=part)
        names = getattr(self, part)
        for name in only:
            if name not in names:
                own = next((other for other in PARTS if name in getattr(self, other)), None)
                where = f"in the part {own!r}" if own else "in no part"
                raise ConfigError(f"case {name!r} is {where} of the run's split, not among the "
                                  f"{len(names)} cases of {part!r}{nearest_hint(name, names)}",
                                  hint="leave --split out to take it all the same")
        return tuple(only) or names

    def tears(self, names: Collection[str]) -> bool:
        """Whether these cases stand in several parts, or in several folds."""
        return any(sum(any(name in side for name in names) for side in sides) > 1
                   for sides in ((self.train, self.validation, self.test), self.folds))

    def fold(self, number: int) -> Split:
        """Return the split that tests on fold `number` (from 0) and trains on the other folds.

        As many cases as this split validates on are taken for validation from the folds after
        it, in order and by whole patients; at least one patient is left to train on.

        Raises:
            ConfigError: there is no such fold.
        """
        if not 0 <= number < len(self.folds):
            raise ConfigError(
                f"fold {number} does not exist; " + (f"the folds are 0 to {len(self.folds) - 1}"
                if self.folds else "the study was prepared without folds (split.folds is 0)"),
                value=number)
        patient = {name: group[0] for group in self.patients for name in group}
        after: dict[str, list[str]] = {}
        for i in range(1, len(self.folds)):
            for name in self.folds[(number + i) % len(self.folds)]:
                after.setdefault(patient.get(name, name), []).append(name)
        *groups, last = after.values()
        validation, train = _take(groups, len(self.validation))
        return Split(_names([*train, last]), _names(validation),
                     tuple(sorted(self.folds[number])), patients=self.patients)

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any], patient: str = "") -> Split:
        """Build a split from what `to_json` gave; raises `PlainError` for anything else.

        patient: the pattern that the split was drawn by, for a file of an earlier version, which
        does not hold the patients.
        """
        split = build(cls, tree)
        patients = [list(group) for group in split.patients]
        if "patients" not in tree:
            patients = group_patients(list(split.cases), patient)
        return replace(split, patients=tuple(tuple(group) for group in patients if len(group) > 1))


#: What to do with a broken split.json of a prepared study.
SPLIT_ADVICE = ("take it from a copy of the folder, or draw a new split by `pixelnet-tf prepare "
                "--redraw-split` (models trained before must not be tested on it)")


@dataclass(frozen=True)
class DrawnSplit:
    """A split and the settings that it was drawn by, as PREPARED/split.json holds them."""

    settings: SplitConfig
    split: Split

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> DrawnSplit:
        """Build one from a JSON tree; raises `PlainError` for anything else."""
        whole = convert(dict[str, Any], tree, "the whole")
        found, split = (convert(dict[str, Any], whole.get(key), key)
                        for key in ("settings", "split"))
        try:
            settings = build(SplitConfig, found, "settings")
        except ConfigError as error:
            raise PlainError(f"settings: {error}", value=error.value) from None
        return cls(settings, Split.from_json(split, settings.patient))


def draw_split(case_names: list[str], config: SplitConfig,
               same: Iterable[Collection[str]] = (), set_aside: Collection[str] = ()) -> Split:
    """Draw the split; it depends on the set of names and on the other arguments alone.

    Cases of one patient (`group_patients`) stay together, so the parts can be off their size by
    less than one patient. A fraction above 0 gives at least one patient, validation only while
    there are patients left to train on. The patients of the cases `set_aside` are test cases beside
    those that are drawn, and no fraction is of them.

    Raises:
        ConfigError: nothing would be left to train on, fewer patients than folds, or a pattern
            `split.patient` that matches no name.
    """
    names = sorted(case_names)
    if names and unmatched_cases(names, config.patient) == names:
        raise ConfigError(f"split.patient = {config.patient!r} matches none of the {len(names)} "
                          f"case names, such as {names[:3]}",
                          hint="correct it, or leave it empty where every case is another patient")
    groups = group_patients(names, config.patient, same)
    aside: list[list[str]] = []
    free: list[list[str]] = []
    for group in groups:
        (aside if {*set_aside}.intersection(group) else free).append(group)
    order = [free[i] for i in np.random.default_rng(config.seed).permutation(len(free))]
    total = len(names) - sum(map(len, aside))
    test, rest = _take(order, _count(config.test, total) if len(order) > 1 else 0)
    train, validation = draw_validation(rest, total, config)
    return Split(train, validation, _names([*test, *aside]), draw_folds(rest, config.folds),
                 tuple(tuple(group) for group in groups if len(group) > 1))


def draw_validation(patients: list[list[str]], total: int, config: SplitConfig
                    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the cases of patients, in an order that was drawn, in those to train on and to validate.

    total: the number of cases that a fraction `split.validation` is of.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    validation, train = _take(patients, _count(config.validation, total)
                              if len(patients) > 1 or config.validation >= 1 else 0)
    if not train and len(patients) > 1 and config.validation < 1:
        # Two fractions that were rounded up took what was left between them.
        validation, train = patients[:-1], patients[-1:]
    if not train:
        raise ConfigError(f"split.test = {config.test:g} and split.validation = "
                          f"{config.validation:g} leave none of {total} cases to train on",
                          hint="lower them")
    return _names(train), _names(validation)


def draw_folds(patients: list[list[str]], count: int) -> tuple[tuple[str, ...], ...]:
    """Part the cases of patients, in an order that was drawn, in folds; raises `ConfigError`."""
    if count > len(patients):
        raise ConfigError(f"split.folds = {count}, but only {len(patients)} patients are left "
                          "beside the test cases")
    return tuple(_names(patients[i::count]) for i in range(count))


def patient_of(case_name: str, pattern: str) -> str:
    """Return the patient of a case: what the pattern's first group matches, else the name."""
    found = _match(case_name, pattern)
    return case_name if found is None else found


def unmatched_cases(case_names: Iterable[str], pattern: str) -> list[str]:
    """Return the cases, in their order, in which the pattern `split.patient` finds no patient."""
    return [name for name in case_names if pattern and _match(name, pattern) is None]


def group_patients(case_names: Iterable[str], pattern: str = "",
                   same: Iterable[Collection[str]] = ()) -> list[list[str]]:
    """Return the cases of each patient, patients in the order of what they are called.

    Args:
        case_names: every case.
        pattern: `split.patient`: cases for which it finds the same are of one patient.
        same: sets of cases that are of one patient whatever they are called, such as cases with
            equal images.
    """
    patients: dict[str, list[str]] = {}
    for name in sorted(case_names):
        patients.setdefault(patient_of(name, pattern), []).append(name)
    owner = {name: key for key, names in patients.items() for name in names}
    for cases in same:
        first, *others = sorted({owner[name] for name in cases})
        for key in others:
            patients[first] += patients.pop(key)
            owner |= {name: first for name in patients[first]}
    return [sorted(patients[key]) for key in sorted(patients)]


def _match(case_name: str, pattern: str) -> str | None:
    match = re.search(pattern, case_name) if pattern else None
    return None if match is None else match.group(1 if match.re.groups else 0)


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
