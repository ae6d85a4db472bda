"""Whole files or none: the one place where this project writes, and what it reads text and JSON by.

A file is written under a temporary name in its own folder, synced to the disk, moved into place,
and the folder is synced, so that after a power cut the old file is there or the new one, never an
empty one. In a folder that has a manifest (`io/manifest.py`), its SHA-256 stands there before it is
moved, and what is read is compared with it. Where the folder mirrors one of an object store
(`io/remote.py`), the file goes there before it is moved.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.io import manifest, remote
from pixelnet_tf.io.disk import (
    Pathname,
    is_temporary,
    is_url,
    make_folder,
    reason,
    sync,
    sync_folder,
    temporary_name,
    url_of,
)
from pixelnet_tf.io.plain import PlainError

T = TypeVar("T")
#: Read at once. The index of 10,000 cases takes some 100 MB; JSON takes twenty times its size.
MAX_TEXT_BYTES = 256 << 20


@contextmanager
def replacing(path: Pathname, grows: bool = False) -> Iterator[str]:
    """Give a temporary name to write to; on leaving, its file takes the place of `path`.

    The folder is made where it is missing. On an error the temporary file is removed and `path`
    stays as it was.

    Args:
        grows: the file will be added to, as a log is.

    Raises:
        RunError: writing failed, for instance on a full disk.
        ConfigError: the path is a folder's.
    """
    path = os.fspath(path)
    check_file_name(path)
    temporary = temporary_name(path)
    try:
        make_folder(os.path.dirname(path))
        yield temporary
        sync(temporary)
        written = manifest.announce(path, temporary, grows)
        remote.sent(path, temporary)
        os.replace(temporary, path)
        sync(os.path.dirname(path) or ".")
        manifest.settle(path, written)
    except OSError as error:
        raise RunError(f"cannot be written: {reason(error)}", file=path) from None
    finally:
        with suppress(OSError):
            os.remove(temporary)


@contextmanager
def replacing_folder(path: Pathname) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving, it takes the place of the folder `path`.

    A folder that was there is moved aside first and removed afterwards: what stands there is the
    old one or the new one, whole, and neither where the program is killed between the two moves.
    It is for folders that can be made again.

    Raises:
        RunError: writing failed, for instance on a full disk.
    """
    path = os.fspath(path)
    temporary, aside = Path(temporary_name(path)), Path(temporary_name(path))
    try:
        make_folder(os.path.dirname(path))
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        if os.path.isdir(path):
            os.replace(path, aside)
        os.replace(temporary, path)
        sync(os.path.dirname(path) or ".")
        remote.folder_sent(path)
    except OSError as error:
        raise RunError(f"cannot be written: {reason(error)}", file=path) from None
    finally:
        if aside.is_dir() and not os.path.isdir(path):
            os.replace(aside, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Pathname) -> None:
    """Remove the temporary files and folders that a killed program left in a folder."""
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        if is_temporary(name):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.remove(path)


def begin_folder(folder: Pathname) -> None:
    """Give a folder of the product its manifest, before its first file; raises `RunError`."""
    try:
        manifest.begin(folder)
    except OSError as error:
        raise RunError(f"cannot be written: {reason(error)}", file=folder) from None


def remove(*paths: Pathname) -> None:
    """Remove files, and say so in the manifest of their folder; raises OSError.

    One that is not there is passed over, and no power cut brings back the others.
    """
    there = [path for path in paths if os.path.lexists(path)]
    manifest.forget(*there)
    for path in there:
        remote.removed(path)
        with suppress(FileNotFoundError):
            os.remove(path)
    for folder in {os.path.dirname(path) for path in there}:
        sync(folder or ".")


def write_bytes(path: Pathname, data: bytes) -> None:
    """Write a file whole; raises `RunError`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: Pathname, text: str, grows: bool = False) -> None:
    """Write a text file whole, in UTF-8; raises `RunError`. grows: as `replacing` takes it."""
    with replacing(path, grows) as temporary, open(temporary, "wb") as file:
        file.write(text.encode("utf-8"))


def write_json(path: Pathname, tree: Any) -> None:
    """Write a JSON file whole; raises `RunError`. NaN and infinity are a ValueError."""
    write_text(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_bytes(path: Pathname, advice: str = "") -> bytes:
    """Read a file, and compare it with its folder's manifest.

    Raises:
        DataError: it is missing, cannot be read, is larger than any text of ours, or is not what
            was written; the message names `advice`, the next step.
    """
    path = os.fspath(path)
    words = ""
    for _ in range(3):
        try:
            remote.need(path)
            with open(path, "rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise DataError(f"cannot be read: it is larger than {MAX_TEXT_BYTES:,} bytes, as "
                                "no text of this program is", file=path)
            words = manifest.difference(path, data)
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"cannot be read: {reason(error)}", file=path) from None
        if not words:
            return data
        # Another process may have replaced it between the two readings.
    raise _not_as_written(path, words, advice)


def check_written(path: Pathname, advice: str = "") -> str | None:
    """Compare a file that is read by other means with its folder's manifest.

    Returns its SHA-256, where the manifest has that of the whole file.

    Raises:
        DataError: as `read_bytes`; a file that is missing is none of this function's concern.
    """
    try:
        words, written = manifest.compare(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {reason(error)}", file=path) from None
    if words:
        raise _not_as_written(os.fspath(path), words, advice)
    return None if written is None or written.grows else written.sha256


def _not_as_written(path: str, words: str, advice: str) -> DataError:
    folder, name = manifest.place_of(path) or os.path.split(path)
    return DataError(
        f"is not the file that was written ({words}): damaged, or changed by hand", file=path,
        hint=f"{advice + '; ' if advice else ''}`pixelnet-tf check {folder}` looks through the "
             f"folder, and with --accept {name} it takes a change that was meant")


def read_text(path: Pathname, advice: str = "") -> str:
    """Read a text file; raises `DataError` as `read_bytes`, and where it is not UTF-8."""
    try:
        return read_bytes(path, advice).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot be read: it is no UTF-8 text ({error})", file=path) from None


def read_json(path: Pathname, advice: str = "delete it and run `pixelnet-tf prepare` again") -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is missing or broken; the message ends with `advice`, the next step.
    """
    try:
        return json.loads(read_text(path, advice))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise DataError(f"is not JSON ({error}); it was written by another program or cut short",
                        file=path, hint=advice) from None


def read_json_object(path: Pathname, advice: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object; raises as `read_json`."""
    tree = read_json(path, advice)
    if not isinstance(tree, dict):
        raise DataError(f"must hold a JSON object, holds {type(tree).__name__}", file=path,
                        hint=advice)
    return tree


def read_json_as(path: Pathname, make: Callable[[Any], T], advice: str) -> T:
    """Read a JSON file and make something of it, such as a dataclass by `io.plain.build`.

    Raises:
        DataError: as `read_json`, or `make` says by a `PlainError` that it holds something else.
    """
    try:
        return make(read_json(path, advice))
    except PlainError as error:
        raise DataError(f"{error}; it was written by another program or changed", file=path,
                        value=error.value, hint=advice) from None


def read_json_lines(path: Pathname) -> list[dict[str, float]]:
    """Read the log of a training, one JSON object a line; none where there is no file.

    A row is of finite numbers and has a whole `step`. Lines from the first broken one on are left
    out: a program was killed while it wrote.

    Raises:
        DataError: what the training has told the folder's manifest of is something else now.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        return []
    rows = []
    for line in read_bytes(path, "take it from a copy, or remove it: curves begin anew").split(
            b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(row, dict) and type(row.get("step")) is int
                and all(type(value) in (int, float) and abs(value) < 1e300
                        for value in row.values())):
            break
        rows.append(row)
    return rows


def check_file_name(path: Pathname) -> None:
    """Raise `ConfigError` where a file is to be written under the name of a folder, or of nothing.
    """
    path = os.fspath(path)
    if os.path.basename(path) in ("", ".", "..") or (not is_url(path) and os.path.isdir(path)):
        raise ConfigError("is a folder", file=path, hint="give the name of the file to write")


def check_writable(folder: Pathname) -> None:
    """Raise `RunError` where a folder can neither be made nor be written into, before any work."""
    place = os.path.abspath(folder)
    if is_url(os.fspath(folder)):
        return
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise RunError(f"cannot be written: {place} is no folder", file=folder,
                       hint="give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"cannot be written: {place} is not open for writing", file=folder,
                       hint="give another --out, or change its permissions")


def check_apart(out: Pathname, *inputs: Pathname) -> None:
    """Raise `ConfigError` where results would lie among what they are made from, and `RunError`
    where they cannot be written at all.

    A folder of cases takes what lies in it for its own the next time. Above the inputs, or beside
    them, is another matter.
    """
    check_writable(out)
    for folder in inputs:
        mine, theirs = _absolute(out), _absolute(folder)
        if mine == theirs or mine.startswith(theirs.rstrip("/") + "/"):
            raise ConfigError(f"lies within {os.fspath(folder)}, whose files it is made from",
                              file=out, hint="give --out a folder outside of it")


def file_digest(path: Pathname) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; raises OSError."""
    found = hashlib.sha256()
    remote.need(path)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def digest(tree: Any) -> str:
    """Return the SHA-256 of JSON values, in hexadecimal; the order of an object's keys is none."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _absolute(path: Pathname) -> str:
    path = os.fspath(path)
    return url_of(path) if is_url(path) else os.path.realpath(path)
