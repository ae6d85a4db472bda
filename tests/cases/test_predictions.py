"""`prediction.json`: there and back, and anything else that may stand in the file."""

import json

import pytest

from pixelnet_tf.cases.predictions import (
    PREDICTION_FILE,
    LeftOutRecord,
    MadeFrom,
    NetworkRecord,
    PredictionRecord,
)
from pixelnet_tf.errors import DataError


def test_there_and_back(tmp_path):
    record = PredictionRecord(
        ("a", "b"), (LeftOutRecord("b", "every voxel is 0"),), ("a",),
        (NetworkRecord("run", "w", "f", (0.5, -1.0)),), "sampled", "exact", {"study": {}},
        {"a": MadeFrom({"flair": "d"}, "p", "n", "s")})
    (tmp_path / PREDICTION_FILE).write_text(json.dumps(record.to_json()))
    assert PredictionRecord.read(tmp_path) == record
    assert PredictionRecord.read(tmp_path / "elsewhere") == PredictionRecord()


def test_a_file_of_another_version(tmp_path):
    (tmp_path / PREDICTION_FILE).write_text(json.dumps(
        {"cases": ["a"], "model": "http://x", "correction": [0], "later": {}}))
    assert PredictionRecord.read(tmp_path) == PredictionRecord(("a",))


@pytest.mark.parametrize(("tree", "words"), [
    ([1], "must map keys to values"), ({"cases": "a"}, "cases must be a list"),
    ({"cases": [1]}, r"cases\[0\] must be of type str"), ({"made_from": []}, "made_from must map"),
    ({"made_from": {"a": 1}}, r"made_from\.a must be a section"),
    ({"left_out": [{"case": "a"}]}, "reason is missing"),
    ({"networks": [{"weights": 1}]}, r"networks\[0\]\.weights must be of type str"),
    ({"config": 3}, "config must map"), ({"trained_on": None}, "trained_on must be a list"),
])
def test_other_content_is_named(tmp_path, tree, words):
    (tmp_path / PREDICTION_FILE).write_text(json.dumps(tree))
    with pytest.raises(DataError, match=rf"prediction\.json: .*{words}"):
        PredictionRecord.read(tmp_path)
