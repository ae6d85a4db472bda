"""Files on disk: a first look at one that is to be read, and writing one whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prototxt_import.errors import CaffeFormatError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 512
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive (a .keras or .npz file, perhaps)"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80\x02", "a pickled Python object"),
    (b"\x93NUMPY", "a numpy array file"),
)


def check_model_file(path: str | os.PathLike, kind: str) -> bytes:
    """Return the first bytes of the file at `path`, which should be a `kind` ("prototxt", ...).

    Raises CaffeFormatError for a missing file, a directory, an empty file, a Git LFS pointer,
    an HTML page or a file of some other known format.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise CaffeFormatError(f"this is a directory; give the {kind} file itself", path)
        if not stat.S_ISREG(mode):
            raise CaffeFormatError(f"this is no regular file; copy the {kind} to one", path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise CaffeFormatError(
            f"there is no such file; check the path of the {kind}", path
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaffeFormatError(f"the {kind} cannot be read: {reason}", path) from None
    if not head:
        raise CaffeFormatError(f"the file is empty; copy or download the {kind} again", path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise CaffeFormatError(
            f"this is a Git LFS pointer, not the {kind} itself; run `git lfs pull` first", path
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CaffeFormatError(
            f"this is a web page saved under the name of a {kind}; download the file itself", path
        )
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise CaffeFormatError(f"this is no {kind} but {name}", path)
    return head


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
    """Give a temporary path beside `path`, which replaces it when the block ends well.

    Of the `CaffeFormatError` that says that the disk takes nothing, the cause is the OSError.
    """
    path = os.path.abspath(os.fspath(path))
    if os.path.isdir(path):
        raise CaffeFormatError("this is a directory; give the name of a file to write", path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            ".tmp", f".{os.path.basename(path)}.", os.path.dirname(path)
        )
    except OSError as error:
        raise CaffeFormatError(f"cannot be written: {error.strerror}", path) from error
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
        raise CaffeFormatError(f"cannot be written: {error.strerror or error}", path) from error
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
