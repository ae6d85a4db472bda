"""A plan: the settings, what they come from, what they will cost, and all of it as a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from pixelnet_tf.config import Config, Preset, Setting, config_of, config_to_dict
from pixelnet_tf.planning.trial import TrialResult

#: Lines of the file are no longer than this, where words can be broken.
_WIDTH = 100


@dataclass(frozen=True)
class Cost:
    """What a verb is expected to take: `minutes` by the clock, `memory_gb` of 1e9 bytes."""

    verb: str
    minutes: float
    memory_gb: float

    def __str__(self) -> str:
        time = (f"{60 * self.minutes:.0f} s" if self.minutes < 1.5 else f"{self.minutes:.0f} min"
                if self.minutes < 120 else f"{self.minutes / 60:.1f} h")
        return f"{self.verb:<9} {time:>8}, {self.memory_gb:.1f} GB of memory"


@dataclass(frozen=True)
class Plan:
    """A configuration with its reasons.

    Attributes:
        settings: in the order of the file, each with its reason.
        preset: what it was made for, with the reason.
        found: what the study and the machine are, a line each.
        costs: of each verb; empty where no trial was made.
        notes: what a reader should look at.
    """

    settings: tuple[Setting, ...]
    preset: Preset
    preset_reason: str
    found: tuple[str, ...]
    costs: tuple[Cost, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The checked configuration."""
        return config_of(self.settings)

    def with_settings(self, settings: Sequence[Setting]) -> Plan:
        """The plan with some settings in the place of those of the same keys, or behind them."""
        new = {setting.key: setting for setting in settings}
        kept = [new.pop(setting.key, setting) for setting in self.settings]
        for setting in new.values():
            section = setting.key.split(".")[0]
            last = max((place for place, each in enumerate(kept)
                        if each.key.split(".")[0] == section), default=len(kept) - 1)
            kept.insert(last + 1, setting)
        return replace(self, settings=tuple(kept))

    def overridden(self, overrides: Sequence[str]) -> Plan:
        """The plan with settings of the call, as `--set` takes them; raises `ConfigError`.

        Epochs that the call gives count: steps that it does not give become 0.
        """
        if not overrides:
            return self
        tree = config_to_dict(config_of(self.settings, overrides=overrides))
        keys = overridden_keys(overrides)
        settings = [Setting(key, tree[section][name], "as the call says")
                    for key in keys for section, _, name in [key.partition(".")]]
        training = tree["training"]
        if ("training.epochs" in keys and "training.steps" not in keys
                and training["epochs"] and training["steps"]):
            settings.append(Setting("training.steps", 0, "the epochs count that the call gives"))
        return self.with_settings(settings)

    def lines(self) -> list[str]:
        """The plan for a reader at the terminal: found, chosen with reasons, costs, notes."""
        told = [setting for setting in self.settings
                if not setting.key.startswith("study.") and setting.reason]
        keys = max((len(setting.key) for setting in told), default=0)
        values = [_value(setting.value) for setting in told]
        width = min(24, max(map(len, values), default=0))
        return ["found", *(f"  {line}" for line in self.found),
                f"preset {self.preset.value}: {self.preset_reason}",
                *(f"  {setting.key:<{keys}}  {value:<{width}}  {setting.reason}"
                  for setting, value in zip(told, values, strict=True)),
                *(["expected on this machine", *(f"  {cost}" for cost in self.costs)]
                  if self.costs else []),
                *(f"note: {note}" for note in self.notes)]

    def yaml(self) -> str:
        """The configuration as a YAML file, every choice with its reason as a comment."""
        head = ["A plan of pixelnet-tf: change what you like; `pixelnet-tf train --print-config "
                "--config FILE` shows every default.", "", "Found:",
                *(f"  {line}" for line in self.found),
                f"Preset {self.preset.value}: {self.preset_reason}.",
                *(["Expected on the machine that it was made on:",
                   *(f"  {cost}" for cost in self.costs)] if self.costs else []),
                *(f"Note: {note}" for note in self.notes)]
        lines = [line for text in head for line in _comment(text)]
        section = ""
        for setting in self.settings:
            own, _, key = setting.key.partition(".")
            if own != section:
                lines += [f"{own}:"]
                section = own
            written = _entry(key, setting.value)
            reason = f"# {setting.reason}" if setting.reason else ""
            wide, narrow = f"{written[0]:<34}  {reason}", f"{written[0]}  {reason}"
            if len(written) == 1 and len(narrow) <= _WIDTH:
                lines.append((wide if len(wide) <= _WIDTH else narrow).rstrip())
            else:
                lines += [*(_comment(setting.reason, "  ") if reason else []), *written]
        return "\n".join(lines) + "\n"


def overridden_keys(overrides: Sequence[str]) -> tuple[str, ...]:
    """The keys "section.name" that overrides set, each once; a whole section may be given at once.

    overrides: such as make a configuration.
    """
    known = config_to_dict(Config())
    keys: dict[str, None] = {}
    for text in overrides:
        section, *rest = text.partition("=")[0].strip().split(".")
        keys |= dict.fromkeys(f"{section}.{name}" for name in rest[:1] or known[section])
    return tuple(keys)


def expected_costs(config: Config, trial: TrialResult, minutes: float, cases: int, tested: int,
                   slices: float, case_seconds: float) -> tuple[Cost, ...]:
    """What each verb will take.

    Args:
        minutes: of the training, by the clock.
        cases, tested: to prepare, and to predict.
        slices: of a case.
        case_seconds: of preparing one case by all cores.
    """
    images = len(config.study.modalities) * slices
    volume_gb = 4e-9 * images * 256**2
    predict = tested * slices * trial.slice_seconds
    return (Cost("prepare", case_seconds * cases / 60, 0.3 + 6 * volume_gb),
            Cost("train", minutes, trial.training_bytes / 1e9),
            Cost("predict", predict / 60, trial.predicting_bytes / 1e9 + 3 * volume_gb),
            Cost("evaluate", 2 * tested / 60, 0.3))


def _entry(key: str, value: Any) -> list[str]:
    """A key with its value, on one line where it fits, indented by a section's two spaces."""
    line = f"  {key}: {_value(value)}"
    if len(line) <= _WIDTH or not isinstance(value, dict):
        return [line]
    return [f"  {key}:", *(f"    {_value(name)}: {_value(item)}" for name, item in value.items())]


def _value(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6,
                          allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _comment(text: str, indent: str = "") -> list[str]:
    """A text as comment lines."""
    lines, line = [], f"{indent}#"
    lead = len(text) - len(text.lstrip())
    for number, word in enumerate(text.split()):
        space = " " * (1 + (lead if number == 0 else 0))
        if len(line) + len(space) + len(word) > _WIDTH and number:
            lines.append(line)
            line, space = f"{indent}#", " " * (1 + lead + 2 * bool(lead))
        line += space + word
    return [*lines, line]
