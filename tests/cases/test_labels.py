"""Label values to class indices, and back."""

import numpy as np
import pytest

from pixelnet_tf.cases.labels import (
    classes_to_values,
    unknown_values,
    values_in,
    values_to_classes,
    whole_bytes,
)
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError

STUDY = StudyConfig()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_there_and_back(dtype):
    values = np.array([[0, 4], [2, 1]], dtype)
    classes = values_to_classes(values, STUDY)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[0, 3], [2, 1]])
    back = classes_to_values(classes, STUDY)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, values)


def test_the_order_of_the_map_gives_the_index():
    study = StudyConfig(labels={0: "background", 7: "a", 3: "b"}, regions={})
    np.testing.assert_array_equal(values_to_classes(np.array([3, 7, 0]), study), [2, 1, 0])


@pytest.mark.parametrize("value", [3, 0.5, -1, 256, np.nan])
def test_unknown_value(value):
    array = np.array([0, value])
    assert len(unknown_values(array, STUDY)) == 1
    with pytest.raises(DataError, match=r"unknown label .*; study.labels names \[0, 1, 2, 4\]"):
        values_to_classes(array, STUDY)


@pytest.mark.parametrize("values", [1, 3, 8, 9, 256])
def test_the_values_that_occur(values):
    labels = np.random.default_rng(0).choice(256, values, replace=False).astype(np.uint8)
    array = np.asfortranarray(np.resize(labels, (16, 9, 8)))
    assert values_in(array) == np.unique(array).tolist()
    assert values_in(array[:0]) == []


@pytest.mark.parametrize(("values", "found"), [
    ([0, 4, 255], [0, 4, 255]), ([0.0, 1.9996], [0, 2]), ([0, 256], None), ([-1, 0], None),
    ([0.5], None), ([np.nan], None), ([np.inf], None)])
def test_label_arrays_as_bytes(values, found):
    labels = whole_bytes(np.array(values))
    assert (None if labels is None else labels.tolist()) == found


def test_unknown_class():
    with pytest.raises(DataError, match="class index 4"):
        classes_to_values(np.array([0, 4]), STUDY)


def test_values_that_are_whole_but_for_rounding():
    values = np.array([0.99999994, 2.0004, -0.0002], np.float32)
    np.testing.assert_array_equal(values_to_classes(values, STUDY), [1, 2, 0])
    with pytest.raises(DataError, match=r"unknown label 0\.998"):
        values_to_classes(np.array([0.998]), STUDY)
