"""Presets: the part of a configuration that does not hang on the study, each value with its reason.

A preset is a partial YAML file in `configs/presets/`. What stands behind a value on its line is the
reason for it, which `pixelnet-tf plan` writes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pixelnet_tf.config.load import BUILT_IN, config_from_dict, yaml_tree
from pixelnet_tf.config.sections import Choice, Config
from pixelnet_tf.io.files import read_text


class Preset(Choice):
    """What a plan is made for: the most found, the paper's values, or minutes on a laptop."""

    BEST = "best"
    FAITHFUL = "faithful"
    LAPTOP = "laptop"


@dataclass(frozen=True)
class Setting:
    """One value of a configuration and why it is chosen.

    Attributes:
        key: sections and name, with dots: "training.solver.base_lr".
        value: plain, as YAML holds it.
        reason: a few words; empty where the value speaks for itself.
    """

    key: str
    value: Any
    reason: str = ""


def preset_settings(preset: Preset) -> list[Setting]:
    """The settings of a preset in the order of its file; raises `ConfigError` for a broken file."""
    path = BUILT_IN / "presets" / f"{preset.value}.yaml"
    text = read_text(path)
    config_from_dict(yaml_tree(text, path), path)
    lines = text.splitlines()

    def walk(node: yaml.Node, key: str) -> Iterator[Setting]:
        if isinstance(node, yaml.MappingNode) and not node.flow_style:
            for name, value in node.value:
                yield from walk(value, f"{key}.{name.value}".lstrip("."))
            return
        _, _, reason = lines[node.end_mark.line][node.end_mark.column:].partition("#")
        yield Setting(key, yaml.safe_load(yaml.serialize(node)), reason.strip())

    root = yaml.compose(text, yaml.SafeLoader)
    return [] if root is None else list(walk(root, ""))


def settings_tree(settings: Iterable[Setting]) -> dict[str, Any]:
    """The nested sections that settings make; of one key the last one counts."""
    tree: dict[str, Any] = {}
    for setting in settings:
        *parents, name = setting.key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = setting.value
    return tree


def config_of(settings: Iterable[Setting], source: str = "the plan",
              overrides: Iterable[str] = ()) -> Config:
    """The checked configuration that settings make; raises `ConfigError`."""
    return config_from_dict(settings_tree(settings), source, overrides)
