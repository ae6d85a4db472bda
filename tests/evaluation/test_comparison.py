"""Paired differences by hand, and runs that must not be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import (
    bootstrap_interval,
    comparison_tables,
    paired_difference,
    unique_names,
    wilcoxon,
)
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol, RegionScore
from pixelnet_tf.evaluation.summary import Evaluation

REGIONS = {"ET": (4,), "WT": (1, 2, 4)}


def _run(dice: dict[str, float], protocol=None, regions=None) -> Evaluation:
    """Every measure of every region has the case's Dice; Hausdorff95 is 10 times as much."""
    protocol = protocol or BratsProtocol()
    regions = regions or REGIONS
    scores = {}
    for case, value in dice.items():
        values = dict.fromkeys(protocol.measures, value) | {protocol.measures[3]: 10 * value}
        score = RegionScore("none_empty", values, dict.fromkeys(values, True))
        scores[case] = dict.fromkeys(regions, score)
    return Evaluation.of(protocol, regions, scores)


A = _run({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.2})
B = _run({"a": 0.6, "b": 0.7, "c": 0.8, "e": 0.1})


def test_differences_are_first_minus_second_over_common_cases():
    d = paired_difference(A, B, "ET", "Dice")
    assert d.differences == pytest.approx({"a": 0.3, "b": 0.1, "c": -0.1})
    assert d.mean == pytest.approx(0.1)
    assert d.median == pytest.approx(0.1)
    # Three cases resampled: the mean lies between the smallest and the largest difference.
    assert -0.1 - 1e-9 <= d.low < 0.1 < d.high <= 0.3 + 1e-9


def test_a_case_that_is_not_averaged_does_not_count():
    other = _run({"a": 0.6, "b": 0.7})
    left_out = other.scores["a"]["ET"]
    left_out.averaged["Dice"] = False
    assert list(paired_difference(A, other, "ET", "Dice").differences) == ["b"]


def test_wilcoxon_by_hand():
    # Five differences of one sign: 2 of the 32 sign patterns are as extreme.
    assert wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    # Ranks 1..4, the negative one has rank 1: 2 * (patterns with rank sum <= 1) / 16.
    assert wilcoxon(np.array([-1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 * 2 / 16)
    assert wilcoxon(np.zeros(4)) is None


def test_bootstrap_interval_is_seeded_and_near_the_normal_one():
    values = np.random.default_rng(5).normal(1.0, 2.0, 400)
    low, high = bootstrap_interval(values, seed=7)
    assert (low, high) == bootstrap_interval(values, seed=7)
    assert (low, high) != bootstrap_interval(values, seed=8)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_one_case_and_no_case_have_no_interval():
    one = paired_difference(_run({"a": 0.5}), _run({"a": 0.25}), "ET", "Dice")
    assert (one.mean, one.low, one.high) == (0.25, None, None)
    none = paired_difference(_run({"a": 0.5}), _run({"b": 0.25}), "ET", "Dice")
    assert (none.mean, none.p_value) == (None, None)


def test_brats_means_have_the_form_of_table_2_over_common_cases():
    means, differences = comparison_tables({"balanced": A, "uniform": B})
    assert means.columns == ("Model", "Dice ET", "Dice WT", "Hausdorff95 ET", "Hausdorff95 WT")
    # Common: a, b, c.
    assert means.rows == (("balanced", "0.800", "0.800", "8.00", "8.00"),
                          ("uniform", "0.700", "0.700", "7.00", "7.00"))
    assert "hausdorff95_pooled" in " ".join(means.notes)
    assert differences.rows[0][:4] == ("balanced − uniform", "ET", "Dice", "+0.100")
    assert differences.rows[0][-1] == "3"
    assert len(differences.rows) == 2 * 5


def test_isles_means_have_the_form_of_table_4():
    runs = {name: _run({"a": v, "b": v}, IslesProtocol(), {"lesion": (1,)})
            for name, v in (("balanced", 0.5), ("uniform", 0.25), ("third", 0.1))}
    means, differences = comparison_tables(runs)
    assert means.columns == ("Model", "Dice", "Hausdorff", "AverageDistance", "Precision",
                             "Recall")
    assert [row[0] for row in means.rows] == ["balanced", "uniform", "third"]
    assert {row[0] for row in differences.rows} == {"balanced − uniform", "balanced − third"}


def test_per_case_table():
    *_, table = comparison_tables({"A": A, "B": B}, per_case=True)
    assert table.rows[0] == ("A − B", "a", "+0.300", "+0.300", "+3.00", "+3.00")
    assert [row[1] for row in table.rows] == ["a", "b", "c"]


@pytest.mark.parametrize(("other", "words"), [
    (_run({"a": 1.0}, BratsProtocol("exclude")), "their definitions differ"),
    (_run({"a": 1.0}, IslesProtocol()), "their protocol differ"),
    (_run({"a": 1.0}, regions={"ET": (1, 4), "WT": (1, 2, 4)}), "their regions differ"),
    (_run({"z": 1.0}), "no case in common"),
])
def test_refuses_what_cannot_be_compared(other, words):
    with pytest.raises(DataError, match=words):
        comparison_tables({"A": A, "other": other})


def test_refuses_one_name_for_two_runs():
    with pytest.raises(DataError, match="'x'"):
        unique_names(["x", "y", "x"])
