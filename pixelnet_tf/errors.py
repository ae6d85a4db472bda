"""What can go wrong, and the exit code that the command line gives it.

Exit codes: 0 done, 2 usage or configuration, 3 data that is missing or invalid, 4 a model or
weights that are missing or do not fit, 5 runtime failure, 130 interrupted, 143 a training that
SIGTERM ended. What is missing has the code of what it should hold.
"""

from __future__ import annotations

import difflib
import importlib
import os
import reprlib
from collections.abc import Iterable
from typing import Any

#: Of an error's text. It lists what is wrong with a study's cases, and may quote a file.
_MAX_TEXT = 20_000
#: What `nearest_hint` compares.
_LONGEST_WORD, _MOST_WORDS = 100, 10_000


class PixelNetError(Exception):
    """Base of every error that a user can cause; its text is all that the command line prints.

    Attributes
    ----------
    case, file
        What it is about, where it is about one case or one file; else None.
    value
        The value that was met, as the message shows it.
    hint
        The next step, as the message words it.
    """

    exit_code = 5

    def __init__(self, message: str, *, case: str | None = None,
                 file: str | os.PathLike[str] | None = None, value: Any = None,
                 hint: str | None = None):
        super().__init__(_shortened(message))
        self.case, self.value, self.hint = case, value, hint
        self.file = None if file is None else os.fspath(file)


class ConfigError(PixelNetError):
    """An unknown key, a wrong type or value, a missing configuration file."""

    exit_code = 2


class DataError(PixelNetError):
    """A study, case, volume or prediction that is missing or cannot be used as it is."""

    exit_code = 3


class ModelError(PixelNetError):
    """Weights or a model that are missing, or do not fit what they are asked to do."""

    exit_code = 4


class RunError(PixelNetError):
    """A failure while running: a full disk, a server that went away, a broken checkpoint."""

    exit_code = 5


def require(what: str, extra: str, *modules: str) -> None:
    """Raise `ConfigError` where a module of an optional part cannot be imported.

    The project is on no package index: an extra is installed from its folder.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"{what} needs {', '.join(modules)} ({error}); in the folder of "
                              f'pixelnet-tf run: pip install ".[{extra}]"') from None


def _shortened(text: str) -> str:
    """A text without its middle, where it quotes more than anybody reads."""
    half = _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} ... {text[-half:]}"


class _Shown(reprlib.Repr):
    """`repr` of a few values of a few levels: of an endless one the whole is never written."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong, self.maxother = 3, 60, 40, 60

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of thousands of digits.
        return super().repr_int(x, level) if abs(x) < 10**100 else "a number of over 100 digits"


def shown(value: Any) -> str:
    """Return a value as messages show it, at most 80 characters."""
    return f"{_Shown().repr(value):.80}"


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known word nearest to `word`, or an empty string.

    Long words are nobody's slip, and comparing them takes the square of their length.
    """
    known = [each for each in known if len(each) <= _LONGEST_WORD][:_MOST_WORDS]
    if len(word) > _LONGEST_WORD:
        return ""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
