"""Each step of the clean-up on volumes that are small enough to see."""

from __future__ import annotations

import numpy as np
import pytest

from pixelnet_tf.config import PostprocessConfig, StudyConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.postprocess import postprocess_labels

STUDY = StudyConfig()


def _clean(labels, brain=None, study=STUDY, **steps):
    return postprocess_labels(labels, brain, study, PostprocessConfig(**steps))


def _lesion():
    """Edema 6x6x3 with a 2x2x1 enhancing island in it, and two voxels of edema far away."""
    labels = np.zeros((12, 12, 5), np.uint8)
    labels[1:7, 1:7, 1:4] = 2
    labels[3:5, 3:5, 2] = 4
    labels[10, 10, 2:4] = 2
    return labels


def test_all_steps_are_off_by_default():
    labels = _lesion()
    cleaned = _clean(labels)
    np.testing.assert_array_equal(cleaned, labels)
    assert cleaned is not labels


def test_small_component_outside_becomes_background():
    labels = _lesion()
    cleaned = _clean(labels, minimum_component={"WT": 3})
    expected = labels.copy()
    expected[10, 10, :] = 0
    np.testing.assert_array_equal(cleaned, expected)
    assert labels[10, 10, 2] == 2


def test_component_of_exactly_the_minimum_stays():
    labels = _lesion()
    np.testing.assert_array_equal(_clean(labels, minimum_component={"WT": 2, "ET": 4}), labels)


def test_small_component_inside_takes_its_neighbours_label():
    labels = _lesion()
    cleaned = _clean(labels, minimum_component={"ET": 5})
    expected = labels.copy()
    expected[labels == 4] = 2
    np.testing.assert_array_equal(cleaned, expected)


def test_voxels_that_share_a_corner_are_one_component():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 2] = labels[3, 3, 3] = 2
    assert (_clean(labels, minimum_component={"WT": 3}) == labels).all()
    assert not _clean(labels, minimum_component={"WT": 4}).any()


def test_the_largest_component_stays():
    labels = _lesion()
    cleaned = _clean(labels, largest_component=("WT", "ET"))
    expected = labels.copy()
    expected[10, 10, :] = 0
    np.testing.assert_array_equal(cleaned, expected)
    empty = np.zeros((3, 3, 3), np.uint8)
    np.testing.assert_array_equal(_clean(empty, largest_component=("WT",)), empty)


def test_equally_large_components_all_stay():
    labels = np.zeros((9, 3, 3), np.uint8)
    labels[0, 0, 0:2] = labels[4, 0, 0:2] = 2
    labels[8, 0, 0] = 2
    cleaned = _clean(labels, largest_component=("WT",))
    assert cleaned[:5].sum() == labels[:5].sum()
    assert not cleaned[8].any()


def test_component_at_the_edge_of_the_array():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[3, 3, 3] = 1
    assert not _clean(labels, minimum_component={"TC": 2}).any()


def test_holes_take_the_label_around_them():
    labels = _lesion()
    labels[3:5, 3:5, 2] = 0
    labels[2, 2, 2] = 4
    cleaned = _clean(labels, fill_holes=True)
    assert (cleaned[3:5, 3:5, 2] == 2).all()
    assert cleaned[2, 2, 2] == 4
    assert np.count_nonzero(cleaned != labels) == 4


def test_a_bay_is_no_hole():
    labels = _lesion()
    labels[3, 3, :] = 0
    np.testing.assert_array_equal(_clean(labels, fill_holes=True), labels)


def test_restriction_to_the_brain():
    labels = _lesion()
    brain = np.ones(labels.shape, bool)
    brain[:4] = False
    cleaned = _clean(labels, brain, restrict_to_brain=True)
    assert not cleaned[:4].any()
    np.testing.assert_array_equal(cleaned[4:], labels[4:])
    with pytest.raises(ValueError, match="brain mask"):
        _clean(labels, restrict_to_brain=True)


def test_little_enhancing_tumour_becomes_necrosis():
    labels = _lesion()
    cleaned = _clean(labels, small_enhancing_tumour=5)
    assert (cleaned[labels == 4] == 1).all()
    assert np.count_nonzero(cleaned != labels) == 4
    np.testing.assert_array_equal(_clean(labels, small_enhancing_tumour=4), labels)


def test_refuses_regions_and_classes_that_the_study_does_not_have():
    with pytest.raises(ConfigError, match=r"'WTT' \(did you mean 'WT'\?\)"):
        _clean(_lesion(), minimum_component={"WTT": 3})
    with pytest.raises(ConfigError, match=r"largest_component names the region 'WTT'"):
        _clean(_lesion(), largest_component=("WTT",))
    stroke = StudyConfig(labels={0: "background", 1: "lesion"}, regions={"lesion": (1,)})
    with pytest.raises(ConfigError, match="needs a class 'enhancing'"):
        _clean(_lesion(), study=stroke, small_enhancing_tumour=3)
