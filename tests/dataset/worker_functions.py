"""What the tests have workers do; nothing here loads TensorFlow, which takes a worker seconds."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

from pixelnet_tf.cases.case import Case
from pixelnet_tf.io.locks import Ticket, joined
from pixelnet_tf.reporting import LogReporter


def die_at(case: Case, name: str = "", once: Path | None = None) -> str:
    """The case's name; its process is killed at the case `name`, or, with a file, the first time.
    """
    if case.name == name and (once is None or not once.exists()):
        if once is not None:
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return case.name


def fail(case: Case, error: Exception) -> None:
    """Raise an error."""
    raise error


def try_to_take(case: Case, ticket: Ticket) -> str:
    """Take a case where nobody has it; say which."""
    with joined(ticket, LogReporter()) as sharing:
        for each in sharing.take([case], lambda _: False, []):
            sharing.check(each.name)
            sharing.give_back(each.name)
            return "taken"
    return "busy"


def be_killed_once(module: str, name: str, once: Path) -> None:
    """Let this process be killed after it has called a function of a module, the first time that
    one of those that share the file `once` does."""
    found = importlib.import_module(module)
    function = getattr(found, name)

    def kill(*arguments, **named):
        result = function(*arguments, **named)
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return result
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(found, name, kill)


def make_stand_in(weights="w"):
    """A stand-in for a network and what is said of it: labels of whatever lies high."""
    import numpy as np

    from pixelnet_tf.inference.volume import SegmentedVolume

    def segment(volume):
        classes = np.where(volume.images.sum(axis=-1) > 1, 2, 0).astype(np.uint8)
        return SegmentedVolume(volume.plan.from_slices(classes), np.ones(
            (*volume.geometry.shape, 4), np.float32))

    return segment, {"networks": [{"model": "m", "weights": weights, "correction": [0.0]}]}
