"""The index of a prepared study: one row a slice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelnet_tf.errors import DataError, nearest_hint


@dataclass(frozen=True, eq=False)
class SliceIndex:
    """Columns of equal length n, ordered by case and slice.

    Attributes:
        cases: names that the column `case` counts into.
        case: (n,) int32. slice: (n,) int32, 0 is the lowest.
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

    def __len__(self) -> int:
        return len(self.case)

    def rows_of(self, case_names: Iterable[str]) -> np.ndarray:
        """Return the row numbers (int64, ascending) of these cases' slices.

        Raises:
            DataError: a name that the index does not hold.
        """
        numbers = {name: number for number, name in enumerate(self.cases)}
        case_names = list(case_names)
        for name in case_names:
            if name not in numbers:
                raise DataError(f"case {name!r} is not in the prepared study"
                                f"{nearest_hint(name, self.cases)}")
        return np.flatnonzero(np.isin(self.case, [numbers[name] for name in case_names]))

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
                   column("height", np.int32), column("width", np.int32))

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        columns = ("case", "slice", "class_counts", "brain_fraction", "shard", "offset", "length",
                   "height", "width")
        return {"cases": list(self.cases),
                "columns": {name: getattr(self, name).tolist() for name in columns}}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> SliceIndex:
        """Build an index from what `to_json` gave."""
        types = {"case": np.int32, "slice": np.int32, "class_counts": np.int64,
                 "brain_fraction": np.float32, "shard": str, "offset": np.int64,
                 "length": np.int64, "height": np.int32, "width": np.int32}
        columns = {name: np.array(tree["columns"][name], dtype) for name, dtype in types.items()}
        return cls(tuple(tree["cases"]), **columns)
