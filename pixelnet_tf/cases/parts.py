"""Parts of a list of cases, for programs that share the work without a scheduler."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pixelnet_tf.errors import ConfigError

T = TypeVar("T")
_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_ADVICE = "give I/N with 1 <= I <= N, as in 1/3"
#: What Slurm sets in a task of an array: its number, the smallest one, their step, how many.
_ID, _FIRST, _STEP, _COUNT = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "STEP", "COUNT"))


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `count`: every count-th case, so that all parts are alike."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `I/N`; raises `ConfigError`."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"{text!r} is no part of the cases", value=text, hint=_ADVICE)
        part = cls(*map(int, found.groups()))
        if not 1 <= part.number <= part.count:
            raise ConfigError(f"there is no part {text}", value=text, hint=_ADVICE)
        return part

    @classmethod
    def of_array(cls, environment: Mapping[str, str] = os.environ) -> Part | None:
        """The part of this task of a Slurm array; None outside of one.

        Raises:
            ConfigError: the array's numbers are no row, as in --array=1,5,6.
        """
        if _ID not in environment or _COUNT not in environment:
            return None
        try:
            number, first, count = (int(environment[name]) for name in (_ID, _FIRST, _COUNT))
            step = int(environment.get(_STEP, "1"))
            place, rest = divmod(number - first, step)
        except (KeyError, ValueError, ZeroDivisionError):
            place, rest, count, number = -1, 0, 0, 0
        if rest or not 0 <= place < count:
            raise ConfigError(
                f"{_ID}={environment[_ID]} is none of {environment[_COUNT]} numbers in a row from "
                f"{environment.get(_FIRST, '(unknown)')}", value=environment[_ID],
                hint="number the array in a row, as in --array=1-8, or give --part I/N")
        return cls(place + 1, count)

    def of(self, items: Sequence[T]) -> list[T]:
        """The items of this part, in their order."""
        return list(items[self.number - 1::self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
