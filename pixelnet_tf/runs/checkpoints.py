"""Checkpoints of a run: everything that a stopped training needs to go on as if it had not."""

from __future__ import annotations

import posixpath
from typing import Any

import tensorflow as tf

from pixelnet_tf.errors import DataError, ModelError, RunError
from pixelnet_tf.io import manifest
from pixelnet_tf.io.files import check_written, read_json_as, remove, sync, write_json
from pixelnet_tf.io.plain import convert
from pixelnet_tf.model.pixelnet import PixelNet

#: What to do with a broken state.json.
_ADVICE = "take the folder from a copy of the run, or train anew into a new --out"


class Checkpoints:
    """The last and the best state of a run, under RUN/checkpoints.

    A state is written completely before `state.json`, which is moved into place, names it; what it
    replaces is removed afterwards. So a run that dies while saving resumes from the state before.

    Args:
        folder: RUN/checkpoints, any path that `tf.io.gfile` knows.
        variables: model and solver variables, in a fixed order.
    """

    def __init__(self, folder: str, variables: list[tf.Variable]):
        self.folder = folder
        self._checkpoint = tf.train.Checkpoint(variables=variables)
        tf.io.gfile.makedirs(folder)
        self.state: dict[str, Any] = read_states(folder)

    def save(self, kind: str, step: int, **details: Any) -> None:
        """Save the state after `step` solver steps as `last` or `best`.

        Raises:
            RunError: the state cannot be written (a full disk, say).
        """
        name = f"{kind}-{step}"
        previous = self.state.get(kind, {}).get("name")
        try:
            self._checkpoint.write(posixpath.join(self.folder, name))
            # On the disk before `state.json` names them, or a power cut leaves empty files.
            for file in tf.io.gfile.glob(posixpath.join(self.folder, name + ".*")):
                sync(file)
            manifest.record(*tf.io.gfile.glob(posixpath.join(self.folder, name + ".*")))
            self.state[kind] = {"name": name, "step": step, **details}
            write_json(posixpath.join(self.folder, "state.json"), self.state)
        except tf.errors.OpError as error:
            raise RunError(f"checkpoint {name} cannot be written: {error.message}",
                           file=self.folder, hint="make room and go on with --resume") from None
        if previous and previous != name:
            remove(*tf.io.gfile.glob(posixpath.join(self.folder, previous + ".*")))

    def restore(self, kind: str) -> dict[str, Any] | None:
        """Load the `last` or `best` state into the variables; returns its details, None if none.

        Raises:
            RunError: the state is broken or belongs to another model.
        """
        details = self.state.get(kind)
        if details is None:
            return None
        path = posixpath.join(self.folder, details["name"])
        try:
            _read(self._checkpoint, path)
        except ValueError as error:
            raise RunError(f"the checkpoint does not fit this configuration or is broken ({error})",
                           file=path, hint="give the run's own config, or a new --out") from None
        return details


def load_state(folder: str, kind: str, model: PixelNet) -> None:
    """Load the weights of the `last` or `best` state into a model; the solver's are left out.

    Raises:
        ModelError: there is no such state, it is broken or belongs to another model.
    """
    details = read_states(folder).get(kind)
    if details is None:
        raise ModelError(f"holds no {kind!r} state yet; a training saves `last` every "
                         "`training.checkpoint_every` steps, `best` when it validates", file=folder)
    path = posixpath.join(folder, details["name"])
    try:
        # The model's variables are the first of a state's.
        _read(tf.train.Checkpoint(variables=[v.value for v in model.variables]), path)
    except ValueError as error:
        raise ModelError("the checkpoint does not fit the run's config.yaml or is broken "
                         f"({error})", file=path,
                         hint="take the run from a copy, or train anew") from None


def _read(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Read a state into a checkpoint's variables; raises ValueError with the reason in a line."""
    try:
        for file in tf.io.gfile.glob(path + ".*"):
            check_written(file)
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except (DataError, tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        # TensorFlow says IndexError of a file that was cut short.
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def read_states(folder: str) -> dict[str, dict[str, Any]]:
    """What a folder's state.json holds: details of the `last` and the `best` state, where saved."""
    path = posixpath.join(folder, "state.json")
    return read_json_as(path, _states, _ADVICE) if tf.io.gfile.exists(path) else {}


def _states(tree: Any) -> dict[str, dict[str, Any]]:
    states = convert(dict[str, dict[str, Any]], tree, "the whole")
    return {kind: {**details, **{key: convert(hint, details.get(key), f"{kind}.{key}")
                                 for key, hint in (("name", str), ("step", int))}}
            for kind, details in states.items()}
