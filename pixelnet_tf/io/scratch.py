"""Folders for files of the work alone, of which some are patients': gone with the work, or by the
next one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelnet_tf.errors import RunError
from pixelnet_tf.io.disk import Pathname, make_folder, reason

#: Beginning of the names of such folders. Each is locked by the process that made it, and the
#: system unlocks it when that process ends, however it ends.
_HELD, _NEW = ".pixelnet-scratch-", ".pixelnet-new-"
#: Of their names, as of all temporary ones (`io/disk.py`).
_END = ".tmp"
#: What the system says of a disk that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_own: set[Path] = set()


@contextmanager
def scratch_folder(beside: Pathname | None = None) -> Iterator[Path]:
    """A folder of one's own under the system's temporary folder; removed on leaving.

    What killed programs left there is removed first.

    Args:
        beside: a folder to make it in, instead, so that a file which takes long to write can be
            moved out of it within one disk. Errors stay OSErrors, which `io.files.replacing`
            tells of.

    Raises:
        RunError: the folder cannot be made under the temporary one, or its disk became full.
    """
    lock = folder = None
    made = False
    try:
        if beside is not None:
            make_folder(beside)
        remove_leftovers(beside)
        folder = Path(tempfile.mkdtemp(_END, _NEW, beside))
        lock = _lock(folder)
        # By this name `remove_leftovers` knows it, which must not meet it without its lock.
        folder = folder.rename(folder.with_name(_HELD + folder.name.removeprefix(_NEW)))
        _own.add(folder)
        made = True
        yield folder
    except OSError as error:
        if beside is not None or (made and error.errno not in _FULL):
            raise
        raise RunError(f"temporary files cannot be written: {reason(error)}", file=tempfile.tempdir,
                       hint="make room there, or set TMPDIR to a folder that has some") from None
    finally:
        if folder is not None:
            _own.discard(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(beside: Pathname | None = None) -> int:
    """Remove the folders of programs that were killed, and return how many there were.

    They are looked for under the system's temporary folder, or in the folder `beside`.
    Those of programs that run are locked, and those of other users are not ours.
    """
    removed = 0
    for folder in Path(beside or tempfile.gettempdir()).glob(f"{_HELD}*"):
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

    None where folders cannot be locked, as on some network shares; they are left alone then.

    Raises:
        OSError: another process has it, or it is gone.
    """
    try:
        import fcntl
    except ImportError:  # Windows.
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return None
    return descriptor
