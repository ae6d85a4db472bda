"""The index of a prepared study: one row a slice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from pixelnet_tf.config import PLANES
from pixelnet_tf.errors import DataError, nearest_hint, shown
from pixelnet_tf.io.files import read_json_as
from pixelnet_tf.io.plain import PlainError, build, convert

#: What to do with a broken file of a prepared study.
PREPARE_AGAIN = "run `pixelnet-tf prepare` again"
_TYPES = {"case": np.int32, "slice": np.int32, "class_counts": np.int64,
          "brain_fraction": np.float32, "shard": str, "offset": np.int64, "length": np.int64,
          "height": np.int32, "width": np.int32}


@dataclass(frozen=True, eq=False)
class SliceIndex:
    """Columns of equal length n, ordered by case, plane and slice.

    Attributes:
        cases: names that the column `case` counts into.
        case: (n,) int32. slice: (n,) int32, 0 is the lowest.
        plane: (n,) int32, counts into `PLANES`.
        class_counts: (n, class) int64, pixels of each class in the slice.
        brain_fraction: (n,) float32.
        shard: (n,) str, file name relative to the prepared study.
        offset, length: (n,) int64, place of the record's payload in the shard, in bytes.
        height, width: (n,) int32, pixels.
    """

    cases: tuple[str, ...]
    case: np.ndarray
    slice: np.ndarray
    class_counts: np.ndarray
    brain_fraction: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    height: np.ndarray
    width: np.ndarray
    plane: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        if not len(self.plane):
            object.__setattr__(self, "plane", np.zeros(len(self.case), np.int32))

    def __len__(self) -> int:
        return len(self.case)

    @property
    def stack(self) -> np.ndarray:
        """(n,) int32, one number for the slices of a case in one plane, in ascending order."""
        return self.case * len(PLANES) + self.plane

    def rows_of(self, case_names: Iterable[str], planes: Sequence[str] = PLANES[:1]) -> np.ndarray:
        """Return the row numbers (int64, ascending) of these cases' slices in these planes.

        Raises:
            DataError: a name that the index does not hold.
        """
        numbers = {name: number for number, name in enumerate(self.cases)}
        case_names = list(case_names)
        for name in case_names:
            if name not in numbers:
                raise DataError(f"is not in the prepared study{nearest_hint(name, self.cases)}",
                                case=name)
        return np.flatnonzero(np.isin(self.case, [numbers[name] for name in case_names])
                              & np.isin(self.plane, [PLANES.index(plane) for plane in planes]))

    def beside(self, rows: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
        """Rows (row, offset) of the slices so far above others, or below with a minus, in a case
        and plane.

        They are counted in slices, whatever lies between two. Where there is no such slice, beyond
        the ends, it is the nearest one.
        """
        stack = self.stack
        first = np.searchsorted(stack, stack[rows])[:, None]
        last = np.searchsorted(stack, stack[rows], side="right")[:, None] - 1
        return np.clip(np.asarray(rows)[:, None] + np.asarray(offsets), first, last)

    def digest(self, case_names: Iterable[str]) -> str:
        """Return a hash of these cases' slices: of their places in the index and in the shards.

        A slice that is prepared from another image is, compressed, nearly always of another length;
        `PreparedStudy.digest` knows the images themselves.

        Raises:
            DataError: a name that the index does not hold.
        """
        rows = self.rows_of(case_names)
        made_from = [[self.cases[number] for number in self.case[rows]], *(
            getattr(self, name)[rows].tolist() for name in
            ("slice", "class_counts", "brain_fraction", "length", "height", "width"))]
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()

    @classmethod
    def from_case_files(cls, files: list[dict[str, Any]], classes: int) -> SliceIndex:
        """Unite the rows that the cases' JSON files hold."""
        rows = [(number, file["shard"], row) for number, file in enumerate(files)
                for row in file["slices"]]

        def column(key: str, dtype: type) -> np.ndarray:
            return np.array([row[key] for *_, row in rows], dtype)

        return cls(tuple(file["case"] for file in files),
                   np.array([number for number, *_ in rows], np.int32),
                   column("slice", np.int32),
                   column("class_counts", np.int64).reshape(len(rows), classes),
                   column("brain_fraction", np.float32),
                   np.array([shard for _, shard, _ in rows], str),
                   column("offset", np.int64), column("length", np.int64),
                   column("height", np.int32), column("width", np.int32),
                   np.array([PLANES.index(row.get("plane", PLANES[0])) for *_, row in rows],
                            np.int32))

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        columns = ("case", "slice", "class_counts", "brain_fraction", "shard", "offset", "length",
                   "height", "width", *(("plane",) if self.plane.any() else ()))
        return {"cases": list(self.cases),
                "columns": {name: getattr(self, name).tolist() for name in columns}}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> SliceIndex:
        """Build an index from what `to_json` gave; raises `PlainError` for anything else."""
        stored = build(_Stored, tree)
        columns = {name: _column(name, stored.columns.get(name), dtype)
                   for name, dtype in _TYPES.items()}
        if "plane" in stored.columns:
            columns["plane"] = _column("plane", stored.columns["plane"], np.int32)
            if not np.isin(columns["plane"], range(len(PLANES))).all():
                raise PlainError(f"columns.plane must count into {list(PLANES)}")
        index = cls(stored.cases, **columns)
        rows = len(columns["case"])
        for name, column in columns.items():
            if len(column) != rows:
                raise PlainError(f"columns.{name} has {len(column)} rows, columns.case {rows}")
        if not ((index.case >= 0) & (index.case < len(index.cases))).all():
            raise PlainError(f"columns.case must count into the {len(index.cases)} cases")
        for name in ("slice", "class_counts", "offset", "length", "height", "width"):
            if (columns[name] < (name in ("height", "width"))).any():
                raise PlainError(f"columns.{name} holds {columns[name].min()}")
        if not ((index.brain_fraction >= 0) & (index.brain_fraction <= 1)).all():
            raise PlainError("columns.brain_fraction must lie between 0 and 1")
        return index


def _column(name: str, values: Any, dtype: type) -> np.ndarray:
    column: np.ndarray | None
    try:
        column = np.array(values, dtype)
    except (TypeError, ValueError, OverflowError):
        column = None
    if column is None or column.ndim != (2 if name == "class_counts" else 1):
        raise PlainError(f"columns.{name} must be a column of {np.dtype(dtype).name}, got "
                         f"{shown(values)}", value=values)
    return column


@dataclass(frozen=True)
class _Stored:
    """What index.json holds."""

    cases: tuple[str, ...]
    columns: dict[str, Any]


@dataclass(frozen=True)
class _Row:
    """A slice in the JSON file of its case."""

    slice: int
    offset: int
    length: int
    height: int
    width: int
    class_counts: tuple[int, ...]
    brain_fraction: float
    plane: str = PLANES[0]


@dataclass(frozen=True)
class _Moments:
    mean: float
    std: float


@dataclass(frozen=True)
class _CaseRecord:
    """What the JSON file of a case must hold; what it is made from stands there, too."""

    case: str
    smir_id: str | None
    labelled: bool
    geometry: dict[str, Any]
    normalization: dict[str, _Moments]
    shard: str
    shard_bytes: int
    slices: tuple[_Row, ...]
    grids: dict[str, Any] = field(default_factory=dict)
    voxels: tuple[str, ...] = ()


def read_case_record(path: str) -> dict[str, Any]:
    """Read the JSON file of a prepared case.

    Raises:
        DataError: it is missing, or not what `prepare` writes.
    """
    def checked(tree: Any) -> dict[str, Any]:
        needed = [each.name for each in fields(_CaseRecord)]
        record = convert(dict[str, Any], tree, "the whole")
        build(_CaseRecord, {key: record[key] for key in needed if key in record})
        return record

    return read_json_as(path, checked, PREPARE_AGAIN)
