"""How long work speaks to whoever started it: messages, warnings and progress.

Nothing in the library writes to the terminal. Functions that take long accept a `Reporter`; where
none is given, they speak to the logger `pixelnet_tf` of the standard library, so that a program
decides by `logging` what it shows. The command line brings a reporter of its own.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol, runtime_checkable

logger = logging.getLogger("pixelnet_tf")
#: Its value says which of TensorFlow's own lines are shown; 3 leaves what ends the program.
LEVEL = "TF_CPP_MIN_LOG_LEVEL"


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


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without the lines that its libraries write when they are loaded, and
    without what nothing here asks of it.

    The lines come from initialisers that run before any setting is looked at, straight to file
    descriptor 2, which therefore leads nowhere until the import has ended. Errors of the import
    are exceptions and come through.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow" or os.environ.get(LEVEL) == "0":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    """Another loader, unheard."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What the module asks its own loader for (files, source) it gets from the real one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _standard_error_closed(), _unfound(_UNUSED):
            self._loader.exec_module(module)


#: What Keras loads where it is installed, for galleries of pictures and tables in `fit`: a fifth of
#: the time that TensorFlow takes to load.
_UNUSED = ("matplotlib", "pandas")


@contextmanager
def _unfound(names: Sequence[str]) -> Iterator[None]:
    """Have packages that are not loaded pass for not installed; afterwards they are there."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:
        # There is none.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def load_tensorflow_quietly() -> None:
    """From now on TensorFlow's own lines stay off the terminal, unless `LEVEL` is 0."""
    os.environ.setdefault(LEVEL, "3")
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())
