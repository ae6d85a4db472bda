"""Zips that come with a request: which of their files are read, and what a broken one is told."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import PurePath

from pixelnet_tf.cases.names import is_hidden
from pixelnet_tf.serving.api_error import ApiError

#: What Python raises of a zip that is broken, locked, or packed in a way that it does not know.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError,
              ValueError)
#: Of these `zipfile` unpacks no more at once than it is asked for. Of bzip2 and LZMA it unpacks
#: whatever a block of packed bytes holds, which may be a million times as much.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def zip_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip, but hidden ones and what macOS packs beside them.

    Raises:
        ApiError: 400 for one that is packed by a method that would take memory without bound.
    """
    found = [entry for entry in archive.infolist()
             if not entry.is_dir() and not is_hidden(PurePath(entry.filename))]
    for entry in found:
        if entry.compress_type not in _BOUNDED:
            raise ApiError(400, f"the zip holds {entry.filename[:60]!r} packed by method "
                                f"{entry.compress_type}; pack it by deflate, as zip programs do by "
                                "themselves, or not at all")
    return found
