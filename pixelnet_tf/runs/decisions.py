"""What was decided about the prediction: RUN/decisions.json.

A training decides on its validation cases; a cross-validation decides for the average of its
networks on the cases that each of them has not seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pixelnet_tf.config import PredictionConfig, config_to_dict, config_to_json
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io.plain import PlainError, build

#: Settings of the section `prediction` that are decided, in the order in which they are.
DECIDED = ("prior", "class_offsets", "guided_filter", "flips", "region_thresholds", "postprocess",
           "lattice")


@dataclass(frozen=True)
class Trial:
    """One step of the decisions.

    Attributes:
        step: the setting that was tried.
        values: the ones tried, that without a change first.
        dice: mean Dice over cases and regions of each value.
        best: the value with the best mean.
        gain: mean over the cases of what it gains against no change.
        low, high: 95% bootstrap interval of that mean over cases; None below two cases.
        taken: whether the gain exceeds its noise, so that the value is taken.
    """

    step: str
    values: tuple[Any, ...]
    dice: tuple[float, ...]
    best: Any
    gain: float
    low: float | None
    high: float | None
    taken: bool

    def line(self) -> str:
        """The step in words."""
        interval = "" if self.low is None else f" [{self.low:+.4f}, {self.high:+.4f}]"
        before = self.dice[0]
        return (f"{self.step}: {self.best} {'taken' if self.taken else 'not taken'} (Dice "
                f"{before:.4f}, gain {self.gain:+.4f}{interval})")


@dataclass(frozen=True)
class LatticeTrial:
    """How the adaptive mode with the decided lattice agrees with the exact one.

    Attributes:
        bound: `prediction.adaptive_bound`.
        equal: the smallest share over the cases of brain voxels with the same label.
        dice: the smallest Dice of both labels over the cases and classes.
        difference: the largest change of a class's Dice against the truth in any case.
        lost: lesions of ten voxels or more, of all cases, of which nothing is left.
        work: multiplications, as a share of those with the configuration's default lattice.
        kept: whether the bound is kept; else no lattice that was tried did.
    """

    bound: float
    equal: float
    dice: float
    difference: float
    lost: int
    work: float
    kept: bool


@dataclass(frozen=True)
class Decisions:
    """What was decided, and the table of what was tried.

    Attributes:
        rule: when a value is taken, in words.
        cases: the cases that decided: those of the validation, or of all folds out of fold.
        settings: of the section `prediction`, by their keys, what differs from the configuration.
        tried: the steps, in their order.
        strength: of the fitted prior, where it is that of several networks; else None, and it
            stands in priors.json.
        networks: how many there are.
        adaptive: how the decided lattice agrees; None where none was decided.
        files: SHA-256 of the networks' model.keras, ascending, where they are several: a fold that
            is trained anew makes other decisions. Empty for one network.
    """

    rule: str
    cases: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    tried: tuple[Trial, ...] = ()
    strength: float | None = None
    networks: int = 1
    adaptive: LatticeTrial | None = None
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Any) -> Decisions:
        """Build them from what `to_json` gave; raises `PlainError` for anything else."""
        if not isinstance(tree, dict) or not isinstance(tree.get("tried"), (list, tuple)):
            raise PlainError("tried must be a list")
        found = build(cls, {**tree, "tried": []})
        unknown = [key for key in found.settings if key not in DECIDED]
        if unknown:
            raise PlainError(f"settings names {unknown[0]!r}, which is none of {list(DECIDED)}")
        try:
            build(PredictionConfig, found.settings, "settings")
        except ConfigError as error:
            raise PlainError(f"settings: {error}") from None
        return replace(found, tried=tuple(build(Trial, trial, f"tried[{number}]")
                                          for number, trial in enumerate(tree["tried"])))

    def apply(self, trained: PredictionConfig, asked: PredictionConfig,
              overruled: Collection[str] = ()) -> PredictionConfig:
        """The section `prediction` with the decisions in it.

        Args:
            trained: the run's own.
            asked: the caller's. What it changes of the run's settings stays as it is there.
            overruled: keys that the caller set by name, to whatever value.

        A prior that is not the decided one leaves the decided class offsets, thresholds of regions
        and lattice out: they were chosen on top of it.
        """
        tree = config_to_dict(asked)
        for key, value in self.settings.items():
            if key not in overruled and getattr(asked, key) == getattr(trained, key):
                tree[key] = value
        if tree["prior"] != self.settings.get("prior", trained.prior):
            tree["class_offsets"] = dict(asked.class_offsets)
            tree["region_thresholds"] = dict(asked.region_thresholds)
            tree["lattice"] = config_to_dict(asked)["lattice"]
        return build(PredictionConfig, tree)

    def followed(self, prediction: PredictionConfig) -> str:
        """One line that says what a section `prediction` follows, and what it overrules."""
        tree, same = config_to_json(prediction), {}
        for key, value in self.settings.items():
            now = tree[key]
            if key in ("guided_filter", "postprocess", "lattice"):
                now = {part: now[part] for part in value}
            same[key] = now == value
        words = [", ".join(f"{key} {self.settings[key]}" for key in same if same[key])
                 or "no setting of the configuration changed"]
        if not all(same.values()):
            words.append("overruled: " + ", ".join(key for key in same if not same[key]))
        kind = ("validation cases decided" if self.networks == 1 else
                f"held-out cases of {self.networks} folds decided")
        return f"follows what {len(self.cases)} {kind} (decisions.json): " + "; ".join(words)
