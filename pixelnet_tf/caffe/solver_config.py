"""A solver.prototxt as the training section of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pixelnet_tf.caffe.reading import read_solver
from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ModelError

#: What a type of solver has beside a momentum.
_OWN_SETTINGS = {"AdaGrad": ("delta",), "RMSProp": ("rms_decay", "delta"), "AdaDelta": ("delta",),
                 "Adam": ("momentum2", "delta")}


def training_section(path: str | Path) -> dict[str, Any]:
    """What `training:` of a configuration says for a Caffe solver.

    Raises `ModelError` for a file that `read_solver` refuses, also for a type or policy that is not
    one of Caffe's, and for a solver that this project's training cannot follow (L1 decay).
    """
    solver = read_solver(path)
    if solver.regularization_type != "L2":
        raise ModelError(f"regularization_type {solver.regularization_type!r} is not supported, "
                         "only 'L2'", file=path)
    section: dict[str, Any] = {
        "solver": {
            "type": solver.type,
            "base_lr": solver.base_lr,
            "momentum": solver.momentum,
            **{name: getattr(solver, name) for name in _OWN_SETTINGS.get(solver.type, ())},
            "weight_decay": solver.weight_decay,
            # Caffe's own "never" is -1.
            "clip_gradients": max(solver.clip_gradients, 0.0),
            "iter_size": solver.iter_size,
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
    config_from_dict({"training": section}, source=Path(path))
    return section


def training_yaml(path: str | Path) -> str:
    """`training_section` as YAML, to be pasted into a configuration."""
    return yaml.safe_dump({"training": training_section(path)}, sort_keys=False)
