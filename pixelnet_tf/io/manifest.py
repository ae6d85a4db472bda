"""`manifest.jsonl`: what was written into a folder of the product, by SHA-256.

A folder that has one (`begin`) covers its own files and those of its sub-folders, `DEPTH` levels of
them; every file that is written whole there (`io/files.py`) is told to it, and every one that is
read back through the product is compared.

A line is written and synced before a file is moved into place ("announced"), and another after it
("written"). So a file may hold what was written last or what was announced since: a program that is
killed, or a power cut, between the two leaves nothing that looks like damage. A file that was
removed is told, too. Each line ends with a checksum of its own, and a line that was cut short is
passed over. Lines of several processes are added one after the other, under a lock of the manifest
alone; it is written anew, shorter, when it has grown.

Paths in it are relative, so that a folder may be copied or moved. Folders of earlier versions have
none: their files are read as they are. Of a folder that mirrors one of an object store the
manifest is put there before the files that it announces (`io/remote.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pixelnet_tf.io import remote
from pixelnet_tf.io.disk import Pathname, make_folder, sync, temporary_name

MANIFEST = "manifest.jsonl"
FORMAT = 1
#: Levels of sub-folders that a manifest covers: `sub-01/ses-02/anat` of a data set of BIDS.
DEPTH = 3
#: Bytes above which a manifest is written anew, or four times what that makes of it.
_COMPACT_AT = 1 << 20
#: Readers and writers look again where a file was replaced while they looked at it.
_TRIES = 3


@dataclass(frozen=True)
class Written:
    """What a file holds.

    Attributes:
        length, sha256: bytes of the whole file and their digest, or, where it `grows`, of its
            beginning: a log is added to.
    """

    length: int
    sha256: str
    grows: bool = False

    @classmethod
    def of(cls, path: Pathname, grows: bool = False) -> Written:
        """What a file holds now; raises OSError."""
        found, size = hashlib.sha256(), 0
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
                size += len(block)
        return cls(size, found.hexdigest(), grows)

    def differs(self, path: Pathname, data: bytes | None = None) -> str:
        """Say how a file, or the bytes that were read from it, is something else; else empty."""
        size = os.stat(path).st_size if data is None else len(data)
        if size < self.length or (size > self.length and not self.grows):
            return f"it holds {size} bytes, {self.length} were written"
        if data is not None:
            digest = hashlib.sha256(memoryview(data)[:self.length]).hexdigest()
        elif self.grows:
            digest = _digest_of_beginning(path, self.length)
        else:
            digest = Written.of(path).sha256
        return "" if digest == self.sha256 else "its SHA-256 is another"


@dataclass
class Entry:
    """What a manifest says of a file.

    Attributes:
        right: what it may hold: what was written last, and what was announced since.
        there: whether it must be there: it was moved into place, and not removed since.
        removed: whether its removal was the last that was said of it.
    """

    right: list[Written] = field(default_factory=list)
    there: bool = False
    removed: bool = False

    @property
    def grows(self) -> bool:
        """Whether it is a log."""
        return any(written.grows for written in self.right)

    def hear(self, event: str, written: Written | None) -> None:
        """Take a line in."""
        if event == "removed":
            self.there, self.removed = False, True
            return
        assert written is not None
        self.removed = False
        if event == "announced":
            self.right.append(written)
        else:
            self.there = True
            # What was announced before it has been replaced.
            at = self.right.index(written) if written in self.right else len(self.right)
            self.right = [written, *self.right[at + 1:]]

    def compare(self, path: Pathname, data: bytes | None = None) -> tuple[str, Written | None]:
        """Say how a file is nothing that was written there; or give what it is of that."""
        words = ""
        for written in reversed(self.right):
            found = written.differs(path, data)
            if not found:
                return "", written
            words = words or found
        return words, None

    def differs(self, path: Pathname) -> str:
        """Say how a file is nothing that was written there; empty where it is right."""
        return self.compare(path)[0]


@dataclass
class Manifest:
    """A manifest that was read.

    Attributes:
        folder: that it covers.
        entries: by the file's path in the folder, with `/`.
        broken, cut_short: numbers of lines, from 1, that are damaged, and whose end is missing, as
            a power cut leaves them.
        complete: whether it was begun in an empty folder; otherwise files of an earlier version
            may lie there. None: the line that says so is lost.
        compact_at: bytes above which it is to be written anew.
    """

    folder: str
    entries: dict[str, Entry] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    cut_short: list[int] = field(default_factory=list)
    complete: bool | None = None
    compact_at: int = field(default_factory=lambda: _COMPACT_AT)

    def lines(self) -> Iterator[bytes]:
        """The shortest text that says the same."""
        yield _line({"event": "begun", "manifest": FORMAT, "complete": self.complete,
                     "compact_at": self.compact_at})
        for path, entry in self.entries.items():
            for number, written in enumerate(entry.right):
                yield _told("announced", path, written)
                if entry.there and number == 0:
                    yield _told("written", path, written)
            if entry.removed:
                yield _told("removed", path)


def begin(folder: Pathname) -> None:
    """Give a folder its manifest, where it has none; it is made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    folder = os.fspath(folder)
    path = os.path.join(folder, MANIFEST)
    if os.path.exists(path):
        return
    make_folder(folder)
    empty = all(name.startswith(".") for name in os.listdir(folder))
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.writelines(Manifest(folder, complete=empty).lines())
            file.flush()
            os.fsync(file.fileno())
        try:
            # Not over the one that another process has begun meanwhile.
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            # A file system without hard links.
            if not os.path.exists(path):
                os.replace(temporary, path)
    finally:
        with suppress(OSError):
            os.remove(temporary)
    sync(folder)
    remote.told(path)


def read(folder: Pathname) -> Manifest | None:
    """Read a folder's manifest; None where it has none, or a file of another program's."""
    folder = os.fspath(folder)
    path = os.path.join(folder, MANIFEST)
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    mark = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _read_before.get(path)
    if known is not None and known[0] == mark:
        return known[1]
    try:
        with open(path, "rb") as file, _locked(file.fileno(), shared=True):
            data = file.read()
    except OSError:
        return None
    manifest = _parse(folder, data)
    if len(_read_before) > 50:
        _read_before.clear()
    _read_before[path] = (mark, manifest)
    return manifest


#: What was read last of a few manifests, with their inode, size and time of change.
_read_before: dict[str, tuple[tuple[int, int, int], Manifest | None]] = {}


def place_of(path: Pathname) -> tuple[str, str] | None:
    """The folder whose manifest covers a file, and the file's path in it; None: there is none."""
    folder, name = os.path.split(os.path.abspath(path))
    for _ in range(DEPTH + 1):
        if os.path.isfile(os.path.join(folder, MANIFEST)):
            return None if name == MANIFEST else (folder, name)
        folder, parent = os.path.split(folder)
        name = f"{parent}/{name}"
    return None


def announce(path: Pathname, source: Pathname, grows: bool = False) -> Written | None:
    """Say, before `source` is moved there, what a file will hold; for `settle` afterwards.

    The line is synced. Nothing is done where no manifest covers the path; raises OSError.
    """
    place = place_of(path)
    if place is None:
        return None
    written = Written.of(source, grows)
    _add(place[0], [_told("announced", place[1], written)])
    remote.told(os.path.join(place[0], MANIFEST))
    return written


def settle(path: Pathname, written: Written | None) -> None:
    """Say that a file that was announced is in its place; raises OSError."""
    place = place_of(path)
    if place is not None and written is not None:
        _add(place[0], [_told("written", place[1], written)], synced=False)
        remote.told(os.path.join(place[0], MANIFEST), settled=True)


def record(*paths: Pathname, grows: bool = False) -> None:
    """Say what files hold that another program, such as TensorFlow, wrote in place, and synced.

    grows: they are added to, and only what they hold now will stay; raises OSError.
    """
    lines: dict[str, list[bytes]] = {}
    for path in paths:
        if place := place_of(path):
            remote.need(path)
            written = Written.of(path, grows)
            # Under a name that is new, or with what was there at its beginning: no reader finds
            # anything wrong before the line is there.
            remote.sent(path)
            lines.setdefault(place[0], []).extend(
                _told(event, place[1], written) for event in ("announced", "written"))
    for folder, told in lines.items():
        _add(folder, told)
        remote.told(os.path.join(folder, MANIFEST))


def forget(*paths: Pathname) -> None:
    """Say, before they are removed, that files will not be there any more; raises OSError."""
    lines: dict[str, list[bytes]] = {}
    for path in paths:
        if place := place_of(path):
            manifest = read(place[0])
            if manifest is None or place[1] in manifest.entries:
                lines.setdefault(place[0], []).append(_told("removed", place[1]))
    for folder, told in lines.items():
        _add(folder, told)
        remote.told(os.path.join(folder, MANIFEST))


def difference(path: Pathname, data: bytes | None = None) -> str:
    """Say how a file differs from what was written there; empty where it does not, or none knows.

    data: what was read from it; else it is read, whole; raises OSError.
    """
    return compare(path, data)[0]


def compare(path: Pathname, data: bytes | None = None) -> tuple[str, Written | None]:
    """What `difference` says, and else what the file is of all that was written there."""
    found: tuple[str, Written | None] = "", None
    if data is None:
        remote.need(path)
    for _ in range(_TRIES):
        place = place_of(path)
        manifest = read(place[0]) if place else None
        entry = manifest.entries.get(place[1]) if manifest and place else None
        if entry is None or not entry.right:
            return "", None
        found = entry.compare(path, data)
        # A file that is replaced meanwhile is told before it is there: what is read is read again.
        if not found[0] or data is not None:
            return found
    return found


def files_in(folder: Pathname) -> list[str]:
    """Every file in a folder and below it, in order, but manifests and hidden ones.

    Hidden are temporary files and locks.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in sorted(names)
                  if name != MANIFEST and not name.startswith(".")]
    return found


def compact(folder: Pathname) -> None:
    """Write a manifest anew, without what has been replaced or removed; raises OSError."""
    with _opened(os.fspath(folder)) as (handle, _):
        _compact_opened(os.fspath(folder), handle)


def _told(event: str, path: str, written: Written | None = None) -> bytes:
    values: dict[str, Any] = {"event": event, "path": path}
    if written is not None:
        values |= {"bytes": written.length, "sha256": written.sha256}
        if written.grows:
            values["grows"] = True
    return _line(values)


def _line(values: dict[str, Any]) -> bytes:
    checksum = zlib.crc32(json.dumps(values).encode())
    return json.dumps({**values, "crc32": checksum}).encode() + b"\n"


def _values_of(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is not, to the byte, as it was written."""
    try:
        values = json.loads(line)
        del values["crc32"]
        return values if _line(values) == line + b"\n" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _parse(folder: str, data: bytes) -> Manifest | None:
    manifest, begun = Manifest(folder), False
    for number, line in enumerate(data.split(b"\n"), start=1):
        values = _values_of(line) if line else {}
        if values is None:
            whole = line.endswith(b"}")
            (manifest.broken if whole else manifest.cut_short).append(number)
            continue
        if not values:
            continue
        begun = True
        if values["event"] == "begun":
            manifest.complete = values["complete"]
            manifest.compact_at = values["compact_at"]
            continue
        written = None if values["event"] == "removed" else Written(
            values["bytes"], values["sha256"], values.get("grows", False))
        manifest.entries.setdefault(values["path"], Entry()).hear(values["event"], written)
    # Of another program, unless a line is ours.
    return manifest if begun or not data else None


def _add(folder: str, lines: Iterable[bytes], synced: bool = True) -> None:
    with _opened(folder) as (handle, locked):
        size = os.fstat(handle).st_size
        # After a line that was cut short, a new one begins.
        start = b"" if size == 0 or os.pread(handle, 1, size - 1) == b"\n" else b"\n"
        data = memoryview(start + b"".join(lines))
        while data:
            data = data[os.write(handle, data):]
        if synced:
            os.fsync(handle)
        if size > _COMPACT_AT and locked:
            manifest = _read_opened(folder, handle)
            if manifest is not None and size > manifest.compact_at:
                _compact_opened(folder, handle)


def _read_opened(folder: str, handle: int) -> Manifest | None:
    """Read the manifest that a handle is of, whose lock is held."""
    return _parse(folder, os.pread(handle, os.fstat(handle).st_size, 0))


def _compact_opened(folder: str, handle: int) -> None:
    manifest = _read_opened(folder, handle)
    if manifest is None:
        return
    manifest.entries = {
        path: entry for path, entry in manifest.entries.items()
        if not (entry.removed and not os.path.lexists(os.path.join(folder, path)))}
    size = sum(len(line) for line in manifest.lines())
    manifest.compact_at = max(_COMPACT_AT, 4 * size)
    _write_anew(manifest)


def _write_anew(manifest: Manifest) -> None:
    path = os.path.join(manifest.folder, MANIFEST)
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            file.writelines(manifest.lines())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(manifest.folder)
    finally:
        with suppress(OSError):
            os.remove(temporary)


@contextmanager
def _opened(folder: str) -> Iterator[tuple[int, bool]]:
    """Open a folder's manifest to add to it; gives a handle, and whether no other process has one.
    """
    path = os.path.join(folder, MANIFEST)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            with _locked(handle) as locked:
                # Another process may have written it anew before the lock was had.
                if _same_file(handle, path):
                    yield handle, locked
                    return
        finally:
            os.close(handle)


def _same_file(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def _locked(handle: int, shared: bool = False) -> Iterator[bool]:
    """Hold a file's lock until it is closed; False where a file system or a system has none.

    Then lines are still added whole, one after the other.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except (ImportError, OSError):
        yield False
    else:
        yield True


def _digest_of_beginning(path: Pathname, size: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            found.update(block)
            size -= len(block)
    return found.hexdigest()
