"""What holds for a whole call of the command line: how much is said, and where it is kept.

One process is one call, so that its settings stand in one place, `SESSION`, which `main` begins and
ends.
"""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pixelnet_tf.errors import RunError


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
