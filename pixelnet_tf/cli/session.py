"""What holds for a whole call of the command line: how much is said, and where it is kept.

One process is one call, so that its settings stand in one place, `SESSION`, which `main` begins and
ends.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TextIO

from pixelnet_tf.errors import RunError

#: Its value says which of TensorFlow's own lines are shown; 3 leaves what ends the program.
LEVEL = "TF_CPP_MIN_LOG_LEVEL"


class Session:
    """How much is said, and the file that keeps it.

    Attributes:
        arguments: of the call.
        quiet: whether messages and progress stay off the terminal; warnings and errors do not.
        verbose: whether TensorFlow's own lines are shown.
    """

    def __init__(self) -> None:
        self.arguments: tuple[str, ...] = ()
        self.quiet = self.verbose = False
        self._log: TextIO | None = None

    def keep_in(self, path: Path) -> None:
        """Add what is said from now on to a file, after a line with the call.

        Raises:
            RunError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(path, "a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(f"cannot be written: {error.strerror}", file=path) from None
        self.keep("pixelnet-tf " + shlex.join(self.arguments))

    def keep(self, text: str) -> None:
        """Add a text to the file, if there is one, each line with the time.

        A full disk must not end a training: what cannot be kept is lost.
        """
        if self._log is None:
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):
            self._log.writelines(f"{now} {line}\n" for line in text.splitlines())
            self._log.flush()

    def end(self, code: int) -> None:
        """Close the file with the exit code, and begin anew."""
        self.keep(f"exit code {code}")
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
        self.__init__()  # type: ignore[misc]


SESSION = Session()


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without the lines that its libraries write when they are loaded.

    They come from initialisers that run before any setting is looked at, straight to file
    descriptor 2, which therefore leads nowhere until the import has ended. Errors of the import
    are exceptions and come through.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow" or SESSION.verbose:
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
        with _standard_error_closed():
            self._loader.exec_module(module)


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
    """From now on TensorFlow's own lines stay off the terminal, unless `SESSION.verbose`."""
    os.environ.setdefault(LEVEL, "3")
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())
