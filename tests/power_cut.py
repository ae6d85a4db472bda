"""What a program does to a folder, event by event, and what a disk may hold after a power cut.

`Recorder` looks at a folder before and after every call that changes names or syncs (`os.replace`,
`os.link`, `os.unlink`, `os.fsync` and their like). What TensorFlow and other libraries did between
two of them is found by their files: a new inode, another size or time, another name.

`Record.state` gives the files that a disk may hold after the first `count` of the events, with
everything that was not synced lost or kept by chance.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from pixelnet_tf.api.check import check_folder
from pixelnet_tf.errors import DataError
from pixelnet_tf.io import locks, manifest

#: How what is not synced gets lost: `kill`: nothing is (the program alone died); `ordered`: names
#: up to some moment after the last sync, as a journal keeps them in order, and the contents of
#: files that were not synced are empty, cut or whole; `worst`: each change of a name by chance.
MODES = ("kill", "ordered", "worst")

_NAMES = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir")


@dataclass(frozen=True)
class Event:
    """Something that happened to the folder.

    Attributes:
        what: `mkdir`, `rmdir`, `create`, `write`, `rename`, `unlink`, `sync` (a file), `sync
            folder`, or `done` (a file is acknowledged: it was written, synced and named).
        path: relative to the folder; `""` is the folder itself. After `rename`, the new one.
        old: the path before a `rename`.
        file: number of the file.
        data: what the file holds after a `write`.
    """

    what: str
    path: str
    old: str = ""
    file: int = -1
    data: bytes = b""


@dataclass
class Record:
    """The events of a program in a folder.

    Attributes:
        before: files by path, as they were before the first event; all of them on the disk.
        events: in their order.
    """

    before: dict[str, bytes | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def state(self, count: int, mode: str, rng: random.Random) -> dict[str, bytes | None]:
        """Files (and, as None, folders) by path after the first `count` events and a power cut."""
        names: dict[str, int | None] = {}
        contents: dict[int, bytes] = {}
        for number, (path, data) in enumerate(self.before.items(), start=1):
            names[path] = None if data is None else -number
            if data is not None:
                contents[-number] = data
        kept = self._kept(count, mode, rng)
        synced, last = dict(contents), dict(contents)
        for number, event in enumerate(self.events[:count]):
            if event.what == "write":
                last[event.file] = event.data
            elif event.what == "create":
                last.setdefault(event.file, b"")
                synced.setdefault(event.file, b"")
            elif event.what == "sync":
                synced[event.file] = last[event.file]
            if number in kept:
                _apply(names, event)
        found: dict[str, bytes | None] = {}
        for path, file in names.items():
            parents = [parent.as_posix() for parent in Path(path).parents][:-1]
            if all(names.get(parent, 0) is None for parent in parents):
                found[path] = None if file is None else (
                    last[file] if mode == "kill" else _torn(synced[file], last[file], rng))
        return found

    def acknowledged(self, count: int) -> dict[str, list[bytes | None]]:
        """What each file that was acknowledged may hold after the first `count` events.

        Where the next version is under way, that one counts too, and None where it is removed.
        """
        last: dict[int, bytes] = {}
        found: dict[str, list[bytes | None]] = {}
        for event in self.events[:count]:
            if event.what == "write":
                last[event.file] = event.data
            elif event.what == "done":
                found[event.path] = [event.data]
            elif event.path in found and event.what == "rename":
                found[event.path].append(last.get(event.file, b""))
            elif event.path in found and event.what == "unlink":
                found[event.path].append(None)
            if event.what == "rename":
                # A folder that is moved away takes its files with it.
                for path in [path for path in found if path.startswith(event.old + "/")]:
                    found[path].append(None)
        return found

    def kinds(self) -> dict[tuple[str, str], list[int]]:
        """Places just before the events of each kind: what happens, to which sort of file."""
        found: dict[tuple[str, str], list[int]] = {}
        for number, event in enumerate(self.events):
            if event.what != "done":
                found.setdefault((event.what, _sort(event.path)), []).append(number)
        return found

    def _kept(self, count: int, mode: str, rng: random.Random) -> set[int]:
        """Numbers of the changes of names that the disk holds."""
        changes = [number for number, event in enumerate(self.events[:count])
                   if event.what in ("mkdir", "rmdir", "create", "rename", "unlink")]
        if mode == "kill":
            return set(changes)
        if mode == "ordered":
            syncs = [number for number, event in enumerate(self.events[:count])
                     if event.what.startswith("sync")]
            moment = rng.randint(syncs[-1] if syncs else 0, count)
            return {number for number in changes if number < moment}
        until: dict[str, int] = {}
        for number, event in enumerate(self.events[:count]):
            if event.what == "sync folder":
                until[event.path] = number
        return {number for number in changes if rng.random() < 0.5 or any(
            number < until.get(_folder(path), -1)
            for path in (self.events[number].path, self.events[number].old or None)
            if path is not None)}


def write_state(state: dict[str, bytes | None], folder: Path) -> None:
    """Make a folder hold a state, and nothing else; the program that wrote its locks is dead."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(state):
        data = state[path]
        if data is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
            continue
        if locks.LOCK in Path(path).name:
            data = _of_dead(data)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def read_state(folder: Path) -> dict[str, bytes | None]:
    """Files and folders of a folder by path."""
    return {path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
            for path in sorted(folder.rglob("*"))}


class Recorder:
    """Records what this process does in a folder while it is entered."""

    def __init__(self, folder: Path):
        self.folder = os.path.realpath(folder)
        self.record = Record()
        self._lock = threading.RLock()
        self._files: dict[int, int] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._count = 0
        self._real: list[tuple[Any, str, Callable]] = []

    def __enter__(self) -> Recorder:
        if os.path.isdir(self.folder):
            self.record.before = read_state(Path(self.folder))
        # Numbers of `Record.state`.
        for number, path in enumerate(self.record.before, start=1):
            found = os.lstat(os.path.join(self.folder, path))
            self._seen[path] = _mark(found)
            if not stat.S_ISDIR(found.st_mode):
                self._files[found.st_ino] = -number
        for name in _NAMES:
            self._patch(os, name, self._looked(getattr(os, name)))
        self._patch(os, "fsync", self._synced(os.fsync))
        self._patch(manifest, "settle", self._settled(manifest.settle))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, real in reversed(self._real):
            setattr(module, name, real)
        self.look()

    def acknowledge(self) -> None:
        """Say that the program has reported its end: all files are acknowledged, but hidden ones.
        """
        with self._lock:
            self.look()
            for path, mark in list(self._seen.items()):
                # The manifest's last lines may still be on their way.
                if mark[0] in self._files and "/." not in "/" + path and not path.endswith(
                        manifest.MANIFEST) and _sort(path) != "tensorboard":
                    self._done(path)

    def look(self) -> None:
        """Find what has changed since the last look."""
        with self._lock:
            now = {}
            for parent, folders, names in os.walk(self.folder):
                for name in (*folders, *names):
                    path = os.path.join(parent, name)
                    try:
                        now[os.path.relpath(path, self.folder)] = os.lstat(path)
                    except FileNotFoundError:
                        continue
            self._compare(now)

    def _compare(self, now: dict[str, os.stat_result]) -> None:
        before = self._seen
        marks = {path: _mark(found) for path, found in now.items()}
        folders = {path for path, found in now.items() if stat.S_ISDIR(found.st_mode)}
        gone = [path for path in before if path not in marks
                or marks[path][0] != before[path][0]]
        places = {before[path][0]: path for path in gone}
        kept = {mark[0] for path, mark in marks.items() if path in before
                and before[path][0] == mark[0]}
        moved: list[tuple[str, str]] = []
        for path in sorted(marks):
            inode = marks[path][0]
            if path in before and before[path][0] == inode:
                continue
            if inode in places and inode not in kept:
                old = places.pop(inode)
                if not any(old.startswith(a + "/") and path.startswith(b + "/")
                           for a, b in moved):
                    moved.append((old, path))
            elif path in folders:
                self._add("mkdir", path)
            else:
                if inode not in self._files:
                    self._count += 1
                    self._files[inode] = self._count
                self._add("create", path, file=self._files[inode])
        for path in sorted(marks):
            if path in folders:
                continue
            inode, size, changed = marks[path]
            old = before.get(path) or next(
                (mark for mark in before.values() if mark[0] == inode), None)
            if old is None or (size, changed) != old[1:]:
                try:
                    data = Path(self.folder, path).read_bytes()
                except FileNotFoundError:
                    continue
                self._add("write", path, file=self._files[inode], data=data)
        for old, path in moved:
            self._add("rename", path, old=old,
                      file=self._files.get(marks[path][0], -1))
        targets = {path for _, path in moved}
        for path in sorted(set(gone) - {old for old, _ in moved}, reverse=True):
            if path in targets or path in marks or any(
                    path.startswith(old + "/") for old, _ in moved):
                continue
            inode = before[path][0]
            if inode in self._files:
                self._add("unlink", path, file=self._files[inode])
            else:
                self._add("rmdir", path)
        self._seen = marks
        # The number of a file that is gone is given to another one.
        there = {mark[0] for mark in marks.values()}
        self._files = {inode: number for inode, number in self._files.items() if inode in there}

    def _add(self, what: str, path: str, **more: Any) -> None:
        self.record.events.append(Event(what, path, **more))

    def _done(self, path: str) -> None:
        try:
            data = Path(self.folder, path).read_bytes()
        except FileNotFoundError:
            return
        self._add("done", path, data=data)

    def _patch(self, module: Any, name: str, new: Callable) -> None:
        self._real.append((module, name, getattr(module, name)))
        setattr(module, name, new)

    def _looked(self, real: Callable) -> Callable:
        def call(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                self.look()
                try:
                    return real(*arguments, **more)
                finally:
                    self.look()
        return call

    def _synced(self, real: Callable) -> Callable:
        def fsync(handle: int) -> None:
            with self._lock:
                self.look()
                real(handle)
                found = os.fstat(handle)
                if stat.S_ISDIR(found.st_mode):
                    path = os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), self.folder)
                    if not path.startswith(".."):
                        self._add("sync folder", "" if path == "." else path)
                elif found.st_ino in self._files:
                    path = next((path for path, mark in self._seen.items()
                                 if mark[0] == found.st_ino), "")
                    self._add("sync", path, file=self._files[found.st_ino])
        return fsync

    def _settled(self, real: Callable) -> Callable:
        def settle(path: Any, written: Any) -> None:
            with self._lock:
                self.look()
                name = os.path.relpath(os.path.realpath(path), self.folder)
                # Within a temporary folder nothing is acknowledged.
                if not name.startswith("..") and "/." not in "/" + name:
                    self._done(name)
            real(path, written)
        return settle


def _mark(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _folder(path: str) -> str:
    return os.path.dirname(path)


def _sort(path: str) -> str:
    """The sort of file that a path is of: its name without what differs from one to the next."""
    name = os.path.basename(path)
    if name.endswith(".tmp"):
        return "temporary " + name[1:].rsplit(".", 2)[0].rsplit(".", 1)[-1]
    if locks.LOCK in name:
        return "lock"
    if "/checkpoints/" in "/" + path and name[-1:] != "n":
        return "checkpoint"
    if "tensorboard" in path:
        return "tensorboard"
    return name.split(".", 1)[-1] if name[:1] not in ("", ".") else name


def _apply(names: dict[str, int | None], event: Event) -> None:
    if event.what == "mkdir":
        names[event.path] = None
    elif event.what in ("rmdir", "unlink"):
        names.pop(event.path, None)
    elif event.what == "create":
        names[event.path] = event.file
    else:
        folder = event.file == -1
        if not folder:
            names.pop(event.old, None)
            names[event.path] = event.file
            return
        if event.old not in names:
            return
        for path in [path for path in names if path == event.old
                     or path.startswith(event.old + "/")]:
            names[event.path + path.removeprefix(event.old)] = names.pop(path)


def _torn(synced: bytes, last: bytes, rng: random.Random) -> bytes:
    """What the disk may hold of a file: what was synced, more of it, all, or zeros in its place."""
    if synced == last:
        return last
    chance = rng.randrange(4)
    if chance == 0 or not last.startswith(synced):
        return rng.choice((synced, last)) if chance else synced
    place = rng.randint(len(synced), len(last))
    return (last[:place], last, last[:place] + bytes(len(last) - place))[chance - 1]


def _of_dead(data: bytes) -> bytes:
    try:
        owner = json.loads(data)
    except ValueError:
        return data
    return json.dumps({**owner, "pid": _dead_pid()}).encode()


_dead: list[int] = []


def _dead_pid() -> int:
    if not _dead:
        process = subprocess.Popen(["true"])
        process.wait()
        _dead.append(process.pid)
    return _dead[0]


def lost(record: Record, count: int, state: dict[str, bytes | None]) -> list[str]:
    """Acknowledged files that a disk does not hold as they were acknowledged."""
    return [path for path, right in record.acknowledged(count).items()
            if state.get(path) not in right
            # A log is added to.
            and not (os.path.basename(path).startswith("log.")
                     and (state.get(path) or b"").startswith(right[0]))]


def damage(folder: Path) -> list[str]:
    """What `pixelnet-tf check` finds in a folder; nothing where it is none of the product yet."""
    try:
        return [str(finding) for finding in check_folder(folder, reporter=_Silent()).findings]
    except DataError as error:
        return [] if "is nothing that pixelnet-tf wrote" in str(error) else [str(error)]


class _Silent:
    def message(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def progress(self, task: str, done: int, total: int, detail: str = "") -> None: ...


def outcome(folder: Path) -> dict[str, Any]:
    """What a folder holds in the end, without what two runs of a verb differ in: times."""
    found: dict[str, Any] = {}
    for path, data in read_state(folder).items():
        name = os.path.basename(path)
        if (data is None or "tensorboard/" in path or name in (
                manifest.MANIFEST, "log.csv", "saved_model.pb", "fingerprint.pb")):
            # The names in a graph are counted on in a process, too.
            continue
        if name == "log.jsonl":
            found[path] = [{key: value for key, value in json.loads(row).items()
                            if key not in ("seconds", "slices_per_second")}
                           for row in data.splitlines()]
        elif any("/" + each in "/" + path for each in ("checkpoints/", "variables/variables.")):
            # Its tensors: names of layers, which it holds too, are counted on in a process.
            if name.endswith(".index"):
                reader = tf.train.load_checkpoint(str(folder / path).removesuffix(".index"))
                found[path] = {key: reader.get_tensor(key).tobytes()
                               for key in reader.get_variable_to_shape_map()
                               if "OBJECT_GRAPH" not in key
                               and reader.get_variable_to_dtype_map()[key] != tf.string}
            elif name == "state.json":
                found[path] = data
        elif name == "prediction.json":
            # Without digests of model.keras, which holds the time of its writing.
            tree = json.loads(data)
            for part in (*tree["networks"], *tree["made_from"].values()):
                part.pop("file", None)
                part.pop("networks", None)
            found[path] = tree
        elif name.endswith(".keras"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                found[path] = {member: archive.read(member) for member in archive.namelist()
                               if member != "metadata.json"}
        else:
            found[path] = data
    return found


def leftovers(folder: Path) -> list[str]:
    """Hidden files: locks and temporary files."""
    return [path for path in read_state(folder) if "/." in "/" + path]


@contextmanager
def recorded(folder: Path) -> Iterator[Record]:
    """Record what is done in a folder, to its end, which counts as reported."""
    with Recorder(folder) as recorder:
        yield recorder.record
        recorder.acknowledge()
