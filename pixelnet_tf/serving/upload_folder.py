"""Folders of uploaded volumes, which are patients': gone with the request, or at the next start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Beginning of the names of folders that hold volumes. Each is locked by the process that made it,
#: and the system unlocks it when that process ends, however it ends.
_HELD, _NEW = "pixelnet-upload-", ".pixelnet-new-"
_own: set[Path] = set()


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder of one request's own under the system's temporary folder; removed on leaving.

    Raises:
        OSError: there is no room.
    """
    folder = Path(tempfile.mkdtemp(prefix=_NEW))
    lock = None
    try:
        lock = _lock(folder)
        # By this name `remove_leftovers` knows it, which must not meet it without its lock.
        folder = folder.rename(folder.with_name(_HELD + folder.name.removeprefix(_NEW)))
        _own.add(folder)
        yield folder
    finally:
        _own.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers() -> int:
    """Remove the folders of servers that were killed, and return how many there were.

    Those of servers that run are locked, and those of other users are not ours.
    """
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_HELD}*"):
        with suppress(OSError):
            if folder.is_symlink() or (hasattr(os, "getuid")
                                       and folder.lstat().st_uid != os.getuid()):
                continue
            lock = _lock(folder)
            if lock is None:
                continue
            try:
                shutil.rmtree(folder)
                removed += 1
            finally:
                os.close(lock)
    return removed


def remove_own() -> None:
    """Remove the folders of this process, for threads that it does not wait for."""
    for folder in list(_own):
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> int | None:
    """An open descriptor that locks a folder.

    None where folders cannot be locked.

    Raises:
        OSError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows.
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
