"""What can go wrong, and the exit code that the command line gives it.

Exit codes: 0 done, 2 usage or configuration, 3 data that is missing or invalid, 4 a model or
weights that are missing or do not fit, 5 runtime failure, 130 interrupted, 143 ended by SIGTERM.
What is missing has the code of what it should hold.
"""

from __future__ import annotations

import difflib
import importlib
import os
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

E = TypeVar("E", bound="PixelNetError")
#: Folders that are known to the user by another name; see `show_as`.
_names: dict[str, str] = {}

#: Of an error's text. It lists what is wrong with a study's cases, and may quote a file.
_MAX_TEXT = 20_000
#: What the loader of libraries says where memory does not suffice for one.
_NOT_MAPPED = ("failed to map segment", "annot allocate memory")
#: What `nearest_hint` compares.
_LONGEST_WORD, _MOST_WORDS = 100, 10_000


class PixelNetError(Exception):
    """Base of every error that a user can cause; its text is all that the command line prints.

    The text is put together from the parts, so that what a program reads and what a person reads
    are the same: `case NAME: FILE: what is wrong; next step`. The next step has a line of its own
    where the text has several.

    Parameters
    ----------
    what
        What is wrong, without its place and without the next step. It may begin with the file
        itself, where a line within it follows.
    case, file
        What it is about, where it is about one case or one file; else None.
    value
        The value that was met, as the message shows it; else None.
    hint
        The next step, as an imperative; None where there is none.

    Attributes
    ----------
    case, file, value, hint
        As they were given; of an error that lists several, those of the first.
    faults
        The single errors, where this one lists several; else empty.
    exit_code
        What the command line ends with.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> try:
    ...     px.load_config("phantom", ["sampling.pixels=none"])
    ... except px.PixelNetError as error:
    ...     print(error.exit_code, error)
    2 phantom: sampling.pixels must be of type int, got 'none' (str)
    """

    exit_code = 5

    def __init__(self, what: str, *, case: str | None = None,
                 file: str | os.PathLike[str] | None = None, value: Any = None,
                 hint: str | None = None):
        super().__init__(_shortened(what))
        self.case, self.value, self.hint = case, value, hint
        self.file = None if file is None else os.fspath(file)
        self.faults: tuple[PixelNetError, ...] = ()

    @classmethod
    def listing(cls: type[E], faults: Sequence[PixelNetError], lead: str = "", *,
                by_case: bool = False, hint: str | None = None) -> E:
        """One error that lists several, a line for each.

        Parameters
        ----------
        faults
            At least one.
        lead
            The line above the list.
        by_case
            Whether the lines are indented and begin with `NAME: ` rather than with `case NAME: `.
        hint
            The line below the list: the next step for all of them.
        """
        lines = [f"  {fault.case}: {fault.text}" if by_case else str(fault) for fault in faults]
        made = cls("\n".join(filter(None, [lead, *lines, hint])))
        made.faults, first = tuple(faults), faults[0]
        made.case, made.file, made.value = first.case, first.file, first.value
        made.hint = hint or first.hint
        return made

    @property
    def text(self) -> str:
        """The message without the case, for a list that is ordered by cases."""
        text = str(self.args[0])
        if self.faults:
            return as_shown(text)
        if self.file is not None and not text.startswith(self.file):
            text = f"{self.file}: {text}"
        if self.hint is not None:
            text = f"{text}\n{self.hint}" if "\n" in text else f"{text}; {self.hint}"
        return as_shown(text)

    def __str__(self) -> str:
        return self.text if self.case is None or self.faults else f"case {self.case}: {self.text}"

    @classmethod
    def of(cls: type[E], error: PixelNetError, *, case: str | None = None,
           file: str | os.PathLike[str] | None = None, source: str | os.PathLike[str] | None = None,
           hint: str | None = None) -> E:
        """An error of this class from one that knew less of its place; what that has, it keeps.

        Parameters
        ----------
        source
            A path, which is the file; or a text, as the name of an image in memory, with which the
            message is to begin.
        """
        what = str(error.args[0])
        if isinstance(source, str):
            what = f"{source}: {what}"
        elif file is None:
            file = source
        made = cls(what, case=case if error.case is None else error.case,
                   file=file if error.file is None else error.file, value=error.value,
                   hint=hint if error.hint is None else error.hint)
        made.faults = error.faults
        return made


class ConfigError(PixelNetError):
    """An unknown key, a wrong type or value, a missing configuration file."""

    exit_code = 2


class DataError(PixelNetError):
    """A study, case, volume or prediction that is missing or cannot be used as it is."""

    exit_code = 3


class MissingVolume(DataError):
    """A modality of which a case has no image, or the segmentation; `value` is its name."""


class ModelError(PixelNetError):
    """Weights or a model that are missing, or do not fit what they are asked to do."""

    exit_code = 4


class RunError(PixelNetError):
    """A failure while running: a full disk, a server that went away, a broken checkpoint."""

    exit_code = 5


class WorkerDied(RunError):
    """The processes at work on a case died, the first one and the one that tried again."""


def show_as(folder: str, name: str) -> None:
    """From now on call a folder by another name in what is said: that of which it is a copy."""
    _names[folder] = name


def as_shown(text: str) -> str:
    """A text with folders called as `show_as` was told."""
    for folder, name in _names.items():
        text = text.replace(folder, name)
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice: Python's, TensorFlow's, the loader's of
    libraries."""
    if isinstance(error, ImportError):
        return any(words in str(error) for words in _NOT_MAPPED)
    # TensorFlow's class is known by its name: this module loads nothing.
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def require(what: str, extra: str, *modules: str) -> None:
    """Raise `ConfigError` where a module of an optional part cannot be imported.

    The project is on no package index: an extra is installed from its folder.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"{what} needs {', '.join(modules)} ({error})", value=module,
                hint=f'in the folder of pixelnet-tf run: pip install ".[{extra}]"') from None


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
