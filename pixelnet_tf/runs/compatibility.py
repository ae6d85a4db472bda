"""What fits to what: runs among each other, and a run with its data."""

from __future__ import annotations

from collections.abc import Sequence

from pixelnet_tf.config import config_to_dict
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.runs.folder import RunFolder


def check_ensemble(runs: Sequence[RunFolder], same_split: bool) -> None:
    """Raise `ConfigError` where networks of several runs cannot be averaged.

    They must take the same modalities, prepared the same way, and give the same labels; with
    `same_split` also set the same cases aside, or one would be judged on cases that another
    learned from.
    """
    first, *others = runs
    mine = config_to_dict(first.config())
    for other in others:
        theirs = config_to_dict(other.config())
        for section, keys in (("study", ("modalities", "labels", "skull_stripped")),
                              ("prepare", mine["prepare"].keys() - {"workers"})):
            for key in sorted(keys):
                if mine[section][key] != theirs[section][key]:
                    raise ConfigError(
                        f"{other.path}: has {section}.{key}={theirs[section][key]!r}, "
                        f"{first.path} has {mine[section][key]!r}; networks are averaged only "
                        "over the same input and labels, predict with each by itself")
        if same_split and other.split() != first.split():
            raise ConfigError(f"{other.path}: was trained on another split than {first.path}; "
                              "leave --split out, and name cases that none has seen by --case")
