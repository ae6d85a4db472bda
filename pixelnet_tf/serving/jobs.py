"""How far the requests to `/v1/segment` are that are under way, by the names that clients gave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pixelnet_tf.serving.api_error import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Job:
    """A request that is under way; it hears of the work as a `Reporter` does.

    Attributes:
        state: what is done now, steps done and in all. One tuple, for another thread reads it.
    """

    def __init__(self) -> None:
        self.state = ("receiving", 0, 0)

    def message(self, text: str) -> None:
        """Nobody asks for it."""

    def warning(self, text: str) -> None:
        """Nobody asks for it."""

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Keep how far a task is."""
        self.state = (task, done, total)


class Jobs:
    """The requests that are under way and have a name; each is forgotten when it is answered."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    @contextmanager
    def under_way(self, name: str | None) -> Iterator[Job]:
        """A job for as long as its request lasts.

        Args:
            name: what the client calls it, hard to guess; None: nobody will ask.

        Raises:
            ApiError: 400 for a name that could be guessed, 409 for one that is in use.
        """
        job = Job()
        if name is None:
            yield job
            return
        if not _NAME.fullmatch(name):
            raise ApiError(400, "`job` must be 16 to 64 random letters, digits, `-` or `_`")
        if name in self._jobs:
            raise ApiError(409, "a request of this name is under way; take another name")
        self._jobs[name] = job
        try:
            yield job
        finally:
            del self._jobs[name]

    def get(self, name: str) -> Job:
        """The job of a name; raises `ApiError` 404."""
        job = self._jobs.get(name)
        if job is None:
            raise ApiError(404, "no request of this name is under way; it may be answered already")
        return job
