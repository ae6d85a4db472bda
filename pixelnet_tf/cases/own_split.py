"""A split that the user gives, in place of a drawn one: `split.file`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelnet_tf.cases.names import case_name
from pixelnet_tf.cases.split import (
    PARTS,
    Split,
    draw_folds,
    draw_validation,
    group_patients,
)
from pixelnet_tf.config import SplitConfig
from pixelnet_tf.config.load import parse_yaml
from pixelnet_tf.errors import ConfigError, DataError, nearest_hint, shown
from pixelnet_tf.io.files import read_text
from pixelnet_tf.io.plain import PlainError, convert

#: What nnU-Net and others call a part.
_SYNONYMS = {"val": "validation", "training": "train", "testing": "test"}
_FORMS = ("write {train: [...], validation: [...], test: [...]}, or a list of folds, each a list "
          "of names or nnU-Net's {train: [...], val: [...]}, or a list of the test cases")


@dataclass(frozen=True)
class OwnSplit:
    """What a file says of the split; the cases are names that no study has been asked for yet.

    Attributes:
        file: its path.
        parts: train, validation and test, as far as it names them.
        folds: held-out cases of each fold; empty where it has none.
    """

    file: str
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folds: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def read(cls, path: str) -> OwnSplit:
        """Read a JSON or YAML file.

        The forms: an object with the parts train, validation (or val) and test, and folds beside
        them where wanted, as split.json of a run has them; a list of folds, each a list of names or
        nnU-Net's {train, val}; or a list of names, which are the test cases.

        Raises:
            DataError: the file is missing, or holds something else.
        """
        if path.endswith((".pkl", ".pickle")):
            raise DataError("a pickle is not read: it can run any program", file=path,
                            hint="write it as JSON, as nnU-Net's second version does")
        text = read_text(path)
        try:
            tree = parse_yaml(text) if path.endswith((".yaml", ".yml")) else json.loads(text)
        except Exception as error:  # PyYAML's constructors raise almost any class.
            raise DataError(f"cannot be read as {'YAML' if path.endswith('ml') else 'JSON'}: "
                            f"{error}", file=path, hint=_FORMS) from None
        try:
            return cls._of(tree, path)
        except PlainError as error:
            raise DataError.of(error, file=path, hint=_FORMS) from None

    @classmethod
    def _of(cls, tree: Any, path: str) -> OwnSplit:
        if isinstance(tree, dict):
            if isinstance(tree.get("split"), dict):  # PREPARED/split.json
                tree = tree["split"]
            parts = {_SYNONYMS.get(str(key), key): value for key, value in tree.items()}
            if unknown := [key for key in parts if key not in (*PARTS, "folds", "patients")]:
                raise PlainError(f"unknown part {shown(unknown[0])}"
                                 f"{nearest_hint(str(unknown[0]), PARTS)}", value=unknown[0])
            if len(parts) != len(tree):
                raise PlainError("names one part twice")
            found = {part: _cases(parts[part], part) for part in PARTS if part in parts}
            folds = convert(list, parts.get("folds", []), "folds")
            if not found and not folds:
                raise PlainError("names no part")
            return cls(path, found, _folds(folds))
        if not isinstance(tree, list) or not tree:
            raise PlainError(f"must hold parts or folds, got {shown(tree)}", value=tree)
        if all(isinstance(item, str) for item in tree):
            return cls(path, {"test": _cases(tree, "the list")})
        return cls(path, {}, _folds(tree))

    @property
    def test(self) -> tuple[str, ...]:
        """The cases that it sets aside by name."""
        return self.parts.get("test", ())

    def split(self, names: Sequence[str], settings: SplitConfig,
              same: Iterable[Collection[str]] = (), *, set_aside: Collection[str] = (),
              left_out: Collection[str] = ()) -> Split:
        """The split of a study.

        What the file leaves open is drawn by `settings`: folds where it has none and `split.folds`
        asks for them, validation cases where it names neither these nor the ones to train on.

        Args:
            names: cases of the study that can be used.
            same: sets of cases that are of one patient, as `draw_split` takes them.
            set_aside: those of them that are test cases where the file does not name them: the
                study's layout says so, or they have no segmentation.
            left_out: cases of the study that cannot be used and are passed over.

        Raises:
            DataError: a case that the study does not have, one in two parts, one in none, or a
                patient in two parts.
            ConfigError: what is to be drawn cannot be, or another number of folds is asked for.
        """
        if self.folds and settings.folds not in (0, len(self.folds)):
            raise ConfigError(f"has {len(self.folds)} folds, and split.folds asks for "
                              f"{settings.folds}", file=self.file, value=settings.folds,
                              hint="leave split.folds (--folds) out, or give another file")
        self._check_names(names, left_out)
        known = set(names)
        parts = {part: [name for name in cases if name in known]
                 for part, cases in self.parts.items()}
        folds = tuple(tuple(sorted(known.intersection(fold))) for fold in self.folds)
        placed = {name for cases in (*parts.values(), *folds) for name in cases}
        rest = [name for name in names if name not in placed]
        test = [*parts.get("test", ()), *(name for name in rest if name in set_aside)]
        rest = [name for name in rest if name not in set_aside]
        pool = [name for fold in folds for name in fold] or [
            name for part in ("train", "validation") for name in parts.get(part, ())]
        if not pool and list(self.parts) == ["test"]:
            pool, rest = rest, []
        if rest:
            raise DataError(f"puts {len(rest)} of the study's {len(names)} cases nowhere: "
                            f"{', '.join(rest[:5])}{' ...' if len(rest) > 5 else ''}",
                            file=self.file, value=rest[0],
                            hint="add them to a part, or take them out of the study")
        groups = group_patients(names, settings.patient, same)
        own = [group for group in ([name for name in group if name in pool] for group in groups)
               if group]
        order = [own[i] for i in np.random.default_rng(settings.seed).permutation(len(own))]
        if "train" in parts:
            train, validation = (tuple(sorted(parts.get(part, ())))
                                 for part in ("train", "validation"))
        else:
            train, validation = draw_validation(order, len(pool), settings)
        if not train:
            raise DataError("leaves no case to train on", file=self.file, hint="name some")
        made = Split(train, validation, tuple(sorted(test)),
                     folds or draw_folds(order, settings.folds),
                     tuple(tuple(group) for group in groups if len(group) > 1))
        if torn := [group for group in groups if made.tears(group)]:
            raise DataError("puts one patient into several parts or folds: "
                            f"{'; '.join(', '.join(group) for group in torn[:5])}",
                            case=torn[0][0], file=self.file,
                            hint="keep the cases of a patient together (split.patient and equal "
                                 "images say which they are)")
        return made

    def _check_names(self, names: Sequence[str], left_out: Collection[str]) -> None:
        """Every name is of the study, and stands once among the parts and once among the folds."""
        known = {*names, *left_out}
        unknown = [name for name in self._named() if name not in known]
        if unknown:
            raise DataError.listing([DataError(
                f"is not in the study{nearest_hint(name, names)}", case=name, file=self.file,
                hint="correct the name, or take it out of the file") for name in unknown[:10]],
                f"{self.file}: {len(unknown)} of its cases are not in the study:")
        for where, sides in (("parts", self.parts.values()), ("folds", self.folds)):
            counts = Counter(name for side in sides for name in side)
            if twice := sorted(name for name, count in counts.items() if count > 1):
                raise DataError(f"stands {counts[twice[0]]} times among the {where}"
                                + (f", and so do {', '.join(twice[1:5])}" if twice[1:] else ""),
                                case=twice[0], file=self.file,
                                hint="a case that is trained on must not be tested: leave it in "
                                     "one of them")
        if self.folds and self.parts:
            held = {name for fold in self.folds for name in fold}
            learned = {name for part in ("train", "validation")
                       for name in self.parts.get(part, ())}
            for name in sorted(held.intersection(self.test) | (held ^ learned if learned
                                                               else set())):
                raise DataError("its part and its fold contradict each other: folds cut the cases "
                                "of train and validation together, and no test case",
                                case=name, file=self.file, hint="correct one of them")

    def _named(self) -> list[str]:
        return list(dict.fromkeys(name for side in (*self.parts.values(), *self.folds)
                                  for name in side))


def _cases(value: Any, where: str) -> tuple[str, ...]:
    """Names of cases; a number in YAML is none, since 007 and 7 are two cases."""
    return tuple(case_name(name) for name in convert(tuple[str, ...], value, where))


def _folds(items: list[Any]) -> tuple[tuple[str, ...], ...]:
    folds, learned = [], []
    for number, item in enumerate(items):
        where = f"fold {number}"
        if isinstance(item, dict):
            parts = {_SYNONYMS.get(str(key), key): value for key, value in item.items()}
            if set(parts) != {"train", "validation"}:
                raise PlainError(f"{where} must have train and val, got {shown(sorted(item))}",
                                 value=item)
            learned.append((number, set(_cases(parts["train"], f"{where}.train"))))
            item = parts["validation"]
        folds.append(_cases(item, where))
        if not folds[-1]:
            raise PlainError(f"{where} is empty")
    if len(folds) == 1:
        raise PlainError("has one fold, where there must be two or more")
    pool = {name for fold in folds for name in fold}
    for number, train in learned:
        if twice := sorted(train.intersection(folds[number])):
            raise PlainError(f"fold {number} trains on {twice[0]!r}, which it holds out",
                             value=twice[0])
        if other := sorted(train ^ (pool - set(folds[number]))):
            raise PlainError(f"fold {number} must train on all cases that other folds hold out "
                             f"and on no more, and does not so with {other[0]!r}", value=other[0])
    return tuple(folds)


def own_split_of(settings: SplitConfig) -> OwnSplit | None:
    """What `split.file` names; None where a split is to be drawn.

    Raises:
        ConfigError: it names no file. DataError: as `OwnSplit.read`.
    """
    if not settings.file:
        return None
    if not os.path.isfile(settings.file):
        raise ConfigError("split.file is no file", file=settings.file,
                          hint="give the path of a JSON or YAML file")
    return OwnSplit.read(settings.file)
