"""What a disk is asked for: that it holds what was written, and names that nobody else uses.

Paths of the form `scheme://` are none of a disk: they are left alone here.
"""

from __future__ import annotations

import errno
import os
import uuid

Pathname = str | os.PathLike[str]


def is_url(path: str) -> bool:
    """Whether a path is of the form `scheme://`, which goes through TensorFlow's file systems."""
    return "://" in path


def make_folder(path: Pathname) -> None:
    """Make a folder and its parents, and sync the names of those that were missing."""
    path = os.fspath(path)
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.makedirs(folder, exist_ok=True)
        sync(os.path.dirname(folder) or ".")


def sync(path: Pathname) -> None:
    """Make the disk hold what was written to a file, or a folder's names.

    A file system that cannot sync a folder (some network shares) is left to its own ways, and so
    is an object store, which holds what it has acknowledged.
    """
    if is_url(os.fspath(path)):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not os.path.isdir(path):
            raise
    finally:
        os.close(handle)


def sync_folder(path: Pathname) -> None:
    """Make the disk hold all files in a folder and below it, and their names."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync(os.path.join(folder, name))
        sync(folder)


def temporary_name(path: str) -> str:
    """A name beside a path, under which it is written before it is moved into place."""
    folder, name = os.path.split(path.rstrip("/"))
    # A long name keeps within the file system's 255 bytes.
    return os.path.join(folder, f".{name[:200]}.{uuid.uuid4().hex[:8]}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file's or folder's name is one that `temporary_name` gives."""
    return name.startswith(".") and name.endswith(".tmp")


def reason(error: OSError) -> str:
    """Why the system could not do something, in words."""
    if error.errno == errno.ENOSPC:
        return "no space is left on the device"
    return error.strerror or str(error)
