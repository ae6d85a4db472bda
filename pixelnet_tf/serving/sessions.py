"""Uploads that are kept for some time, as viewers send an image once and ask about it often."""

from __future__ import annotations

import math
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.serving.api_error import ApiError

#: Seconds for which a session is kept that nobody uses, at most and by default.
LONGEST_SECONDS = 3600
#: How many there may be, and how often the largest upload they may hold together.
_MOST_SESSIONS, _WHOLE_UPLOADS = 64, 4


@dataclass
class Session:
    """An upload.

    Attributes:
        name: hard to guess; whoever has it can use and remove the session.
        files: name as the client called it -> where it lies.
        expiry: seconds without use after which it is gone.
        begun, used: when, seconds since 1970.
    """

    name: str
    files: dict[str, Path]
    expiry: int
    size: int
    begun: float
    used: float

    def to_json(self) -> dict[str, Any]:
        """What is told of it; no path of the server's."""
        return {"name": self.name, "image": next(iter(self.files), ""), "path": "",
                "meta": {"files": list(self.files)}, "create_ts": int(self.begun),
                "last_access_ts": int(self.used), "expiry": self.expiry}


class Sessions:
    """The sessions of a server; those that have expired go, and no other makes room for a new one.

    All is on disk in a folder of the server's own, which is gone with it.

    Args:
        most_bytes: largest size of one upload.
    """

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes * _WHOLE_UPLOADS
        self._sessions: dict[str, Session] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None
        # Files are kept in other threads than sessions are asked for in.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove everything."""
        self._sessions.clear()
        self._stack.close()
        self._folder = None

    def add(self, files: Sequence[tuple[str, BinaryIO]], expiry: int) -> Session:
        """Keep files under numbers.

        Args:
            files: name and content of each.
            expiry: seconds; 0, and more than `LONGEST_SECONDS`, stands for these.

        Raises:
            ApiError: 503, there are as many as may be, or they hold as much.
            RunError, OSError: there is no room on the disk.
        """
        self.check()
        name = secrets.token_hex(16)
        with self._lock:
            if self._folder is None:
                self._folder = self._stack.enter_context(scratch_folder())
            folder = self._folder / name
        folder.mkdir()
        kept, size = {}, 0
        try:
            for number, (called, content) in enumerate(files):
                path = folder / str(number)
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                kept[called] = path
                size += path.stat().st_size
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        now = time.time()
        session = Session(name, kept, min(expiry, LONGEST_SECONDS) if expiry > 0
                          else LONGEST_SECONDS, size, now, now)
        with self._lock:
            try:
                self._check(size)
            except ApiError:
                self._drop(session)
                raise
            self._sessions[name] = session
        return session

    def check(self) -> None:
        """Raise `ApiError` 503 where no session can begin, before an upload is read for nothing."""
        with self._lock:
            self._check(0)

    def get(self, name: str) -> Session:
        """A session, which is used by that; raises `ApiError` 404."""
        with self._lock:
            self._drop_expired()
            session = self._sessions.get(name)
            if session is None:
                raise ApiError(404, "no such session; it may have expired: send the image again")
            session.used = time.time()
        return session

    def remove(self, name: str) -> Session:
        """Forget a session, which is returned; raises `ApiError` 404."""
        session = self.get(name)
        with self._lock:
            self._drop(session)
        return session

    def _check(self, size: int) -> None:
        self._drop_expired()
        held = sum(each.size for each in self._sessions.values())
        if len(self._sessions) < _MOST_SESSIONS and held + size <= self._most_bytes:
            return
        ends = min(each.used + each.expiry for each in self._sessions.values())
        raise ApiError(503, f"{len(self._sessions)} sessions of {held / 2**20:.0f} MiB are kept, "
                            f"and at most {_MOST_SESSIONS} of {self._most_bytes / 2**20:.0f} MiB "
                            "can be; end one by DELETE /session/ID, or try again later",
                       {"Retry-After": str(max(1, math.ceil(ends - time.time())))})

    def _drop_expired(self) -> None:
        now = time.time()
        for session in list(self._sessions.values()):
            if session.used + session.expiry < now:
                self._drop(session)

    def _drop(self, session: Session) -> None:
        self._sessions.pop(session.name, None)
        if self._folder is not None:
            shutil.rmtree(self._folder / session.name, ignore_errors=True)
