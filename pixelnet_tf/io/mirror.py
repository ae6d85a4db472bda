"""A folder of an object store as a folder of this machine, its mirror.

Small files are brought when a URL is opened; shards and checkpoints stand there as names alone,
files of the right size without content, until they are read (`Mirror.need`). Each one that is
brought is compared with the folder's manifest. Whatever is written goes into the store before it is
moved into place here, in the order in which a disk would get it: the manifest that announces a
file, the file, and files that point at others after those. So a store holds at every moment what a
disk would hold after a kill, and the mirror nothing that the store lacks; it may be removed
whenever no program is at work.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pixelnet_tf.errors import ConfigError, DataError, PixelNetError, RunError, show_as
from pixelnet_tf.io import manifest
from pixelnet_tf.io.disk import is_temporary, make_folder, reason, temporary_name
from pixelnet_tf.io.locks import in_use
from pixelnet_tf.io.stores import VARIABLE, Fault, Store, open_store
from pixelnet_tf.reporting import Reporter, reporter_or_log

T = TypeVar("T")
#: Where mirrors are, and how many GB of shards they may hold.
CACHE, CACHE_GB = "PIXELNET_CACHE", "PIXELNET_CACHE_GB"
_GB = 20.0
#: Seconds before the first try again; each further wait is twice as long.
FIRST_WAIT = 1.0
#: A store that did not answer is not asked again for so long.
_GONE_SECONDS = 60.0
#: Brought when they are read, and dropped when room is needed.
_SHARD = ".tfrecord"
#: A file is used when it was asked for; that is noted once in so many seconds.
_USED_SECONDS = 60.0
#: Small files that are brought at the same time.
_AT_ONCE = 8
#: Other programs look for these before they read a folder: they are put last.
_LAST = ("saved_model.pb", manifest.MANIFEST)
#: Of files that stand for themselves rather than for a folder.
_FILES = (".keras", ".zip")


def open_mirror(url: str, opened: dict[str, Mirror], reporter: Reporter | None) -> str:
    """The mirror's path of a URL; it is made, and brought to what the store holds.

    opened: the mirrors of this process, to which it is added.
    """
    base, rest, only = _parted(url)
    root = os.path.join(cache(), *base.replace("://", "/").split("/"))
    path = os.path.join(root, rest) if rest else root
    # One that is open above it, such as a whole job's, knows these files already.
    known = next((mirror for folder, mirror in opened.items() if not mirror.only
                  and (root == folder or root.startswith(folder + "/"))), None)
    if known is not None:
        known.reporter = reporter or known.reporter
        known.refresh()
        return path
    mirror = opened.get(root) or Mirror(open_store(base), root, only, reporter_or_log(reporter))
    mirror.only = only
    mirror.refresh()
    if root not in opened:
        kept = "" if opened else (f"; {cache()} keeps what was read, at most {_limit() / 1e9:g} GB "
                                  f"of shards ({CACHE}, {CACHE_GB}, {VARIABLE})")
        mirror.reporter.message(f"{base}: through {mirror.store.way}{kept}")
        show_as(root, base)
    opened[root] = mirror
    return path


def _parted(url: str) -> tuple[str, str, str]:
    """The URL of the folder that is mirrored, the path in it that was asked for, and with which
    letters names begin where one file was."""
    scheme, _, path = url.partition("://")
    parts = [part for part in path.split("/") if part]
    rest: list[str] = []
    only, lead = "", "/" if scheme == "file" else ""
    pattern = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), None)
    if pattern is not None:
        parts, rest = parts[:pattern], parts[pattern:]
    elif parts[-2:-1] == ["checkpoints"] and parts[-1] in ("best", "last"):
        parts, rest = parts[:-2], parts[-2:]
    elif len(parts) > 1 and parts[-1].endswith(_FILES):
        parts, rest = parts[:-1], parts[-1:]
        # The configuration of a model alone stands beside it, and in a run everything else.
        only = "" if rest[0] == "model.keras" else rest[0].removesuffix(".keras")
    if not parts or any(part in (".", "..") for part in (*parts, *rest)):
        raise ConfigError("names no folder of a store", file=url,
                          hint="give a URL such as s3://BUCKET/FOLDER")
    return f"{scheme}://{lead}{'/'.join(parts)}", posixpath.join("", *rest), only


def cache() -> str:
    """The folder of all mirrors."""
    return os.path.abspath(os.environ.get(CACHE) or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pixelnet-tf"))


def _limit() -> int:
    text = os.environ.get(CACHE_GB) or str(_GB)
    try:
        return int(1e9 * float(text))
    except ValueError:
        raise ConfigError(f"{CACHE_GB} must be a number of GB, got {text!r}", value=text) from None


class Mirror:
    """One folder of a store, and the files of it that are here.

    Args:
        root: the folder of this machine.
        only: with which letters names must begin; empty for all.

    Attributes:
        claims: of those who write there, what raises where somebody else does by now.
    """

    def __init__(self, store: Store, root: str, only: str, reporter: Reporter):
        self.store, self.root, self.only, self.reporter = store, root, only, reporter
        self.claims: list[Callable[[], None]] = []
        #: What each file looked like when it equalled its object, and when it was what the manifest
        #: says: number, bytes, time of change.
        self._same: dict[str, tuple[int, int, int]] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        #: What of each manifest the store has.
        self._told: dict[str, bytes] = {}
        self._reading: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._bringing: dict[str, threading.Lock] = {}
        self._answered, self._gone_at = False, float("-inf")

    def url_of(self, path: str | os.PathLike[str]) -> str:
        """The URL of a file."""
        name = self._name(os.path.abspath(path))
        return self.store.url if name == "." else f"{self.store.url}/{name}"

    # What is read.

    def refresh(self, folder: str | None = None) -> None:
        """Bring the mirror to what the store holds, shards and checkpoints by their names alone.

        While a program of this machine writes there, nothing is done: what is here is newer.

        folder: one of it that this program has for itself, and that alone is brought.
        """
        if folder is None and (self.claims or in_use(self.root)):
            return
        part = "" if folder in (None, self.root) else self._name(folder) + "/"
        objects = {name: size for name, size in self._ask("list", self.store.list).items()
                   if name.startswith(self.only) and name.startswith(part) and not _hidden(name)}
        for name in sorted(objects, key=lambda name: not name.endswith(manifest.MANIFEST)):
            if posixpath.basename(name) == manifest.MANIFEST:
                self._bring(name)
                with open(self._path(name), "rb") as file:
                    self._told[name] = file.read()
        wanted = []
        for name, size in objects.items():
            if posixpath.basename(name) == manifest.MANIFEST:
                continue
            path = self._path(name)
            with suppress(FileNotFoundError):
                there = os.stat(path)
                entry = None if _lazy(name) else self._entry(path)
                # Of a log that grows the manifest knows the beginning alone.
                if there.st_size == size and (_lazy(name) or (
                        entry is not None and not entry.grows and self._right(name))):
                    if not _lazy(name):
                        self._same[name] = _mark(there)
                    continue
            if _lazy(name):
                _place_name(path, size)
                self._same.pop(name, None)
            else:
                wanted.append(name)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._bring, wanted))
        for path in _files_in(folder or self.root):
            name = self._name(path)
            if name.startswith(self.only) and name not in objects:
                with suppress(OSError):
                    os.remove(path)
                self._same.pop(name, None)
                self._told.pop(name, None)
        for empty, _, _ in os.walk(folder or self.root, topdown=False):
            with suppress(OSError):
                os.rmdir(empty)

    def need(self, path: str) -> bool:
        """Bring a file where only its name is here, or something else; whether it is right."""
        name = self._name(path)
        try:
            there = os.stat(path)
        except OSError:
            return True
        if _hidden(name) or posixpath.basename(name) == manifest.MANIFEST:
            return True
        if self._seen.get(name) == _mark(there):
            if time.time() - there.st_atime > _USED_SECONDS:
                _used(path, there)
            return True
        with self._lock:
            lock = self._bringing.setdefault(name, threading.Lock())
        with lock:
            with suppress(FileNotFoundError):
                there = os.stat(path)
                if self._seen.get(name) == _mark(there):
                    return True
                if self._right(name):
                    self._seen[name] = _mark(there)
                    return True
                if there.st_mtime_ns and not name.endswith(_SHARD) and self.claims:
                    # This process writes it just now, as TensorFlow does a checkpoint.
                    return True
            self._bring(name)
            if name.endswith(_SHARD):
                self._make_room(path)
            right = self._right(name)
            if right:
                self._seen[name] = self._same[name]
            return right

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """As `remote.reading`."""
        with self._lock:
            self._reading[path] += 1
        try:
            if not self.need(path):
                raise DataError("is not the file that was written: what the store holds has "
                                "another SHA-256 than its manifest says", file=self.url_of(path),
                                hint="run `pixelnet-tf prepare` again, which makes it anew")
            yield
        finally:
            with self._lock:
                self._reading[path] -= 1

    def _right(self, name: str) -> bool:
        """Whether a file is what the manifest says; of one that it does not tell of, whether that
        could be."""
        path = self._path(name)
        if os.stat(path).st_mtime_ns == 0:
            return False
        entry = self._entry(path)
        return (entry is not None and bool(entry.right) and not entry.differs(path)) or (
            entry is None and name in self._same and self._same[name] == _mark(os.stat(path)))

    def _entry(self, path: str) -> manifest.Entry | None:
        place = manifest.place_of(path)
        read = manifest.read(place[0]) if place else None
        return read.entries.get(place[1]) if read and place else None

    def _bring(self, name: str) -> None:
        """Copy an object here."""
        path = self._path(name)
        temporary = temporary_name(path)
        try:
            make_folder(os.path.dirname(path))
            self._ask("read", self.store.get, name, temporary, file=name)
            # Not of a time that stands for a name alone.
            os.utime(temporary)
            os.replace(temporary, path)
            self._same[name] = _mark(os.stat(path))
        except OSError as error:
            raise RunError(f"cannot be kept in {cache()}: {reason(error)}", file=self.url_of(path),
                           hint=f"make room there, or set {CACHE} to another folder") from None
        finally:
            with suppress(OSError):
                os.remove(temporary)

    def _make_room(self, brought: str, coming: int = 0) -> None:
        """Drop the shards that were used longest ago, where all of them are too many.

        coming: bytes of the one that is about to be moved to `brought`.
        """
        limit, found, total = _limit(), [], coming
        for folder, _, names in os.walk(cache()):
            for each in names:
                if each.endswith(_SHARD):
                    path = os.path.join(folder, each)
                    with suppress(OSError):
                        there = os.stat(path)
                        if there.st_mtime_ns:
                            total += there.st_size
                            found.append((there.st_atime_ns, path, there.st_size))
        for _, path, size in sorted(found):
            if total <= limit:
                return
            with self._lock:
                if path == brought or self._reading[path] > 0:
                    continue
                with suppress(OSError):
                    # Whoever has it open reads on in what was there.
                    _place_name(path, size)
                    total -= size

    # What is written.

    def put(self, path: str, source: str) -> None:
        """Put a file into the store under the name of `path`; `source` is moved there next."""
        name = self._name(path)
        there = os.stat(source)
        if _hidden(name) or there.st_mtime_ns == 0 or self._same.get(name) == _mark(there):
            return
        self._check_claims()
        self._ask("write", self.store.put, source, name, file=name)
        # A move keeps the file's number.
        self._same[name] = self._seen[name] = _mark(there)
        if name.endswith(_SHARD):
            self._make_room(path, there.st_size)

    def delete(self, path: str) -> None:
        """Remove an object."""
        name = self._name(path)
        if not _hidden(name):
            self._check_claims()
            self._ask("write", self.store.delete, name, file=name)
            self._same.pop(name, None)

    def put_manifest(self, path: str, settled: bool) -> None:
        """Put a manifest, where the store lacks a line of it."""
        name = self._name(path)
        if _hidden(name) or (settled and self.claims):
            return
        with self._lock:
            data = Path(path).read_bytes()
            if self._told.get(name) == data:
                return
            self._check_claims()
            # What was read, and not the file: other threads may add to it meanwhile.
            self._put_bytes(name, data, temporary_name(path))
            self._told[name] = data

    def put_folder(self, folder: str) -> None:
        """Put every file of a folder, without its manifest first, and with it at last."""
        if _hidden(self._name(folder)):
            return
        self._check_claims()
        beginning = self._name(folder) + "/"
        before = [name for name in self._ask("list", self.store.list)
                  if name.startswith(beginning) and not _hidden(name)]
        for name in sorted(before, key=lambda name: posixpath.basename(name) not in _LAST):
            if posixpath.basename(name) in _LAST:
                self._ask("write", self.store.delete, name, file=name)
        paths = sorted(_files_in(folder), key=lambda path: (
            os.path.basename(path) in _LAST, os.path.basename(path) == manifest.MANIFEST, path))
        for name in {*before} - {self._name(path) for path in paths}:
            self._ask("write", self.store.delete, name, file=name)
        for path in paths:
            name = self._name(path)
            self._ask("write", self.store.put, path, name, file=name)
            if os.path.basename(path) == manifest.MANIFEST:
                self._told[name] = Path(path).read_bytes()
            else:
                self._same[name] = _mark(os.stat(path))

    def settle(self) -> None:
        """Put whatever the manifests say by now; at the end of a work."""
        for path in _files_in(self.root):
            if os.path.basename(path) == manifest.MANIFEST:
                self.put_manifest(path, settled=False)

    def drop_checkpoints(self) -> None:
        """Keep the names alone of checkpoints, which the store has."""
        for path in _files_in(self.root):
            name = self._name(path)
            if _lazy(name) and not name.endswith(_SHARD):
                with suppress(OSError):
                    there = os.stat(path)
                    if self._same.get(name) == _mark(there):
                        _place_name(path, there.st_size)

    def _put_bytes(self, name: str, data: bytes, copy: str) -> None:
        """Put bytes by way of a file `copy`, which is removed again."""
        try:
            Path(copy).write_bytes(data)
            self._ask("write", self.store.put, copy, name, file=name)
        finally:
            with suppress(OSError):
                os.remove(copy)

    def _check_claims(self) -> None:
        for check in self.claims:
            check()

    # What is said of a lock; `io/locks.py` knows what it means.

    def read_object(self, name: str) -> bytes | None:
        """A small object, which has no file here."""
        return self._ask("read", self.store.read, name, file=name)

    def create_object(self, name: str, data: bytes) -> bool:
        """Make an object, which has no file here, unless it is there."""
        return self._ask("write", self.store.create, name, data, file=name)

    def replace_object(self, name: str, data: bytes) -> None:
        """Write an object that has no file here."""
        make_folder(self.root)
        self._put_bytes(name, data, temporary_name(os.path.join(self.root, "object")))

    def delete_object(self, name: str) -> None:
        """Remove an object that has no file here."""
        self._ask("write", self.store.delete, name, file=name)

    def _ask(self, what: str, call: Callable[..., T], *arguments: object, file: str = "") -> T:
        """Ask the store, again and again where the reason may pass.

        Raises:
            ConfigError: it refuses from the first, or there is no such bucket.
            RunError: it does not answer, or refuses what it allowed before.
        """
        url = f"{self.store.url}/{file}" if file else self.store.url
        wait, said = FIRST_WAIT, False
        for left in range(self.store.tries - 1, -1, -1):
            try:
                found = call(*arguments)
                self._answered, self._gone_at = True, float("-inf")
                return found
            except PixelNetError:
                raise
            except Exception as error:
                fault = self.store.fault(error)
                words = (str(error).strip().splitlines() or [type(error).__name__])[0]
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    # This machine's disk.
                    raise
                if fault != Fault.PASSING:
                    raise self._refusal(fault, what, url, words) from None
                if not left or time.monotonic() - self._gone_at < _GONE_SECONDS:
                    self._gone_at = time.monotonic()
                    raise RunError(
                        f"the store does not answer ({words})", file=url,
                        hint="what it holds is whole: give the same command again when it answers "
                             "(train with --resume), and it goes on from there") from None
                if not said:
                    self.reporter.warning(f"{url}: the store does not answer ({words}); trying "
                                          f"{left} times again")
                    said = True
                time.sleep(wait)
                wait *= 2
        raise AssertionError("a store is asked at least once")

    def _refusal(self, fault: Fault, what: str, url: str, words: str) -> PixelNetError:
        if fault == Fault.MISSING and self._answered:
            return RunError(f"is no longer there ({words})", file=url,
                            hint="let no other program write there, and start again")
        kind = RunError if self._answered else ConfigError
        if fault == Fault.MISSING:
            return kind(f"there is no such bucket ({words})", file=url,
                        hint="make it, or give another URL")
        if fault == Fault.REFUSED:
            return kind(f"the store refuses to {what} ({words})", file=url,
                        hint="see to the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                             "or AWS_PROFILE) and to what they allow")
        return kind(f"the store cannot make sense of it ({words})", file=url,
                    hint="give a URL such as s3://BUCKET/FOLDER")

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _path(self, name: str) -> str:
        path = os.path.normpath(os.path.join(self.root, name))
        if not path.startswith(self.root + "/"):
            raise DataError(f"holds an object of the name {json.dumps(name)}, which is no path in "
                            "a folder", file=self.store.url, hint="remove it")
        return path


def _lazy(name: str) -> bool:
    """Whether a file is brought when it is read rather than when the folder is opened."""
    folder, base = posixpath.split(name)
    return base.endswith(_SHARD) or (posixpath.basename(folder) == "checkpoints"
                                     and (base.endswith(".index") or ".data-" in base))


def _hidden(name: str) -> bool:
    """Whether a file is a lock, or one of the work alone."""
    return any((part.startswith(".") and part not in (".", "..")) or is_temporary(part)
               for part in name.split("/"))


def _files_in(folder: str) -> list[str]:
    """Every file in a folder and below it, but hidden ones."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [os.path.join(parent, name) for name in sorted(names) if not _hidden(name)]
    return found


def _mark(there: os.stat_result) -> tuple[int, int, int]:
    return there.st_ino, there.st_size, there.st_mtime_ns


def _place_name(path: str, size: int) -> None:
    """Put a file of a size without content, known by its time of change, which is 0."""
    make_folder(os.path.dirname(path))
    temporary = temporary_name(path)
    with open(temporary, "xb") as file:
        file.truncate(size)
    os.utime(temporary, (0, 0))
    os.replace(temporary, path)


def _used(path: str, there: os.stat_result) -> None:
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), there.st_mtime_ns))
