"""How long work speaks to whoever started it: messages, warnings and progress.

Nothing in the library writes to the terminal. Functions that take long accept a `Reporter`; where
none is given, they speak to the logger `pixelnet_tf` of the standard library, so that a program
decides by `logging` what it shows. The command line brings a reporter of its own.
"""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

logger = logging.getLogger("pixelnet_tf")


@runtime_checkable
class Reporter(Protocol):
    """What long work calls; any object with these three methods will do.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> class Printer:
    ...     def message(self, text):
    ...         print(text)
    ...     warning = message
    ...     def progress(self, task, done, total, detail=""):
    ...         print(task, done, total)
    >>> isinstance(Printer(), px.Reporter)
    True
    >>> study = px.write_phantom("reported", cases=2, size=(32, 32, 16), reporter=Printer())
    drawing 1 2
    drawing 2 2
    """

    def message(self, text: str) -> None:
        """Say something that a reader may want to know."""

    def warning(self, text: str) -> None:
        """Say something that a reader should look at."""

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Say how far a task is.

        Parameters
        ----------
        task
            What is done, as a word before a count: "preparing", "scoring", "training".
        done, total
            Steps, cases or slices done and in all.
        detail
            What is in work, or figures of the last step.
        """


class LogReporter:
    """The reporter of a library call: the standard logger `pixelnet_tf`.

    Messages are logged at level INFO, warnings at WARNING, progress at DEBUG.
    """

    def message(self, text: str) -> None:
        """Log a message."""
        logger.info("%s", text)

    def warning(self, text: str) -> None:
        """Log a warning."""
        logger.warning("%s", text)

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Log how far a task is."""
        logger.debug("%s %d/%d %s", task, done, total, detail)


def reporter_or_log(reporter: Reporter | None) -> Reporter:
    """Return the reporter that was given, or the one that logs."""
    return LogReporter() if reporter is None else reporter
