"""Lines of CSV in which a spreadsheet finds numbers and words, never a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: What Excel, LibreOffice and others take for the beginning of a formula, wide forms included.
_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|inf|nan)"
#: A number, as tables write it: with its spread, or with how many it is the mean of.
_PLAIN = re.compile(rf"-|{_NUMBER}(?: ± {_NUMBER})?(?: \(n=\d+\))?")


def csv_text(rows: Iterable[Sequence[Any]], delimiter: str = ",") -> str:
    """Return rows as CSV, each ending with a newline; with a tab as delimiter it is TSV.

    A text that a spreadsheet would calculate, as a case called `=cmd|...` would be, gets the
    apostrophe before it that makes it a text there. Numbers stay as they are.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return sink.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _PLAIN.fullmatch(value):
        return f"'{value}"
    return value
