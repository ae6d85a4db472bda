"""The index: columns, rows of cases, JSON."""

import json

import numpy as np
import pytest

from pixelnet_tf.dataset.index import SliceIndex
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.plain import PlainError


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


def test_slices_of_several_planes_are_stacks_of_their_own():
    files = [{"case": case, "shard": f"{case}.tfrecord", "slices": [
        *(row(number, [9, 3]) for number in range(2)),
        *({**row(number, [9, 3]), "plane": "sagittal"} for number in range(3))]} for case in "AB"]
    index = SliceIndex.from_case_files(files, 2)
    assert index.plane.tolist() == [0, 0, 2, 2, 2] * 2
    assert index.rows_of(["B"]).tolist() == [5, 6]
    assert index.rows_of(["A"], ("axial", "sagittal")).tolist() == [0, 1, 2, 3, 4]
    assert index.beside(np.array([1, 2, 4, 9]), (0, -1, 1)).tolist() == [
        [1, 0, 1], [2, 2, 3], [4, 3, 4], [9, 8, 9]]
    again = SliceIndex.from_json(json.loads(json.dumps(index.to_json())))
    np.testing.assert_array_equal(again.plane, index.plane)
    assert again.digest(["A"]) == index.digest(["A"])
    tree = index.to_json()
    tree["columns"]["plane"][3] = 3
    with pytest.raises(PlainError, match=r"columns\.plane must count into"):
        SliceIndex.from_json(tree)
    # Of axial slices alone nothing is said of planes.
    assert "plane" not in SliceIndex.from_case_files(
        [{**file, "slices": file["slices"][:2]} for file in files], 2).to_json()["columns"]


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
