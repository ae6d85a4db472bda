"""Locks: who is at work on a folder or a case, and whether that program is still alive.

A lock is a file that is there under its name or not, made by a hard link, which is exclusive on
network file systems too; nothing here needs `flock`. It says who owns it: verb, host, process and
since when. Its time of change is the owner's heartbeat. A lock whose owner is dead is taken over by
the next program that wants it, and that is said: on the owner's own host as soon as its process is
gone, elsewhere after `STALE_SECONDS` without a heartbeat.

A folder that mirrors one of an object store (`io/remote.py`) is locked here, and there by an
object, `.lock`, which is made only where there is none, and which its owner writes anew every
`CLAIM_SECONDS`. Its work is not shared: one program at a time writes to a folder of a store.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pixelnet_tf.errors import DataError, PixelNetError, RunError
from pixelnet_tf.io import remote
from pixelnet_tf.io.disk import Pathname, make_folder, reason
from pixelnet_tf.io.plain import build
from pixelnet_tf.reporting import Reporter

if TYPE_CHECKING:
    from pixelnet_tf.io.mirror import Mirror

#: A lock's file is touched this often.
HEARTBEAT_SECONDS = 10.0
#: Without a heartbeat for so long, the owner on another host counts as dead.
STALE_SECONDS = 300.0
#: The object that locks a folder of a store is written this often.
CLAIM_SECONDS = 60.0
#: Two programs that take over such a lock at the same moment see, after so long, which of them has
#: it.
_CONFIRM_SECONDS = 1.0
#: A program that waits for its turn, or for a case, looks this often.
_POLL_SECONDS = 0.05

#: A folder's lock.
LOCK = ".lock"


class Named(Protocol):
    """What is locked one by one; its lock is called by its name."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


@dataclass(frozen=True)
class Owner:
    """What a lock says of the program that holds it.

    Attributes:
        verb: what it does.
        host, pid, since: where it runs, and the time (UTC) at which it took the lock.
        machine: boot and process namespace, within which `pid` means something.
        started: start of the process as the system counts it: numbers of processes come again.
        key: of programs that share a folder, digest of what they make of what; else empty.
        id: no other lock's.
    """

    verb: str
    host: str
    pid: int
    since: str
    machine: str = ""
    started: str = ""
    key: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @classmethod
    def this(cls, verb: str, key: str = "") -> Owner:
        """This process."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        return cls(verb, socket.gethostname(), os.getpid(), now, _machine(),
                   _start_of(os.getpid()) or "", key)

    def __str__(self) -> str:
        return f"`{self.verb}` (process {self.pid} on {self.host}, since {self.since})"

    def dead(self, age: float) -> bool:
        """Whether the owner is gone; `age` is that of its last heartbeat in seconds."""
        if self.host == socket.gethostname():
            if self.machine == _machine():
                return _start_of(self.pid) != self.started
            if self.machine.split()[:1] != _machine().split()[:1] and age > _uptime():
                # The host has been started again since. (Another one of its name would go on.)
                return True
        return age > STALE_SECONDS


class Lock:
    """A lock that is held; this one where nothing needs to be locked."""

    def check(self) -> None:
        """Raise `RunError` where another program has taken the lock over.

        That happens to a program that was suspended for longer than `STALE_SECONDS`. It must not
        write any more.
        """

    def release(self) -> None:
        """Let go of it."""


class _FileLock(Lock):
    """The file of a lock, which is kept young until `release`."""

    def __init__(self, path: str, owner: Owner, handle: int):
        self.path, self.owner = path, owner
        self._handle, self._ended = handle, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        if not self._own():
            raise RunError("another program has taken the lock over, as this one had given no sign "
                           f"of life for {STALE_SECONDS:g} s; nothing more is written",
                           file=self.path, hint="start again")

    def release(self) -> None:
        # What another program has taken over stays, and in a child what its parent holds.
        if self._ended.is_set() or os.getpid() != self.owner.pid:
            return
        self._ended.set()
        with suppress(OSError):
            if self._own():
                os.unlink(self.path)
        os.close(self._handle)

    def now(self) -> float:
        """The time of the file system that the lock is on."""
        os.utime(self._handle)
        return os.fstat(self._handle).st_mtime

    def _own(self) -> bool:
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        mine = os.fstat(self._handle)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                # Of the file that was made, not of the one that stands under its name now.
                os.utime(self._handle)


@contextmanager
def exclusive(folder: Pathname, verb: str, reporter: Reporter) -> Iterator[Lock]:
    """Hold a folder alone; it is made where it is missing, and removed if it is left empty.

    One that mirrors a folder of a store is held there, too, and brought to what that holds.

    Raises:
        RunError: another program is at work there; the message names it. Or the folder cannot be
            written to.
    """
    folder = os.fspath(folder)
    with _folder(folder):
        owner = Owner.this(verb)
        lock = _take_or_refuse(folder, owner, reporter)
        try:
            for other in _members(folder, lock, reporter):
                raise _in_use(folder, other)
            with _claimed(folder, owner, reporter):
                yield lock
        finally:
            lock.release()


def check_free(folder: Pathname) -> None:
    """Raise `RunError` where a living program is at work on a folder; writes nothing."""
    folder = os.fspath(folder)
    for owner in _alive(folder):
        raise _in_use(folder, owner)
    if mirror := remote.mirror_of(folder):
        held = _Claim(mirror, folder, Owner.this(""))
        if (found := held.read()) is not None and not found.stale:
            raise _in_use(folder, found.owner)


def in_use(folder: Pathname) -> bool:
    """Whether a living program of this machine is at work on a folder, or on one in it."""
    return any(True for each, _, names in os.walk(folder) if any(map(_is_lock, names))
               for _ in _alive(each))


def _alive(folder: str) -> Iterator[Owner | None]:
    """Who holds or shares a folder, of this file system, and lives."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if _is_lock(name):
            owner, age = _read(os.path.join(folder, name), time.time())
            if age is not None and not _stale(owner, age):
                yield owner


@contextmanager
def shared(folder: Pathname, verb: str, key: str, reporter: Reporter,
           alone: Callable[[], None] = lambda: None) -> Iterator[Sharing]:
    """Work on a folder together with programs that make the same there, each case by one of them.

    Args:
        key: digest of what is made of what; a program with another key is refused.
        alone: called where no other program is at work there, before one can begin: it removes what
            killed ones left behind.

    Raises:
        RunError: a program that makes something else is at work there; the message names it.
    """
    folder = os.fspath(folder)
    if remote.mirror_of(folder):
        with exclusive(folder, verb, reporter):
            alone()
            yield Sharing(folder, None, reporter)
        return

    def meet(others: list[Owner]) -> None:
        if others:
            reporter.message(f"{folder}: {others[0]} is at work on the same; the cases are shared")
        else:
            alone()

    with _member_of(folder, Owner.this(verb, key), reporter, meet) as sharing:
        yield sharing


@dataclass(frozen=True)
class Ticket:
    """What `Sharing.ticket` gives to a worker elsewhere, by which it joins the work.

    Attributes:
        folder: on a file system that both see.
        verb, key: as of the program that gave it.
        giver: the id of that program's lock.
    """

    folder: str
    verb: str
    key: str
    giver: str


@contextmanager
def joined(ticket: Ticket, reporter: Reporter) -> Iterator[Sharing]:
    """Join the work on a folder as long as the program is there that gave the ticket.

    A worker may outlive the program that sent it, as on another machine, and must not write into a
    folder that somebody has begun anew since.

    Raises:
        RunError: that program is gone, or this worker sees another folder.
    """
    folder = ticket.folder

    def meet(others: list[Owner]) -> None:
        if ticket.giver not in [other.id for other in others]:
            raise RunError(f"the program that sent this work is not at work there, as "
                           f"{socket.gethostname()} sees it", file=folder,
                           hint="give workers the same file system under the same path")

    with _member_of(folder, Owner.this(ticket.verb, ticket.key), reporter, meet) as sharing:
        yield sharing


@contextmanager
def _member_of(folder: str, owner: Owner, reporter: Reporter,
               meet: Callable[[list[Owner]], None]) -> Iterator[Sharing]:
    """Be one of those that make the same in a folder; `meet` hears who the others are, before
    anybody else can come."""
    with _folder(folder):
        turn = _take_or_refuse(folder, owner, reporter)
        try:
            others = []
            for other in _members(folder, turn, reporter):
                if other is None or other.key != owner.key:
                    raise _in_use(folder, other, " with other settings or data")
                others.append(other)
            with _saying(folder):
                member = _create(os.path.join(folder, f"{LOCK}.{owner.id}"), owner)
            try:
                meet(others)
            except BaseException:
                member.release()
                raise
        finally:
            turn.release()
        sharing = Sharing(folder, member, reporter)
        try:
            yield sharing
        finally:
            sharing.close()


class Sharing:
    """A program's part in the work on a folder; what `shared` gives."""

    def __init__(self, folder: str, member: _FileLock | None, reporter: Reporter):
        self._folder, self._member, self._reporter = folder, member, reporter
        self._cases: dict[str, Lock] = {}
        self._said = False

    @property
    def ticket(self) -> Ticket:
        """What a worker elsewhere joins by (`joined`)."""
        if self._member is None:
            # Workers elsewhere see no mirror, and none is given to them.
            return Ticket(self._folder, "", "", "")
        owner = self._member.owner
        return Ticket(os.path.abspath(self._folder), owner.verb, owner.key, owner.id)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one program at a time through, for files that are of all cases."""
        if self._member is None:
            yield
            return
        self._member.check()
        owner = self._member.owner
        # Whoever wants the folder for itself holds it until it sees this member.
        turn = _take_or_refuse(self._folder, Owner.this(owner.verb, owner.key), self._reporter,
                               wait=True)
        try:
            yield
        finally:
            turn.release()

    def take(self, items: Iterable[Item], done: Callable[[Item], bool], busy: list[Item]
             ) -> Iterator[Item]:
        """Yield the items whose lock could be taken and that are not done yet; see `give_back`.

        Args:
            done: whether an item is finished, asked when its lock is held.
            busy: receives those that others have in work.
        """
        for item in items:
            lock = self._take_case(item.name)
            if lock is None:
                busy.append(item)
                continue
            self._cases[item.name] = lock
            if done(item):
                self.give_back(item.name)
            else:
                yield item

    def check(self, name: str) -> None:
        """Raise `RunError` where an item's lock is no longer this program's."""
        self._cases[name].check()

    def give_back(self, name: str) -> None:
        """Let go of an item that was taken."""
        self._cases.pop(name).release()

    def wait(self, busy: Iterable[Item]) -> None:
        """Wait until others may have done one of the items that they had in work."""
        names = [item.name for item in busy]
        if not self._said:
            self._said = True
            self._reporter.message(f"waiting for {len(names)} cases that another program has in "
                                   f"work: {', '.join(names[:5])}")
        while all(self._held(name) for name in names):
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Let go of everything."""
        for lock in (*self._cases.values(), *([self._member] if self._member else [])):
            lock.release()
        self._cases.clear()

    def _case_path(self, name: str) -> str:
        # Names that are equal in so many characters are done one after the other.
        return os.path.join(self._folder, f".{name[:180]}{LOCK}")

    def _take_case(self, name: str) -> Lock | None:
        if self._member is None:
            return Lock()
        self._member.check()
        owner = Owner.this(self._member.owner.verb, self._member.owner.key)
        taken = _take_there(self._folder, self._case_path(name), owner, self._reporter)
        return taken if isinstance(taken, _FileLock) else None

    def _held(self, name: str) -> bool:
        owner, age = _read(self._case_path(name), time.time())
        return age is not None and not _stale(owner, age)


@dataclass(frozen=True)
class _Found:
    """What the object of a lock says."""

    owner: Owner | None
    stale: bool


class _Claim:
    """The object `.lock` in a folder of a store, by which programs of all machines know who writes.

    A store tells no time and knows no processes: the object holds the time of its owner's clock,
    which is written anew, so that clocks must agree to a minute or two.
    """

    def __init__(self, mirror: Mirror, folder: str, owner: Owner):
        self._mirror, self._owner = mirror, owner
        within = os.path.relpath(os.path.abspath(folder), mirror.root)
        self._name = LOCK if within == "." else f"{within}/{LOCK}"
        self._lost, self._ended = False, threading.Event()
        self._folder = folder

    def take(self, reporter: Reporter) -> None:
        """Make the object, or take that of a dead program over."""
        while not self._mirror.create_object(self._name, self._text()):
            found = self.read()
            if found is None:
                continue
            if not found.stale:
                raise _in_use(self._folder, found.owner)
            reporter.warning(f"{self._folder}: {found.owner or 'a program'} died at work there; "
                             "this one takes its place")
            self._mirror.delete_object(self._name)
            if self._mirror.create_object(self._name, self._text()):
                time.sleep(_CONFIRM_SECONDS)
                if self._own():
                    break
        threading.Thread(target=self._beat, daemon=True).start()

    def read(self) -> _Found | None:
        """Who has it; None where nobody has."""
        data = self._mirror.read_object(self._name)
        if data is None:
            return None
        try:
            tree: dict[str, Any] = json.loads(data)
            age = time.time() - float(tree.pop("beat"))
            owner = build(Owner, tree)
        except (ValueError, KeyError, TypeError, AttributeError, DataError):
            return _Found(None, False)
        return _Found(owner, owner.dead(age))

    def check(self) -> None:
        """Raise `RunError` where another program has taken it over."""
        if self._lost:
            raise RunError("another program has taken its lock over, as this one had given no sign "
                           f"of life for {STALE_SECONDS:g} s; nothing more is written",
                           file=self._folder, hint="start again")

    def release(self) -> None:
        """Remove the object, where it is this program's."""
        self._ended.set()
        # A store that is gone keeps it: the next program finds its owner dead.
        with suppress(PixelNetError):
            if self._own():
                self._mirror.delete_object(self._name)

    def _own(self) -> bool:
        found = self.read()
        return found is not None and found.owner is not None and found.owner.id == self._owner.id

    def _text(self) -> bytes:
        return json.dumps({**asdict(self._owner), "beat": time.time()}).encode()

    def _beat(self) -> None:
        while not self._ended.wait(CLAIM_SECONDS):
            # One who waits in vain for the store does not write to it either.
            with suppress(PixelNetError):
                if not self._own():
                    self._lost = True
                    return
                self._mirror.replace_object(self._name, self._text())


@contextmanager
def _claimed(folder: str, owner: Owner, reporter: Reporter) -> Iterator[None]:
    """Hold a folder's counterpart in a store, where it has one; what is written is there at last.
    """
    mirror = remote.mirror_of(folder)
    if mirror is None:
        yield
        return
    mirror.reporter = reporter
    claim = _Claim(mirror, folder, replace(owner, key=""))
    claim.take(reporter)
    try:
        if not mirror.claims:
            mirror.refresh(folder)
        mirror.claims.append(claim.check)
        try:
            yield
        except BaseException:
            with suppress(PixelNetError):
                mirror.settle()
            raise
        else:
            mirror.settle()
            mirror.drop_checkpoints()
        finally:
            mirror.claims.remove(claim.check)
    finally:
        claim.release()


@contextmanager
def _folder(folder: str) -> Iterator[None]:
    """Make a folder, and remove it again, and parents that were made, where it stays empty."""
    missing, path = [], folder.rstrip("/")
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    with _saying(folder):
        make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in missing:
                os.rmdir(path)


@contextmanager
def _saying(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot be written: {reason(error)}", file=folder) from None


def _in_use(folder: str, owner: Owner | None, how: str = "") -> RunError:
    return RunError(f"is in use by {owner or 'a program that has just begun'}{how}", file=folder,
                    hint="wait until that has ended, or give another --out")


def _take_or_refuse(folder: str, owner: Owner, reporter: Reporter, wait: bool = False
                    ) -> _FileLock:
    """Take the lock of a folder; one that is held for moments is waited for.

    Args:
        wait: wait for whoever holds it.
    """
    while True:
        taken = _take_there(folder, os.path.join(folder, LOCK), owner, reporter)
        if isinstance(taken, _FileLock):
            return taken
        # Those that share hold it for moments; whoever has no key holds it to the end.
        if not wait and taken.owner is not None and not taken.owner.key:
            raise _in_use(folder, taken.owner)
        time.sleep(_POLL_SECONDS)


def _take_there(folder: str, path: str, owner: Owner, reporter: Reporter) -> _FileLock | _Held:
    with _saying(folder):
        while True:
            try:
                return _take(path, owner, reporter)
            except FileNotFoundError:
                # Another program has removed the folder, as it was left empty, or the draft, which
                # did not say yet whose it is.
                make_folder(folder)


def _members(folder: str, lock: _FileLock, reporter: Reporter) -> list[Owner | None]:
    """The programs that share a folder, while its lock is held; files of dead ones are removed."""
    now, found, cases = lock.now(), [], []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path == lock.path or not (name.startswith(".") and LOCK in name):
            continue
        owner, age = _read(path, now)
        if age is None:
            continue
        if owner is None and name.endswith((".new", ".heir")):
            # Its program was killed before it had said who it is; or makes it anew.
            cases.append(path)
        elif not _stale(owner, age):
            found += [owner] * _is_lock(name)
        elif name.endswith(LOCK):
            cases.append(path)
        elif _is_lock(name) or name.endswith((".new", ".heir")):
            if _is_lock(name):
                reporter.warning(f"{folder}: {owner or 'a program'} died at work there; this one "
                                 "takes its place")
            # It has a name of its own, which nobody takes over.
            with suppress(OSError):
                os.unlink(path)
    # Those of dead ones' cases can be taken over, where there is anybody who would.
    for path in cases if not found else ():
        with suppress(OSError):
            os.unlink(path)
    return found


def _is_lock(name: str) -> bool:
    """Whether it is the lock of a folder, or of a program that shares it."""
    return name == LOCK or (name.startswith(LOCK + ".") and name.count(".") == 2)


@dataclass(frozen=True)
class _Held:
    owner: Owner | None


def _take(path: str, owner: Owner, reporter: Reporter) -> _FileLock | _Held:
    """Take a lock, from a dead owner where there is one.

    Only its heir may replace the file of a dead owner: whoever has made the file
    `<lock>.<id of the dead>.heir`, which is exclusive as well, and has found the dead one's lock
    still in its place afterwards. (A program that found the lock dead, was slow, and becomes the
    heir after another has been, finds another lock there and leaves it.) An heir that died before
    it replaced the lock has an heir of its own.
    """
    draft = f"{path}.{owner.id}.new"
    handle = _write_owner(draft, owner)
    taken, claims = None, []
    try:
        while taken is None:
            taken = _exclusive_copy(draft, path, handle, owner)
            if taken is not None:
                break
            os.utime(handle)
            # The file system's own time, which on a network share need not be this host's.
            now = os.fstat(handle).st_mtime
            root, age = _read(path, now)
            if age is None:
                continue
            if not _stale(root, age):
                return _Held(root)
            claims = _become_heir(path, root, draft, handle, owner, now)
            if not claims:
                time.sleep(_POLL_SECONDS / 10)
                continue
            if _read(path, now)[0] == root and os.path.exists(path):
                os.replace(draft, path)
                taken = os.dup(handle)
                reporter.warning(f"{path}: {root or 'a program'} died at work there; its lock is "
                                 "taken over")
            else:
                os.unlink(claims.pop())
                claims = []
        lock, taken = _FileLock(path, owner, taken), None
        return lock
    finally:
        if taken is not None:
            # Stopped on the way, by Ctrl-C for instance.
            os.unlink(path)
            os.close(taken)
        for name in (*claims, draft):
            with suppress(FileNotFoundError):
                os.unlink(name)
        os.close(handle)


def _become_heir(path: str, dead: Owner | None, draft: str, handle: int, owner: Owner, now: float
                 ) -> list[str]:
    """Claim what a dead owner held; returns the claims of heirs that died, and the own one, last.

    Nothing where another one is the heir.
    """
    claims: list[str] = []
    while True:
        claim = f"{path}.{dead.id if dead else ''}.heir"
        made = _exclusive_copy(draft, claim, handle, owner)
        if made is not None:
            os.close(made)
            return [*claims, claim]
        dead, age = _read(claim, now)
        if age is None or not _stale(dead, age):
            return []
        if dead is None or claim in claims:
            # It says nothing, or in a circle: of this program's files none does.
            os.unlink(claim)
            return []
        claims.append(claim)


def _create(path: str, owner: Owner) -> _FileLock:
    """Make the lock of a name that nobody else has."""
    draft = f"{path}.{owner.id}.new"
    handle = _write_owner(draft, owner)
    os.rename(draft, path)
    return _FileLock(path, owner, handle)


def _exclusive_copy(draft: str, target: str, handle: int, owner: Owner) -> int | None:
    """Give the file of a draft another name, and return a handle of it; None where that is taken.

    A file system without hard links gets another file of the same content.
    """
    links = os.fstat(handle).st_nlink
    try:
        os.link(draft, target)
    except FileExistsError:
        # NFS may ask again after a link that was made, if the answer was lost.
        if os.fstat(handle).st_nlink == links:
            return None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        try:
            return _write_owner(target, owner)
        except FileExistsError:
            return None
    return os.dup(handle)


def _write_owner(path: str, owner: Owner) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(handle, json.dumps(asdict(owner)).encode())
        # A power cut must not leave a lock that says nothing.
        os.fsync(handle)
    except BaseException:
        os.close(handle)
        os.unlink(path)
        raise
    return handle


def _read(path: str, now: float) -> tuple[Owner | None, float | None]:
    """Owner of a lock, None where it says none, and the age of its heartbeat, None if it is gone.
    """
    try:
        with open(path, "rb") as file:
            age = now - os.fstat(file.fileno()).st_mtime
            text = file.read()
    except OSError:
        return None, None
    try:
        return build(Owner, json.loads(text)), age
    except (ValueError, DataError):
        return None, age


def _stale(owner: Owner | None, age: float) -> bool:
    return age > STALE_SECONDS if owner is None else owner.dead(age)


@cache
def _machine() -> str:
    """What tells this boot of this host, and its namespace of processes, from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process of this host began, as the system counts it; None where there is none.

    Where the system does not say it, an empty text.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in parentheses, may hold anything.
            state, *fields = file.read().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def _uptime() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
