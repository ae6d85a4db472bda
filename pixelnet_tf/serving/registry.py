"""The models that a server offers, watched on disk: a new version folder is picked up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelnet_tf.errors import ModelError, PixelNetError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.export import versions_in
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.memory import give_back_memory

#: Seconds after which a version that could not be loaded is tried again, changed or not; each
#: further try waits for twice as long, an hour at most, for a try costs time and memory.
RETRY_SECONDS, _MOST_RETRY_SECONDS = 60.0, 3600.0


@dataclass
class _Failure:
    """A version that could not be loaded.

    Attributes:
        reason: why.
        files: what its files were then.
        when: it was tried last.
        wait: seconds until it is tried again, if its files stay what they are.
    """

    reason: str
    files: tuple
    when: float
    wait: float


class ModelRegistry:
    """Keeps the highest version of each model loaded that can be.

    A new version is loaded and warmed up beside the old one and takes its place; requests that
    hold the old one end with it. Whatever goes wrong with a version stays with that version: it
    is logged and shown in the model's status, it is tried again when its files have changed or some
    time has passed, and the next lower one serves, which is the old one where there is one. A
    model that vanishes from the disk is served on from memory.

    Requests never touch the disk; `look` alone does.

    Args:
        root: a model's folder (of version folders), or a folder of such folders.
        log: receives an event's name and its fields.
        poll_seconds: time between two looks at the disk.

    Raises:
        ModelError: no model is there.
    """

    def __init__(self, root: Path, log: Callable[..., None] = lambda event, **fields: None,
                 poll_seconds: float = 2.0):
        self._root, self._log, self._poll_seconds = Path(root), log, poll_seconds
        self._loaded: dict[str, LoadedModel] = {}
        self._failed: dict[str, dict[int, _Failure]] = {}
        self._unreadable = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        self._names = sorted(self._folders())

    def start(self) -> None:
        """Load what is there and watch for more, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the watching; a version that is just being loaded is left to the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def look(self) -> None:
        """Bring memory in step with the disk, once; raises nothing."""
        try:
            folders = self._folders()
            self._unreadable = ""
        except Exception as error:
            if str(error) != self._unreadable:
                self._log("models_unreadable", error=str(error))
            self._unreadable = str(error)
            return
        self._names = sorted({*folders, *self._loaded})
        for name, folder in folders.items():
            self._look_at(name, folder)

    @property
    def ready(self) -> bool:
        """Whether a model answers, and none waits for the first try to load it."""
        return bool(self._loaded) and all(name in self._loaded or self._failed.get(name)
                                          for name in self._names)

    @property
    def models(self) -> list[LoadedModel]:
        """The loaded versions, by name."""
        return [self._loaded[name] for name in sorted(self._loaded)]

    def get(self, name: str, version: int | None = None) -> LoadedModel:
        """The loaded version of a model.

        Raises:
            ApiError: 404 for an unknown model or version, 503 while it is being loaded.
        """
        model = self._loaded.get(name)
        if model is None:
            if failed := sorted(self._failed.get(name, ())):
                raise ApiError(503, f"version {failed[-1]} of model {name!r} could not be "
                                    "loaded; the server's log says why")
            known = self._names
            if name in known:
                raise ApiError(503, f"model {name!r} is being loaded; try again",
                               {"Retry-After": "2"})
            raise ApiError(404, f"no model {name[:100]!r}; this server has {known}")
        if version is not None and version != model.version:
            raise ApiError(404, f"model {name!r} has no version {version} loaded; it serves "
                                f"version {model.version}")
        return model

    def status(self, name: str, version: int | None = None) -> dict[str, Any]:
        """The answer of TensorFlow Serving's model status API."""
        model = self.get(name, version)
        rows = [_row(model.version, "AVAILABLE", "OK", "")]
        if version is None:
            rows += [_row(failed, "END", "UNKNOWN", failure.reason)
                     for failed, failure in self._failed.get(name, {}).items()]
            rows.sort(key=lambda row: -int(row["version"]))
        return {"model_version_status": rows}

    def _watch(self) -> None:
        while True:
            self.look()
            if self._stop.wait(self._poll_seconds):
                return

    def _look_at(self, name: str, folder: Path) -> None:
        """Load the highest version of a model that can be loaded, unless it is loaded already."""
        try:
            versions = versions_in(folder)
        except OSError:
            return  # It has just vanished.
        failed = self._failed.get(name, {})
        # Set anew, for requests read it meanwhile.
        self._failed[name] = {v: failure for v, failure in failed.items() if v in versions}
        now = self._loaded.get(name)
        for version in reversed(versions):
            if now is not None and version == now.version:
                return
            if self._stop.is_set() or self._load(name, folder / str(version), version):
                return

    def _load(self, name: str, folder: Path, version: int) -> bool:
        files, before = _listing(folder), self._failed[name].get(version)
        unchanged = before is not None and before.files == files
        if before and unchanged and time.monotonic() < before.when + before.wait:
            return False
        try:
            model = LoadedModel(folder, name, version)
            model.warm_up()
        # Of files of other programs there is no list of what TensorFlow may raise.
        except Exception as error:
            reason = str(error) if isinstance(error, (PixelNetError, ApiError)) \
                else f"{folder}: {type(error).__name__}: {str(error)[:500]}"
            if before is None or before.reason != reason:
                self._log("model_failed", model=name, version=version, error=reason)
            wait = min(2 * before.wait, _MOST_RETRY_SECONDS) if before and unchanged \
                else RETRY_SECONDS
            self._failed[name] = {**self._failed[name],
                                  version: _Failure(reason, files, time.monotonic(), wait)}
            give_back_memory()
            return False
        self._failed[name] = {v: f for v, f in self._failed[name].items() if v != version}
        replaced = name in self._loaded
        self._loaded[name] = model
        if replaced:
            give_back_memory()
        self._log("model_loaded", model=name, version=version)
        return True

    def _folders(self) -> dict[str, Path]:
        root = self._root.resolve()
        if versions_in(root):
            return {root.name: root}
        found = {path.name: path for path in sorted(root.iterdir()) if versions_in(path)} \
            if root.is_dir() else {}
        if not found:
            raise ModelError("holds no model", file=self._root,
                             hint="give the --out folder of `pixelnet-tf export`, or DIR/<name> "
                                  "in it")
        return found


def _listing(folder: Path) -> tuple:
    """Names, sizes and times of a version's files, to see whether they have changed."""
    try:
        paths = sorted(folder.rglob("*"))
        return tuple((str(path), *_size_and_time(path)) for path in paths)
    except OSError:
        return ()


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns


def _row(version: int, state: str, code: str, message: str) -> dict[str, Any]:
    return {"version": str(version), "state": state,
            "status": {"error_code": code, "error_message": message}}
