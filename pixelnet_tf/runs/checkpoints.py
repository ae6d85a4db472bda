"""Checkpoints of a run: everything that a stopped training needs to go on as if it had not."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from typing import Any

import tensorflow as tf

from pixelnet_tf.errors import DataError, ModelError, RunError
from pixelnet_tf.io import manifest
from pixelnet_tf.io.disk import reason
from pixelnet_tf.io.files import check_written, read_json_as, remove, sync, write_json
from pixelnet_tf.io.plain import convert
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: What to do with a broken state.json.
_ADVICE = "take the folder from a copy of the run, or train anew into a new --out"


class Checkpoints:
    """The last and the best states of a run, under RUN/checkpoints.

    The last two of each kind are kept. A state is written and synced, files and folder, before
    `state.json`, which is moved into place and synced, names it with the one before; only then the
    one before that is removed. So a run that dies while saving, or whose newest state is broken,
    goes on from the state before.

    Args:
        folder: RUN/checkpoints.
        variables: model and solver variables, in a fixed order.
        reporter: hears of states that are broken.
    """

    def __init__(self, folder: str, variables: list[tf.Variable],
                 reporter: Reporter | None = None):
        self.folder, self._reporter = folder, reporter_or_log(reporter)
        self._checkpoint = tf.train.Checkpoint(variables=variables)
        tf.io.gfile.makedirs(folder)
        self.state: dict[str, Any] = read_states(folder)

    def save(self, kind: str, step: int, **details: Any) -> None:
        """Save the state after `step` solver steps as `last` or `best`.

        Raises:
            RunError: the state cannot be written (a full disk, say).
        """
        name = f"{kind}-{step}"
        now, before = {"name": name, "step": step, **details}, dict(self.state.get(kind, {}))
        older = before.pop("before", None)
        try:
            if before.get("name") == name:
                # The same state, of which something else is said, is not written over itself.
                before, older = older, None
            else:
                self._write(name)
            self.state[kind] = {**now, **({"before": before} if before else {})}
            write_json(posixpath.join(self.folder, "state.json"), self.state)
            if older:
                remove(*_files(self.folder, older["name"]))
        except tf.errors.OpError as error:
            raise RunError(f"checkpoint {name} cannot be written: {error.message}",
                           file=self.folder, hint="make room and go on with --resume") from None
        except OSError as error:
            raise RunError(f"checkpoint {name} cannot be written: {reason(error)}",
                           file=self.folder, hint="make room and go on with --resume") from None

    def restore(self, kind: str) -> dict[str, Any] | None:
        """Load the `last` or `best` state into the variables; returns its details, None if none.

        Where it is broken, the one before is taken in its place, and that is said.

        Raises:
            RunError: the states are broken or belong to another model.
        """
        newest = self.state.get(kind)
        if newest is None:
            return None
        found = _newest(self.folder, newest, self._checkpoint, self._reporter)
        if found is not newest:
            self.state[kind] = found
        return found

    def remove_leftovers(self) -> None:
        """Remove what a killed program left beside the states that `state.json` names."""
        remove_states(self.folder, [each["name"] for details in self.state.values()
                                    for each in (details, details.get("before")) if each])

    def _write(self, name: str) -> None:
        self._checkpoint.write(posixpath.join(self.folder, name))
        files = _files(self.folder, name)
        # On the disk, with their names, before `state.json` says so: or a power cut leaves it
        # without them.
        for file in files:
            sync(file)
        sync(self.folder)
        manifest.record(*files)


def remove_states(folder: str, names: Collection[str] = ()) -> None:
    """Remove everything under RUN/checkpoints but some states; with none, `state.json` first."""
    if not tf.io.gfile.isdir(folder):
        return
    if not names:
        remove(posixpath.join(folder, "state.json"))
    kept = {file for name in names for file in _files(folder, name)}
    for name in tf.io.gfile.listdir(folder):
        path = posixpath.join(folder, name.rstrip("/"))
        if tf.io.gfile.isdir(path):
            # TensorFlow's own, while it writes.
            tf.io.gfile.rmtree(path)
        elif path not in kept and name != "state.json":
            remove(path)


def _files(folder: str, name: str) -> list[str]:
    return sorted(tf.io.gfile.glob(posixpath.join(folder, name + ".*")))


def load_state(folder: str, kind: str, model: PixelNet, reporter: Reporter | None = None) -> None:
    """Load the weights of the `last` or `best` state into a model; the solver's are left out.

    Where it is broken, the one before is taken in its place, and that is said.

    Raises:
        ModelError: there is no such state, the states are broken or belong to another model.
    """
    details = read_states(folder).get(kind)
    if details is None:
        raise ModelError(f"holds no {kind!r} state yet; a training saves `last` every "
                         "`training.checkpoint_every` steps, `best` when it validates", file=folder)
    # The model's variables are the first of a state's.
    checkpoint = tf.train.Checkpoint(variables=[v.value for v in model.variables])
    try:
        _newest(folder, details, checkpoint, reporter_or_log(reporter))
    except RunError as error:
        raise ModelError(str(error.args[0]), file=error.file,
                         hint="take the run from a copy, or train anew") from None


def _newest(folder: str, newest: dict[str, Any], checkpoint: tf.train.Checkpoint,
            reporter: Reporter) -> dict[str, Any]:
    """Read a state, or the one before where it is broken; returns the details of the one read.

    Raises:
        RunError: both are broken, or belong to another model.
    """
    faults = []
    for details in (newest, newest.get("before")):
        if details is None:
            continue
        path = posixpath.join(folder, details["name"])
        try:
            _read(checkpoint, path)
        except ValueError as error:
            faults.append(RunError(
                f"the checkpoint does not fit this configuration or is broken ({error})",
                file=path, hint="give the run's own config, or a new --out"))
            continue
        if faults:
            reporter.warning(f"{faults[0].file}: {faults[0].args[0]}; the one before is taken, of "
                             f"step {details['step']}")
        return details
    raise faults[0]


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
    """What a folder's state.json holds: details of the `last` and the `best` state, where saved.

    Under `before` stands the same of the state before that one, where it is kept.
    """
    path = posixpath.join(folder, "state.json")
    return read_json_as(path, _states, _ADVICE) if tf.io.gfile.exists(path) else {}


def _states(tree: Any) -> dict[str, dict[str, Any]]:
    states = convert(dict[str, dict[str, Any]], tree, "the whole")
    return {kind: _details(details, kind) for kind, details in states.items()}


def _details(details: dict[str, Any], where: str) -> dict[str, Any]:
    hints: dict[str, type] = {"name": str, "step": int}
    if where.startswith("best"):
        hints["score"] = float
    if "unvalidated" in details:
        hints["unvalidated"] = bool
    found = {**details, **{key: convert(hint, details.get(key), f"{where}.{key}")
                           for key, hint in hints.items()}}
    if "before" in details:
        before = convert(dict[str, Any], details["before"], f"{where}.before")
        found["before"] = _details(before, f"{where}.before")
    return found
