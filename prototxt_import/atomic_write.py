"""Writing a file under a temporary name and moving it into place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from prototxt_import.errors import CaffeFormatError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
    """Give a temporary path beside `path`, which replaces it when the block ends well."""
    path = os.path.abspath(os.fspath(path))
    if os.path.isdir(path):
        raise CaffeFormatError("this is a directory; give the name of a file to write", path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path)
        )
    except OSError as error:
        raise CaffeFormatError(f"cannot be written: {error.strerror}", path) from None
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    try:
        yield temporary
        # After a power cut the old file is there or the new one, never an empty one.
        _sync(temporary)
        os.replace(temporary, path)
        _sync(os.path.dirname(path))
    except OSError as error:
        raise CaffeFormatError(f"cannot be written: {error.strerror or error}", path) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some network shares cannot sync a folder.
        if not os.path.isdir(path):
            raise
    finally:
        os.close(handle)
