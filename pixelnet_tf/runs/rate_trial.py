"""A trial of learning rates: its curves, its rule and what it chose, RUN/learning_rate.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixelnet_tf.io.plain import PlainError, build

#: Solver steps of each rate, all on the same mini-batches.
STEPS = 16
#: Steps whose losses are averaged before they are looked at.
WINDOW = 4
#: How far the loss may rise above its lowest so far, as a share of that of the start weights.
TOLERANCE = 0.1
#: The rule of `steadily` and `better` in words.
RATE_RULE = (
    f"{STEPS} steps at each rate, from the same start weights and on the same mini-batches; the "
    f"loss over {WINDOW} steps, as a share of that of the start weights on the same mini-batches, "
    f"falls steadily where it never rises by more than {TOLERANCE:g} above its lowest so far (1 "
    "at the start) and ends below 1; the rate is doubled as long as it does and ends lower than "
    "before, or halved until it does; chosen is the largest such rate")


def shares(losses: Sequence[float], start: Sequence[float]) -> np.ndarray:
    """Means over `WINDOW` steps as shares of those of the start weights, a number a window."""
    kernel = np.ones(WINDOW)
    sums = [np.convolve(each, kernel, mode="valid") for each in (losses, start[:len(losses)])]
    return sums[0] / np.maximum(sums[1], 1e-12)


def steadily(losses: Sequence[float], start: Sequence[float]) -> bool:
    """Whether losses fall steadily by `RATE_RULE`; fewer than those of the start weights say that
    the last one was not finite."""
    if len(losses) < len(start):
        return False
    found = shares(losses, start)
    before = np.minimum.accumulate(np.concatenate([[1.0], found[:-1]]))
    return bool((found <= before + TOLERANCE).all() and found[-1] < 1)


@dataclass(frozen=True)
class RateTrial:
    """What a trial of learning rates found.

    Attributes:
        rule: how the rate was chosen, in words.
        solver: type of the solver.
        chosen: the rate.
        start: loss of the start weights on the mini-batch of each step.
        rates: those tried, in their order.
        losses: of each rate the loss before each step, up to the last finite one.
    """

    rule: str
    solver: str
    chosen: float
    start: tuple[float, ...]
    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.losses) or self.chosen not in self.rates:
            raise PlainError("rates, losses and chosen do not fit together")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Any) -> RateTrial:
        """Read what `to_json` gave; raises `PlainError`."""
        return build(cls, tree)

    def describe(self) -> str:
        """One line: what was tried and what was chosen."""
        tried = []
        for rate, losses in sorted(zip(self.rates, self.losses, strict=True)):
            if steadily(losses, self.start):
                word = f"ends at {shares(losses, self.start)[-1]:.2f} of the start's"
            else:
                word = "not steady" if len(losses) == len(self.start) else "not finite"
            tried.append(f"{rate:g} {word}")
        return (f"learning rate {self.chosen:g} chosen by a trial on training slices "
                f"(learning_rate.json): loss at {', '.join(tried)}")
