"""The one error that reading or writing a Caffe file raises."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

_LISTED = 10
_MAX_TEXT = 4000


def listed(names: Collection[str]) -> str:
    """Return names as an error lists them: the first ten, and how many there are."""
    shown = ", ".join(list(names)[:_LISTED]) or "none"
    return shown if len(names) <= _LISTED else f"{shown}, ... ({len(names)} in all)"


def _shortened(text: str) -> str:
    """A text without its middle, where it quotes more of a file than anybody reads."""
    half = _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} ... {text[-half:]}"


class CaffeFormatError(ValueError):
    """A Caffe file that cannot be read, understood or written.

    The text names the file, with line and column where they are known, says what was found there
    and what to do next.

    Attributes
    ----------
    message
        The text without the place.
    path, line, column
        The place, for programs; None where it is not known. Lines and columns count from 1.

    Examples
    --------
    >>> from prototxt_import import CaffeFormatError, load_network
    >>> _ = open("bad.prototxt", "w").write("name: 'net'\\nlayer { type: 3 }")
    >>> try:
    ...     load_network("bad.prototxt")
    ... except CaffeFormatError as error:
    ...     print(error.path, error.line)
    bad.prototxt 2
    """

    def __init__(
        self,
        message: str,
        path: str | os.PathLike | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.message = _shortened(message)
        self.path = None if path is None else os.fspath(path)
        self.line = line
        self.column = column
        place = ":".join(str(part) for part in (self.path, line, column) if part is not None)
        super().__init__(f"{place}: {self.message}" if place else self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.path, self.line, self.column)
