"""What became of the layers of a weight file."""

from __future__ import annotations

from dataclasses import dataclass

_WIDEST = 80
MATCHED, CONVERTED, LEFT_OUT, NOT_IN_FILE = "matched", "converted", "left out", "not in the file"


@dataclass(frozen=True)
class MatchRow:
    """One layer: its name here and in the file (empty: it has none), and what was done."""

    layer: str
    source: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class MatchTable:
    """What was taken from a weight file; `print(table)` shows a line for each layer."""

    rows: tuple[MatchRow, ...]

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the model's layers whose weights come from the file."""
        return tuple(row.layer for row in self.rows if row.status in (MATCHED, CONVERTED))

    @property
    def new_layers(self) -> frozenset[str]:
        """Names of the model's layers that have weights, but keep their start weights."""
        return frozenset(row.layer for row in self.rows if row.layer) - set(self.loaded)

    def __str__(self) -> str:
        cells = [("layer", "in the file", "what was done", "")]
        cells += [(r.layer or "-", r.source or "-", r.status, r.detail) for r in self.rows]
        # A cell that is longer stands out of its column: names of files may have any length.
        widths = [min(max(len(row[column]) for row in cells), _WIDEST) for column in range(4)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        counts = {
            status: sum(row.status == status for row in self.rows)
            for status in (MATCHED, CONVERTED, LEFT_OUT, NOT_IN_FILE)
        }
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
        return "\n".join(lines)
