"""Surfaces and volumes: values worked out by hand, in the files and in the report's table."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.agreement import Agreement, VolumeAgreement
from pixelnet_tf.evaluation.plots import volume_agreement
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol
from pixelnet_tf.evaluation.summary import (
    Evaluation,
    check_replaceable,
    read_evaluation,
    write_evaluation,
)
from pixelnet_tf.evaluation.tables import agreement_table

#: 2 mm3 voxels.
SPACING = (1.0, 1.0, 2.0)


def case(reference, prediction, **options):
    """Two blocks of so many voxels in a row, scored."""
    volumes = np.zeros((2, 24, 5, 5), np.uint8)
    volumes[0, 1:1 + reference, 2, 2] = 1
    volumes[1, 1:1 + prediction, 2, 2] = 1
    return BratsProtocol(**options).score(*volumes, {"ET": (1,)}, SPACING)


def evaluation(*pairs, **options):
    return Evaluation.of(BratsProtocol(**options), {"ET": (1,)}, {
        f"case_{number}": case(*pair, **options) for number, pair in enumerate(pairs)})


def test_volumes_and_surface_dice_of_a_case_by_hand():
    found = case(4, 2)["ET"].agreement
    assert (found.reference_ml, found.prediction_ml) == pytest.approx((0.008, 0.004))
    assert found.values["VolumeDifference"] == pytest.approx(-0.004)
    # A row of n voxels of 1 x 1 x 2 mm has n + 1 planes of four surfels: corners at both ends
    # (triangles), edges between (1 mm by half a diagonal). Of the longer row the last plane lies
    # 2 mm from the shorter row's last one, an end too, and the one before 1 mm.
    end = 4 * 0.5 * math.sqrt(0.5**4 + 2 * 0.5**2)
    ring = 4 * math.hypot(0.5, 1)
    for tolerance, far in ((0.5, ring + end), (1.0, end), (2.0, 0)):
        near = case(4, 2, surface_tolerance_mm=tolerance)["ET"].agreement.surface_dice
        assert near == pytest.approx(1 - far / (4 * end + 4 * ring))


def test_empty_masks():
    assert case(0, 0)["ET"].agreement == Agreement(0, 0, None)
    assert case(0, 3)["ET"].agreement == Agreement(0, 0.006, 0.0)
    assert case(3, 0)["ET"].agreement == Agreement(0.006, 0, 0.0)


def test_bias_and_limits_of_agreement_by_hand():
    cases = {name: Agreement(reference, prediction, 1.0) for name, reference, prediction in (
        ("a", 10.0, 11.0), ("b", 20.0, 18.0), ("c", 5.0, 9.0), ("none", 0.0, 0.0))}
    found = VolumeAgreement.of(cases)
    # Differences 1, -2, 4: mean 1, squares of what is left 0, 9, 9.
    assert (found.n, found.bias_ml, found.std_ml) == (3, 1.0, pytest.approx(3.0))
    assert (found.low_ml, found.high_ml) == pytest.approx((1 - 1.96 * 3, 1 + 1.96 * 3))
    assert VolumeAgreement.of({"a": cases["a"]}) == VolumeAgreement(1, 1.0)
    assert VolumeAgreement.of({"none": cases["none"]}) == VolumeAgreement(0)


def test_bias_and_limits_are_those_of_a_normal_distribution():
    """By scipy's statistics; 1.96 is rounded there to more digits."""
    rng = np.random.default_rng(3)
    references = rng.gamma(2, 20, 50)
    predictions = references * rng.normal(1, 0.1, 50) + 1
    found = VolumeAgreement.of({str(number): Agreement(*pair, 1.0) for number, pair in enumerate(
        zip(references.tolist(), predictions.tolist(), strict=True))})
    described = stats.describe(predictions - references)
    assert found.bias_ml == pytest.approx(described.mean)
    assert found.std_ml == pytest.approx(described.variance**0.5)
    assert (found.low_ml, found.high_ml) == pytest.approx(stats.norm.interval(
        0.95, described.mean, described.variance**0.5), rel=1e-4)


def test_the_summary_holds_them_and_reads_back(tmp_path):
    scored = evaluation((4, 2), (3, 6), (0, 0))
    write_evaluation(scored, tmp_path)
    tree = json.loads((tmp_path / "summary.json").read_text())
    assert tree["volume_agreement"]["ET"] == pytest.approx(
        {"n": 2, "bias_ml": 0.001, "std_ml": 0.005 * math.sqrt(2),
         "low_ml": 0.001 - 1.96 * 0.005 * math.sqrt(2),
         "high_ml": 0.001 + 1.96 * 0.005 * math.sqrt(2)})
    assert tree["scores"]["ET"]["SurfaceDice"]["n"] == 2
    assert tree["agreement_definitions"]["SurfaceDice"].startswith("share of both surfaces")
    again = read_evaluation(tmp_path)
    assert again.scores == scored.scores
    assert json.loads(json.dumps(again.to_json())) == tree
    header, *rows = (tmp_path / "cases.csv").read_text().splitlines()
    assert header.endswith(",SurfaceDice_ET,VolumeDifference_ET")
    assert rows[1].endswith(",0.006")


def test_scores_of_an_earlier_version_have_none(tmp_path):
    scored = evaluation((4, 2))
    bare = replace(scored, scores={"case_0": {"ET": replace(
        scored.scores["case_0"]["ET"], agreement=None)}})
    write_evaluation(bare, tmp_path)
    again = read_evaluation(tmp_path)
    assert again.agreement_measures == ()
    assert agreement_table(again) is None
    assert "volume_agreement" not in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize("wrong", [{"reference_ml": -1.0}, {"surface_dice": 1.5},
                                   {"prediction_ml": "much"}])
def test_impossible_numbers_of_a_file_are_refused(tmp_path, wrong):
    write_evaluation(evaluation((4, 2)), tmp_path)
    path = tmp_path / "summary.json"
    tree = json.loads(path.read_text())
    tree["per_case"]["case_0"]["ET"]["agreement"] |= wrong
    (tmp_path / "manifest.jsonl").unlink()
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="agreement"):
        read_evaluation(tmp_path)


def test_scores_at_another_tolerance_are_not_replaced_unasked(tmp_path):
    write_evaluation(evaluation((4, 2)), tmp_path)
    with pytest.raises(DataError, match="by other rules"):
        check_replaceable(tmp_path, BratsProtocol(surface_tolerance_mm=2.0), {"ET": (1,)}, {})


def test_every_protocol_measures_them():
    volumes = np.zeros((2, 8, 8, 8), np.uint8)
    volumes[:, 2:5, 2:5, 2:5] = 1
    for protocol in (BratsProtocol(), IslesProtocol()):
        found = protocol.score(*volumes, {"lesion": (1,)}, (1, 1, 1))["lesion"].agreement
        assert found == Agreement(0.027, 0.027, 1.0)


def test_table_and_figure_show_bias_and_limits():
    scored = evaluation((4, 2), (3, 6), (10, 10))
    row, = agreement_table(scored).rows
    agreement = scored.volume_agreement("ET")
    assert row[3:] == (f"{agreement.bias_ml:+.3f}",
                       f"[{agreement.low_ml:+.3f}, {agreement.high_ml:+.3f}]", "3")
    ax, = volume_agreement(scored).axes
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert points.get_xdata() == pytest.approx([0.006, 0.009, 0.02])
    assert points.get_ydata() == pytest.approx([-0.004, 0.006, 0.0])
    lines = [line.get_ydata()[0] for line in ax.lines if line is not points]
    assert lines == pytest.approx([0, agreement.bias_ml, agreement.high_ml, agreement.low_ml])
