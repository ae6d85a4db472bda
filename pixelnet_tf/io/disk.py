"""What a disk is asked for: that it holds what was written, and names that nobody else uses.

Paths of the form `scheme://` are none of a disk; `io/remote.py` makes such of them.
"""

from __future__ import annotations

import errno
import os
import re
import uuid

from pixelnet_tf.errors import ConfigError

Pathname = str | os.PathLike[str]
#: `pathlib` makes one slash of two. A scheme has two letters at least: a drive of Windows has one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def is_url(path: str) -> bool:
    """Whether a path is of the form `scheme://`, also where `pathlib` has made `scheme:/` of it."""
    return _URL.match(path) is not None


def url_of(path: str) -> str:
    """A path of the form `scheme://` with both of its slashes, and none at its end."""
    found = _URL.match(path)
    assert found is not None
    rest = found[2].rstrip("/")
    # Of a `file:` the rest is a path from the root on.
    return f"{found[1].lower()}://{'/' if found[1].lower() == 'file' else ''}{rest}"


def make_folder(path: Pathname) -> None:
    """Make a folder and its parents, and sync the names of those that were missing.

    Raises:
        ConfigError: a URL, which nobody has made a folder of this machine of.
    """
    path = os.fspath(path)
    if is_url(path):
        raise ConfigError("lies in an object store, where this cannot be written",
                          file=url_of(path), hint="give a folder of this machine")
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.makedirs(folder, exist_ok=True)
        sync(os.path.dirname(folder) or ".")


def sync(path: Pathname) -> None:
    """Make the disk hold what was written to a file, or a folder's names.

    A file system that cannot sync a folder (some network shares) is left to its own ways.
    """
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
