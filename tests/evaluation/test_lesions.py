"""Lesions found and missed, counted by hand on small masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import comparison_tables, paired_difference
from pixelnet_tf.evaluation.lesions import LesionCounts, count_lesions
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol
from pixelnet_tf.evaluation.summary import Evaluation, read_evaluation, write_evaluation
from pixelnet_tf.evaluation.tables import lesion_tables, paper_table, spread_table

#: A voxel of 0.05 ml: a lesion of one is under 0.1 ml, one of two is not.
SPACING_MM, VOXEL_MM3 = (5.0, 5.0, 2.0), 50.0


def _masks() -> tuple[np.ndarray, np.ndarray]:
    """Reference: lesions of 1, 2, 27 and 1 voxels (0.05, 0.1, 1.35, 0.05 ml). The prediction
    overlaps the second and the third by one lesion of 30 voxels, and has 1 voxel and 2 voxels
    of its own, the latter at a corner of the first, which it does not overlap."""
    reference = np.zeros((12, 12, 8), bool)
    reference[0, 0, 0] = True
    reference[4:6, 0, 0] = True
    reference[4:7, 3:6, 2:5] = True
    reference[11, 11, 7] = True
    prediction = np.zeros_like(reference)
    prediction[4:7, 3:6, 2:5] = True
    prediction[5, 0, 0] = prediction[5, 1, 1] = prediction[5, 2, 2] = True
    prediction[1, 1, 1] = prediction[2, 2, 2] = True
    prediction[11, 0, 7] = True
    return reference, prediction


def test_lesions_by_hand_with_one_that_joins_two():
    counts = count_lesions(*_masks(), VOXEL_MM3)
    assert counts == LesionCounts(reference=(2, 1, 1, 0), detected=(0, 1, 1, 0),
                                  predicted=(1, 1, 1, 0), false_positives=(1, 1, 0, 0))
    # TP 2, FN 2, FP 2.
    assert counts.values == {"LesionF1": 4 / (4 + 2 + 2), "LesionSensitivity": 0.5,
                             "FalsePositives": 2.0}


def test_voxels_that_touch_at_a_corner_are_one_lesion_and_no_overlap():
    diagonal, other = np.zeros((2, 4, 4, 4), bool)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = True
    other[2, 2, 2] = True
    assert sum(count_lesions(diagonal, diagonal, VOXEL_MM3).reference) == 1
    assert sum(count_lesions(diagonal, other, VOXEL_MM3).detected) == 0


@pytest.mark.parametrize(("reference", "prediction", "values"), [
    (0, 0, (1.0, None, 0.0)), (1, 0, (0.0, 0.0, 0.0)), (0, 1, (0.0, None, 1.0)),
    (1, 1, (1.0, 1.0, 0.0))])
def test_empty_masks(reference, prediction, values):
    masks = np.zeros((2, 3, 3, 3), bool)
    masks[0, 1, 1, 1], masks[1, 1, 1, 1] = reference, prediction
    assert tuple(count_lesions(*masks, VOXEL_MM3).values.values()) == values


@pytest.mark.parametrize(("voxels", "size"), [(99, 0), (100, 1), (999, 1), (1000, 2), (9999, 2),
                                              (10000, 3)])
def test_a_class_of_sizes_begins_at_its_bound(voxels, size):
    mask = np.zeros((25, 25, 16), bool)
    mask.ravel()[:voxels] = True
    found = count_lesions(mask, mask, 1.0).reference
    assert found == tuple(int(k == size) for k in range(4))


@pytest.mark.parametrize("protocol", [BratsProtocol(), IslesProtocol()])
def test_either_protocol_counts_lesions_of_its_regions_beside_its_own_measures(protocol):
    reference, prediction = (mask.astype(np.uint8) * 2 for mask in _masks())
    score = protocol.score(reference, prediction, {"R": (2,)}, SPACING_MM)["R"]
    assert tuple(score.values) == protocol.measures
    assert score.lesions == count_lesions(*_masks(), VOXEL_MM3)


def _evaluation(swapped: bool = False) -> Evaluation:
    """Two cases: the masks above, and nothing on either side (or the masks swapped)."""
    rules, regions = BratsProtocol(), {"R": (2,)}
    reference, prediction = (mask.astype(np.uint8) * 2 for mask in _masks())
    empty = np.zeros_like(reference)
    pairs = {"a": (prediction, reference) if swapped else (reference, prediction),
             "b": (empty, empty)}
    return Evaluation.of(rules, regions, {case: rules.score(*pair, regions, SPACING_MM)
                                          for case, pair in pairs.items()})


def test_summary_keeps_lesions_and_reads_them_back(tmp_path):
    evaluation = _evaluation()
    write_evaluation(evaluation, tmp_path)
    tree = json.loads((tmp_path / "summary.json").read_text())
    assert tree["per_case"]["a"]["R"]["lesions"]["detected"] == [0, 1, 1, 0]
    assert tree["scores"]["R"]["LesionF1"]["mean"] == 0.75
    assert tree["scores"]["R"]["LesionSensitivity"]["n"] == 1
    header, first, *_ = (tmp_path / "cases.csv").read_text().splitlines()
    assert "Precision_R,LesionF1_R,LesionSensitivity_R,FalsePositives_R" in header
    first = ",".join(first.split(",")[:header.split(",").index("FalsePositives_R") + 1])
    assert first.endswith(",0.5,0.5,2")
    again = read_evaluation(tmp_path)
    assert again.scores == evaluation.scores
    assert again.about == evaluation.about


def test_a_summary_without_lesions_is_read_and_has_no_tables_of_them(tmp_path):
    before = _evaluation()
    before = replace(before, scores={
        case: {region: replace(score, lesions=None) for region, score in by_region.items()}
        for case, by_region in before.scores.items()})
    write_evaluation(before, tmp_path)
    assert "esion" not in (tmp_path / "summary.json").read_text()
    again = read_evaluation(tmp_path)
    assert again.scores == before.scores
    assert lesion_tables(again) == []
    assert len(comparison_tables({"x": again, "y": _evaluation()})) == 2


@pytest.mark.parametrize("lesions", [{}, {"reference": [1]}, {
    "reference": [1, 0, 0, 0], "detected": [2, 0, 0, 0], "predicted": [0, 0, 0, 0],
    "false_positives": [0, 0, 0, 0]}])
def test_lesions_that_cannot_be_are_refused(tmp_path, lesions):
    write_evaluation(_evaluation(), tmp_path)
    path = tmp_path / "summary.json"
    tree = json.loads(path.read_text())
    tree["per_case"]["a"]["R"]["lesions"] = lesions
    (tmp_path / "manifest.jsonl").unlink()
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"per_case\.a\.R\.lesions"):
        read_evaluation(tmp_path)


def test_tables_of_lesions_and_those_of_the_challenge_as_before():
    evaluation = _evaluation()
    cases, sizes = lesion_tables(evaluation)
    assert [row[:3] for row in cases.rows] == [
        ("R", "LesionF1", "0.750"), ("R", "LesionSensitivity", "0.500"),
        ("R", "FalsePositives", "1.000")]
    assert [row[1:] for row in sizes.rows] == [
        ("under 0.1 ml", "2", "0", "0.000", "1", "1", "0.500"),
        ("0.1 to 1 ml", "1", "1", "1.000", "1", "1", "0.500"),
        ("1 to 10 ml", "1", "1", "1.000", "1", "0", "0.000"),
        ("from 10 ml", "0", "0", "-", "0", "0", "0.000")]
    for table in (paper_table(evaluation), spread_table(evaluation)):
        assert "Lesion" not in table.render("text")


def test_runs_are_compared_by_lesions():
    runs = {"x": _evaluation(), "y": _evaluation(swapped=True)}
    # Swapped: TP 1 (the one of 30 voxels), FN 2, FP 2, so that F1 is 2 / (2 + 2 + 2).
    found = paired_difference(runs["x"], runs["y"], "R", "LesionF1")
    assert found.differences == {"a": pytest.approx(1 / 2 - 1 / 3), "b": 0.0}
    tables = comparison_tables(runs)
    assert [table.title for table in tables] == [
        "Means over 2 common cases (form of the paper's Table 2)",
        "Lesions found, means over 2 common cases", "Differences per case, x minus the others",
        "Differences in lesions found per case, x minus the others"]
    assert tables[1].rows[0] == ("x", "R", "0.750", "0.500", "1.000", "0/2", "1/1", "1/1", "0/0")
    assert tables[3].rows[0][:4] == ("x − y", "R", "LesionF1", "+0.083")
