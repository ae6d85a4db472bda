"""Solver descriptions (`solver.prototxt`)."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from prototxt_import.build_network import build_network
from prototxt_import.errors import CaffeFormatError
from prototxt_import.message_value import get_value
from prototxt_import.network import Network
from prototxt_import.schema import new_message
from prototxt_import.text import net_from_message, parse_text, read_text

LR_POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
REGULARIZATIONS = ("L1", "L2")
_OLD_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
# Settings that a policy cannot do without.
_NEEDED = {
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}


@dataclass(frozen=True)
class Solver:
    """How a network is trained, in Caffe's terms.

    The fields are named as in Caffe's schema and have its defaults; a number for which Caffe has no
    default is 0. `stepvalues` are what the file calls `stepvalue`. `network` is the description
    inside the solver file (`net_param` or `train_net_param`), with the layers of all phases.

    Examples
    --------
    >>> from prototxt_import import Solver
    >>> Solver().momentum, Solver().type
    (0.0, 'SGD')
    """

    base_lr: float = 0.0
    lr_policy: str = ""
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    max_iter: int = 0
    momentum: float = 0.0
    momentum2: float = 0.999
    weight_decay: float = 0.0
    regularization_type: str = "L2"
    clip_gradients: float = -1.0
    delta: float = 1e-8
    rms_decay: float = 0.99
    iter_size: int = 1
    random_seed: int = -1
    type: str = "SGD"
    net: str | None = None
    train_net: str | None = None
    test_net: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    test_iter: tuple[int, ...] = ()
    test_interval: int = 0
    test_initialization: bool = True
    test_compute_loss: bool = False
    display: int = 0
    average_loss: int = 1
    snapshot: int = 0
    snapshot_prefix: str | None = None
    snapshot_format: str = "BINARYPROTO"
    snapshot_diff: bool = False
    snapshot_after_train: bool = True
    solver_mode: str = "GPU"
    device_id: int = 0
    debug_info: bool = False
    network: Network | None = None


def load_solver(path: str | os.PathLike) -> Solver:
    """Return the solver that a `solver.prototxt` describes.

    Parameters
    ----------
    path
        The text file.

    Raises
    ------
    CaffeFormatError
        The text is not Caffe's, the policy is unknown, or a setting that the policy needs is
        missing.

    Examples
    --------
    >>> from prototxt_import import load_solver
    >>> _ = open("solver.prototxt", "w").write(
    ...     'base_lr: 0.01 lr_policy: "step" stepsize: 100 gamma: 0.1 momentum: 0.9')
    >>> solver = load_solver("solver.prototxt")
    >>> solver.base_lr, solver.stepsize
    (0.01, 100)
    """
    path = os.fspath(path)
    message = parse_text(new_message("SolverParameter"), read_text(path, "solver prototxt"), path)
    names = {field.name for field in dataclasses.fields(Solver)} - {"network"}
    values = {}
    for field in message.DESCRIPTOR.fields:
        value = get_value(message, field) if field.message_type is None else None
        name = "stepvalues" if field.name == "stepvalue" else field.name
        if name in names and value is not None:
            values[name] = value
    if message.HasField("solver_type"):
        if message.HasField("type"):
            raise CaffeFormatError("give either type or the old solver_type, not both", path)
        enum = message.DESCRIPTOR.fields_by_name["solver_type"].enum_type
        values["type"] = _OLD_TYPES[enum.values_by_number[message.solver_type].name]
    for name in ("net_param", "train_net_param"):
        if message.HasField(name):
            values["network"] = build_network(net_from_message(getattr(message, name), path))
    solver = Solver(**values)
    _check(solver, path)
    return solver


def _check(solver: Solver, path: str) -> None:
    allowed = (
        ("lr_policy", LR_POLICIES),
        ("regularization_type", REGULARIZATIONS),
        ("type", tuple(_OLD_TYPES.values())),
    )
    for name, values in allowed:
        if getattr(solver, name) not in values:
            raise CaffeFormatError(
                f"{name} must be one of {', '.join(values)}, got {getattr(solver, name)!r}", path
            )
    for name in _NEEDED.get(solver.lr_policy, ()):
        if not getattr(solver, "stepvalues" if name == "stepvalue" else name):
            raise CaffeFormatError(
                f"lr_policy {solver.lr_policy!r} needs {name}; add it to the file", path
            )
    if solver.iter_size < 1 or solver.max_iter < 0:
        raise CaffeFormatError(
            f"iter_size must be at least 1 and max_iter at least 0, got {solver.iter_size} "
            f"and {solver.max_iter}",
            path,
        )
    if list(solver.stepvalues) != sorted(solver.stepvalues):
        raise CaffeFormatError(f"stepvalue must not decrease, got {solver.stepvalues}", path)
