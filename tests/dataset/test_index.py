"""The index: columns, rows of cases, JSON."""

import json

import numpy as np
import pytest

from pixelnet_tf.dataset.index import SliceIndex
from pixelnet_tf.errors import DataError


def row(number, counts):
    return {"slice": number, "offset": 12 + number, "length": 7, "height": 4, "width": 3,
            "class_counts": counts, "brain_fraction": 0.1}


@pytest.fixture
def index() -> SliceIndex:
    return SliceIndex.from_case_files([
        {"case": "A", "shard": "cases/A.tfrecord", "slices": [row(0, [9, 3]), row(1, [12, 0])]},
        {"case": "B", "shard": "cases/B.tfrecord", "slices": [row(0, [10, 2])]}], 2)


def test_columns(index):
    assert len(index) == 3
    assert index.cases == ("A", "B")
    np.testing.assert_array_equal(index.case, [0, 0, 1])
    np.testing.assert_array_equal(index.slice, [0, 1, 0])
    np.testing.assert_array_equal(index.class_counts, [[9, 3], [12, 0], [10, 2]])
    assert index.shard.tolist() == ["cases/A.tfrecord"] * 2 + ["cases/B.tfrecord"]
    assert index.class_counts.dtype == index.offset.dtype == np.int64


def test_rows_of(index):
    np.testing.assert_array_equal(index.rows_of(["B"]), [2])
    np.testing.assert_array_equal(index.rows_of(["B", "A"]), [0, 1, 2])
    assert index.rows_of([]).size == 0
    with pytest.raises(DataError, match="case C: is not in the prepared study"):
        index.rows_of(["C"])


def test_json(index):
    again = SliceIndex.from_json(json.loads(json.dumps(index.to_json())))
    assert again.cases == index.cases
    for name in ("case", "slice", "class_counts", "brain_fraction", "shard", "offset", "length",
                 "height", "width"):
        before, after = getattr(index, name), getattr(again, name)
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype
