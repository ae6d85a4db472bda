"""Means, spread, `summary.json` and `cases.csv`, with values that are worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol, RegionScore
from pixelnet_tf.evaluation.summary import (
    Evaluation,
    read_evaluation,
    spread,
    write_evaluation,
)


def _isles(**cases: tuple[str, float, float]) -> Evaluation:
    """Case -> (kind, Dice, Hausdorff), the other measures following Dice and Hausdorff."""
    scores = {}
    for case, (kind, dice, hausdorff) in cases.items():
        filled = kind == "none_empty"
        values = {"Dice": dice, "Hausdorff": hausdorff, "AverageDistance": hausdorff,
                  "Precision": dice, "Recall": dice}
        averaged = dict.fromkeys(values, True) | {"Hausdorff": filled, "AverageDistance": filled}
        scores[case] = {"lesion": RegionScore(kind, values, averaged)}
    return Evaluation.of(IslesProtocol(), {"lesion": (1,)}, scores, predictions="somewhere")


MIXED = {"a": ("none_empty", 0.5, 10.0), "b": ("none_empty", 0.7, 20.0),
         "c": ("prediction_empty", 0.0, math.inf), "d": ("both_empty", 0.0, 0.0)}


def test_spread_by_hand():
    assert spread([1.0, 2.0, 3.0, 6.0]) == {
        "mean": 3.0, "std": pytest.approx(math.sqrt(14 / 3)), "median": 2.5,
        "quantile25": 1.75, "quantile75": 3.75, "n": 4}


def test_spread_of_one_value_and_of_none():
    assert spread([2.0]) == {"mean": 2.0, "std": None, "median": 2.0, "quantile25": 2.0,
                             "quantile75": 2.0, "n": 1}
    assert spread([]) == {"mean": None, "std": None, "median": None, "quantile25": None,
                          "quantile75": None, "n": 0}


def test_isles_averages_distances_over_cases_where_neither_is_empty():
    evaluation = _isles(**MIXED)
    assert evaluation.spread("lesion", "Dice")["mean"] == pytest.approx(0.3)
    assert evaluation.spread("lesion", "Dice")["n"] == 4
    assert evaluation.spread("lesion", "Hausdorff")["mean"] == 15.0
    assert evaluation.spread("lesion", "Hausdorff")["n"] == 2
    assert evaluation.emptiness("lesion") == {"none_empty": 2, "both_empty": 1,
                                              "reference_empty": 0, "prediction_empty": 1}


def test_summary_is_strict_json_and_reads_back(tmp_path):
    evaluation = _isles(**MIXED)
    write_evaluation(evaluation, tmp_path / "scores")
    text = (tmp_path / "scores" / "summary.json").read_text()
    tree = json.loads(text, parse_constant=lambda word: pytest.fail(f"bare {word} in the JSON"))
    assert tree["scores"]["lesion"]["Hausdorff"]["n"] == 2
    assert tree["scores"]["lesion"]["empty"]["prediction_empty"] == 1
    assert tree["per_case"]["c"]["lesion"]["Hausdorff"] is None
    assert tree["per_case"]["c"]["lesion"]["empty"] == "prediction_empty"
    assert "average_distance_symmetric" in tree["definitions"]["AverageDistance"]
    again = read_evaluation(tmp_path / "scores")
    assert again.spread("lesion", "Hausdorff") == evaluation.spread("lesion", "Hausdorff")
    assert again.about == {"predictions": "somewhere", "surface_tolerance_mm": 1.0}
    assert sorted(p.name for p in (tmp_path / "scores").iterdir()) == [
        "cases.csv", "manifest.jsonl", "summary.json"]


def test_nothing_averaged_is_null_and_not_nan(tmp_path):
    write_evaluation(_isles(c=MIXED["c"]), tmp_path)
    tree = json.loads((tmp_path / "summary.json").read_text())
    assert tree["scores"]["lesion"]["Hausdorff"] == {
        "mean": None, "std": None, "median": None, "quantile25": None, "quantile75": None, "n": 0}


def test_csv_has_the_challenge_s_columns_and_rows():
    def score(value):
        names = BratsProtocol().measures
        return RegionScore("none_empty", dict.fromkeys(names, value), dict.fromkeys(names, True))
    regions = {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
    scores = {case: {region: score(value) for region in regions}
              for case, value in (("a", 0.25), ("b", 0.75))}
    rows = list(csv.reader(io.StringIO(
        Evaluation.of(BratsProtocol(), regions, scores).to_csv())))
    assert rows[0][:7] == ["case", "Dice_ET", "Dice_WT", "Dice_TC", "Sensitivity_ET",
                           "Sensitivity_WT", "Sensitivity_TC"]
    assert rows[0][7:13] == ["Specificity_ET", "Specificity_WT", "Specificity_TC",
                             "Hausdorff95_ET", "Hausdorff95_WT", "Hausdorff95_TC"]
    assert [row[0] for row in rows[1:]] == ["a", "b", "Mean", "StdDev", "Median", "25quantile",
                                            "75quantile"]
    assert [float(row[1]) for row in rows[3:]] == pytest.approx(
        [0.5, math.sqrt(0.125), 0.5, 0.375, 0.625], rel=1e-5)


def test_csv_tells_infinite_from_left_out():
    rows = _isles(c=MIXED["c"]).to_csv().splitlines()
    assert rows[1] == "c,0,inf,inf,0,0"
    assert rows[2] == "Mean,0,,,0,0"


@pytest.mark.parametrize("text", ["{", "[]", '{"protocol": "brats"}'])
def test_refuses_a_file_that_is_no_summary(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match="evaluate again"):
        read_evaluation(tmp_path)


def test_refuses_a_folder_without_summary(tmp_path):
    with pytest.raises(DataError, match=r"holds no summary\.json"):
        read_evaluation(tmp_path)
