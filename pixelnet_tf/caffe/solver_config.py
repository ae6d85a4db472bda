"""A solver.prototxt as the training section of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pixelnet_tf.caffe.reading import read_solver
from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ModelError


def training_section(path: str | Path) -> dict[str, Any]:
    """What `training:` of a configuration says for a Caffe solver.

    Raises `ModelError` for a solver that this project's training cannot follow (another type than
    SGD, L1 decay, accumulated gradients).
    """
    solver = read_solver(path)
    refused = {
        "type": (solver.type, "SGD"),
        "regularization_type": (solver.regularization_type, "L2"),
        "iter_size": (solver.iter_size, 1),
    }
    for name, (value, allowed) in refused.items():
        if value != allowed:
            raise ModelError(f"{path}: {name} {value!r} is not supported, only {allowed!r}")
    section: dict[str, Any] = {
        "solver": {
            "base_lr": solver.base_lr,
            "momentum": solver.momentum,
            "weight_decay": solver.weight_decay,
            # Caffe's own "never" is -1.
            "clip_gradients": max(solver.clip_gradients, 0.0),
            "lr_policy": solver.lr_policy,
            "gamma": solver.gamma,
            "power": solver.power,
            "stepsize": solver.stepsize,
            "stepvalues": list(solver.stepvalues),
        }
    }
    if solver.max_iter:
        section["steps"] = solver.max_iter
    if solver.random_seed >= 0:
        section["seed"] = solver.random_seed
    config_from_dict({"training": section}, source=str(path))
    return section


def training_yaml(path: str | Path) -> str:
    """`training_section` as YAML, to be pasted into a configuration."""
    return yaml.safe_dump({"training": training_section(path)}, sort_keys=False)
