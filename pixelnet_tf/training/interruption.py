"""Ctrl-C and SIGTERM during a training: let the work at hand end, then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

#: What `signal.signal` takes.
_Handler = Callable[[int, FrameType | None], Any] | int
#: Exit code of a program that SIGTERM ended, as shells count it: 128 and the signal's number.
TERMINATED = 128 + signal.SIGTERM


class Interruption:
    """While it is entered, Ctrl-C raises KeyboardInterrupt and SIGTERM raises SystemExit(143).

    Inside `held` both wait until the block has ended, so that a solver step is applied whole; a
    second signal does not wait. What the signals did before comes back on leaving. In another
    thread than the main one Python hands out no signals, and nothing is changed.
    """

    def __init__(self) -> None:
        self._holding = False
        self._waiting: int | None = None
        self._before: dict[int, _Handler | None] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            # None: the handler was not Python's own, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back inside the block, and give way to one that came at its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting is not None:
            _stop(self._waiting)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._holding and self._waiting is None:
            self._waiting = number
        else:
            _stop(number)


def _stop(number: int) -> NoReturn:
    if number == signal.SIGTERM:
        raise SystemExit(TERMINATED)
    raise KeyboardInterrupt
