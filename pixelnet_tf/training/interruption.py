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
#: Exit code of a training on several devices that SIGTERM ended: to be started again, as a batch
#: system does (EX_TEMPFAIL of sysexits.h).
TRY_AGAIN = 75


class Interruption:
    """While it is entered, Ctrl-C raises KeyboardInterrupt and SIGTERM raises SystemExit(143).

    Inside `held` both wait until the block has ended, so that a solver step is applied whole; a
    second signal does not wait. What the signals did before comes back on leaving. In another
    thread than the main one Python hands out no signals, and nothing is changed.

    Args:
        code: the exit code of SIGTERM.
    """

    def __init__(self, code: int = TERMINATED) -> None:
        self.code = code
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

    @property
    def asked(self) -> bool:
        """Whether a signal waits for the end of a `held` block."""
        return self._waiting is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back inside the block, and give way to one that came at its end; within
        another such block, at the end of that."""
        outer, self._holding = self._holding, True
        try:
            yield
        finally:
            self._holding = outer
        if self.asked and not outer:
            self.stop()

    @contextmanager
    def not_held(self) -> Iterator[None]:
        """Inside a `held` block, work that a signal breaks off; the signal then waits on."""
        self._holding = False
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as stop:
            self._waiting = signal.SIGTERM if isinstance(stop, SystemExit) else signal.SIGINT
        finally:
            self._holding = True

    def stop(self) -> NoReturn:
        """Leave as the signal that waits says, or as SIGTERM does."""
        if self._waiting == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(self.code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self._waiting = self._waiting is None, number
        if not (self._holding and first):
            self.stop()
