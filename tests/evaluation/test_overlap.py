"""Counts and ratios against masks that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pixelnet_tf.evaluation.overlap import OverlapCounts, count_overlaps, ratio

REGIONS = {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}


def test_counts_of_all_regions_by_hand():
    reference = np.array([[[0, 0, 1, 2, 2, 4, 4, 0]]], np.uint8)
    prediction = np.array([[[0, 2, 1, 1, 2, 4, 2, 4]]], np.uint8)
    counts = count_overlaps(reference, prediction, REGIONS)
    # ET: reference at 5, 6; prediction at 5, 7.
    assert counts["ET"] == OverlapCounts(1, 1, 1, 5)
    # WT: reference at 2..6; prediction at 1..7.
    assert counts["WT"] == OverlapCounts(5, 2, 0, 1)
    # TC: reference at 2, 5, 6; prediction at 2, 3, 5, 7.
    assert counts["TC"] == OverlapCounts(2, 2, 1, 3)


def test_voxels_outside_a_crop_are_true_negatives():
    crop = np.array([[[4, 0]]], np.uint8)
    counts = count_overlaps(crop, crop, {"ET": (4,)}, voxels=100)
    assert counts["ET"] == OverlapCounts(1, 0, 0, 99)


@pytest.mark.parametrize(("reference", "prediction", "kind"), [
    (0, 0, "both_empty"), (0, 4, "reference_empty"), (4, 0, "prediction_empty"),
    (4, 4, "none_empty"),
])
def test_kinds_of_empty_masks(reference, prediction, kind):
    volumes = [np.full((1, 1, 2), value, np.uint8) for value in (reference, prediction)]
    assert count_overlaps(*volumes, {"ET": (4,)})["ET"].emptiness == kind


def test_counts_equal_a_voxelwise_comparison_on_random_labels():
    rng = np.random.default_rng(0)
    reference, prediction = rng.choice(np.array([0, 1, 2, 4, 255], np.uint8), (2, 9, 8, 7))
    for region, values in REGIONS.items():
        a, b = np.isin(reference, values), np.isin(prediction, values)
        expected = OverlapCounts(int((a & b).sum()), int((~a & b).sum()), int((a & ~b).sum()),
                                 int((~a & ~b).sum()))
        assert count_overlaps(reference, prediction, REGIONS)[region] == expected


def test_ratio_of_nothing_to_nothing_is_what_the_caller_says():
    assert ratio(1, 4, 0.5) == 0.25
    assert ratio(0, 0, 0.5) == 0.5
