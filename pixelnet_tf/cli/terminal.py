"""The command line's reporter: a bar on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pixelnet_tf.cli.session import SESSION
from pixelnet_tf.errors import as_shown

#: Without a terminal no line of progress follows another sooner than this, but for the last one of
#: a task.
_QUIET_SECONDS = 5.0


class TerminalReporter:
    """Shows messages and the progress of tasks.

    Use it as a context manager, so that the terminal is given back whatever happens.
    """

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._starts: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}
        self._last = float("-inf")

    def __enter__(self) -> TerminalReporter:
        if self._console.is_terminal and not SESSION.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"), console=self._console)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def message(self, text: str) -> None:
        """Print a line, unless the session is quiet; a running bar stays below it."""
        self._say(text, shown=not SESSION.quiet)

    def warning(self, text: str) -> None:
        """Print a line that begins with `warning:`."""
        self._say(f"warning: {text}", shown=True)

    def _say(self, text: str, shown: bool) -> None:
        text = as_shown(text)
        SESSION.keep(text)
        if shown:
            self._console.print(escape(text), highlight=False, soft_wrap=True)

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Move the task's bar, or print a line now and then."""
        if self._bar is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bar.add_task(task, total=total, detail="")
            elif done < self._done[task]:
                self._bar.reset(self._tasks[task])
            self._bar.update(self._tasks[task], completed=done, total=total,
                             detail=escape(detail))
        now = time.monotonic()
        if done < self._done.get(task, 0) or task not in self._starts:
            # Its first report, or it begins anew, as the next training of an experiment.
            self._starts[task] = now, done
        self._done[task] = done
        start, first = self._starts[task]
        if done < total and now - self._last < _QUIET_SECONDS:
            return
        self._last = now
        text = f"{task} {done}/{total} {detail}".rstrip()
        if first < done < total:
            text += f"  {_duration((now - start) / (done - first) * (total - done))} left"
        # A bar shows it already.
        self._say(text, shown=not SESSION.quiet and self._bar is None)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
