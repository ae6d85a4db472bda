"""Object stores for the tests: one in a folder, whose transfers are recorded or cut short."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pixelnet_tf import errors
from pixelnet_tf.io import mirror, remote
from pixelnet_tf.io.stores import Fault, FsspecStore


class Cut(ConnectionError):
    """The connection to a store is gone."""


class RecordedStore(FsspecStore):
    """A store in a folder, through fsspec, that keeps what is done to it.

    Attributes:
        log: (what, name, bytes) of each object that was put, made or deleted, locks left out; the
            name within the folder of all of them.
        left: transfers until the store is gone; None: it stays.
    """

    log: ClassVar[list[tuple[str, str, bytes]]] = []
    left: int | None = None

    def _change(self, what: str, name: str, data: bytes = b"") -> None:
        kind = type(self)
        if os.path.basename(name) == ".lock":
            if kind.left is not None and kind.left <= 0:
                raise Cut("the store is gone")
            return
        if kind.left is not None:
            if kind.left <= 0:
                raise Cut("the store is gone")
            kind.left -= 1
        kind.log.append((what, f"{self.url.rpartition('/')[2]}/{name}", data))

    def put(self, path: str, name: str) -> None:
        self._change("put", name, Path(path).read_bytes())
        super().put(path, name)

    def delete(self, name: str) -> None:
        self._change("delete", name)
        super().delete(name)

    def create(self, name: str, data: bytes) -> bool:
        self._change("put", name, data)
        return super().create(name, data)

    def list(self) -> dict[str, int]:
        if type(self).left is not None and type(self).left <= 0:
            raise Cut("the store is gone")
        return super().list()

    def fault(self, error: Exception) -> Fault:
        return Fault.PASSING if isinstance(error, Cut) else super().fault(error)


@contextmanager
def recorded_stores(cache: Path, left: int | None = None) -> Iterator[type[RecordedStore]]:
    """Stores that are recorded, and gone after some transfers; mirrors are forgotten before and
    after, as by a new program."""
    kind: Any = type("Recorded", (RecordedStore,), {"log": [], "left": left})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(mirror.CACHE, str(cache))
        patch.setattr(mirror, "open_store", kind)
        patch.setattr(mirror, "FIRST_WAIT", 0.001)
        with forgotten():
            yield kind


@contextmanager
def forgotten() -> Iterator[None]:
    """As if this were a new program: it knows of no mirror, and leaves none to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_opened", {})
        patch.setattr(errors, "_names", {})
        yield


def replay(log: list[tuple[str, str, bytes]], count: int, folder: Path) -> None:
    """Make the folder of a store as it was after the first transfers, the locks left out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for what, name, data in log[:count]:
        path = folder / name
        if what == "put":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            path.unlink(missing_ok=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below it, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}
