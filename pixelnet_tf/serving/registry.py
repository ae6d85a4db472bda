"""The models that a server offers, watched on disk: a new version folder is picked up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from pixelnet_tf.errors import ModelError, PixelNetError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.export import versions_in
from pixelnet_tf.serving.loaded_model import LoadedModel


class ModelRegistry:
    """Keeps the highest version of each model loaded, as TensorFlow Serving does by default.

    A new version is loaded and warmed up beside the old one and takes its place; requests that
    hold the old one end with it. One that cannot be loaded is logged, tried again at the next
    look, and the old one stays.

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
        self._failed: dict[str, tuple[int, str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        self._folders()

    def start(self) -> None:
        """Load what is there and watch for more, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the watching."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Bring memory in step with the disk, once."""
        for name, folder in self._folders().items():
            versions = versions_in(folder)
            now = self._loaded.get(name)
            if versions and (now is None or now.version != versions[-1]):
                self._load(name, folder, versions[-1])

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        return bool(self._loaded) and set(self._loaded) >= set(self._folders())

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
            if name in self._failed:
                raise ApiError(503, f"version {self._failed[name][0]} of model {name!r} could not "
                                    "be loaded; the server's log says why")
            known = sorted(self._folders())
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
        if name in self._failed and version is None:
            failed, reason = self._failed[name]
            rows.insert(0, _row(failed, "END", "UNKNOWN", reason))
        return {"model_version_status": rows}

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except (OSError, ModelError) as error:
                self._log("models_unreadable", error=str(error))
            if self._stop.wait(self._poll_seconds):
                return

    def _load(self, name: str, folder: Path, version: int) -> None:
        try:
            model = LoadedModel(folder / str(version), name, version)
            model.warm_up()
        except (PixelNetError, ApiError, tf.errors.OpError) as error:
            if self._failed.get(name) != (version, str(error)):
                self._log("model_failed", model=name, version=version, error=str(error))
            self._failed[name] = (version, str(error))
            return
        self._failed.pop(name, None)
        self._loaded[name] = model
        self._log("model_loaded", model=name, version=version)

    def _folders(self) -> dict[str, Path]:
        root = self._root.resolve()
        if versions_in(root):
            return {root.name: root}
        found = {path.name: path for path in sorted(root.iterdir()) if versions_in(path)} \
            if root.is_dir() else {}
        if not found:
            raise ModelError(f"{self._root}: holds no model; give the --out folder of "
                             "`pixelnet-tf export`, or DIR/<name> in it")
        return found


def _row(version: int, state: str, code: str, message: str) -> dict[str, Any]:
    return {"version": str(version), "state": state,
            "status": {"error_code": code, "error_message": message}}
