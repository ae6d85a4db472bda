"""Which layers belong to a network: Caffe's phases, levels and stages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True)
class NetState:
    """What a network's layers were chosen by; `phase` None: they were not, all are there."""

    phase: str | None = None
    level: int = 0
    stages: tuple[str, ...] = ()


UNCHOSEN = NetState()


@dataclass(frozen=True)
class StateRule:
    """One `include` or `exclude` of a layer; None and empty tuples ask for nothing.

    Examples
    --------
    >>> from prototxt_import import StateRule
    >>> StateRule(phase="TRAIN").phase
    'TRAIN'
    """

    phase: str | None = None
    min_level: int | None = None
    max_level: int | None = None
    stage: tuple[str, ...] = ()
    not_stage: tuple[str, ...] = ()

    def is_met(self, phase: str, level: int, stages: Collection[str]) -> bool:
        """Whether a network in this state meets the rule: all that it asks for holds."""
        return (
            self.phase in (None, phase)
            and (self.min_level is None or level >= self.min_level)
            and (self.max_level is None or level <= self.max_level)
            and all(stage in stages for stage in self.stage)
            and not any(stage in stages for stage in self.not_stage)
        )
