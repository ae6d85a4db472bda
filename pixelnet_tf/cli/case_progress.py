"""Progress over cases: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Without a terminal no line follows another sooner than this, but for the last of a stage.
_QUIET_SECONDS = 5.0


class CaseProgress:
    """Shows stages of work over cases; call it with (stage, cases done, cases in all, case).

    Use it as a context manager, so that the terminal is given back whatever happens.
    """

    def __init__(self, verbs: dict[str, str], console: Console | None = None):
        self._verbs = verbs
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._tasks: dict[str, int] = {}
        self._last = float("-inf")

    def __enter__(self) -> CaseProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                TextColumn("{task.fields[case]}"), console=self._console)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int, case: str) -> None:
        verb = self._verbs[stage]
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(verb, total=total, case="")
            self._bar.update(self._tasks[stage], completed=done, case=case)
            return
        now = time.monotonic()
        if done == total or now - self._last >= _QUIET_SECONDS:
            self._last = now
            self._console.print(f"{verb} {done}/{total} {case}", highlight=False, soft_wrap=True)
