"""Lesions one by one: what is said of each, worked out by hand."""

import math

import numpy as np
import pytest

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.volumes.lesions import (
    Lesion,
    LesionVoxels,
    bounding_box,
    entropy,
    list_lesions,
    number_lesions,
)

STUDY = StudyConfig(labels={0: "background", 1: "core", 3: "rim"},
                    regions={"all": (1, 3), "core": (1,), "rim": (3,)})
#: 2 x 3 x 5 mm voxels, the first axis towards L, origin at (10, -20, 30).
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]])


def _mask(shape, *voxels):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_bounding_box_of_two_volumes():
    a, b = _mask((9, 9, 9), (2, 3, 4)), _mask((9, 9, 9), (5, 3, 1))
    assert bounding_box(a, b) == (slice(2, 6), slice(3, 4), slice(1, 5))
    assert bounding_box(np.zeros((3, 3, 3))) == (slice(0, 0),) * 3


def test_voxels_that_share_a_corner_are_of_one_lesion():
    numbers, count = number_lesions(_mask((6, 6, 6), (1, 1, 1), (2, 2, 2), (4, 4, 4)))
    assert count == 2
    assert numbers[1, 1, 1] == numbers[2, 2, 2] != numbers[4, 4, 4]


def test_entropy_in_nats():
    shares = np.float32([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(entropy(shares), [0, math.log(2), math.log(3)], rtol=1e-6)


def test_every_lesion_of_every_region_the_largest_first():
    labels = np.zeros((8, 7, 6), np.uint8)
    labels[6, 5, 4] = 3                       # alone, nowhere at the border
    labels[2, 2, 2], labels[3, 2, 2], labels[2, 3, 0:2] = 1, 1, 3   # one lesion of two classes
    places = np.argwhere(labels > 0).tolist()
    assert places == [[2, 2, 2], [2, 3, 0], [2, 3, 1], [3, 2, 2], [6, 5, 4]]
    shares = np.float32([[0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8], [0.4, 0.6, 0.0],
                         [0.5, 0.0, 0.5]])
    unsure = np.float32([0.1, 0.2, 0.3, 0.4, 0.5])
    found = list_lesions(labels, AFFINE, STUDY, LesionVoxels(shares, unsure))
    # A voxel is 30 mm3. (2.25, 2.5, 1.25) is the mean of the four voxels' indices.
    big = Lesion("all", 1, 0.12, (10 - 2 * 2.25, -20 + 3 * 2.5, 30 + 5 * 1.25), True,
                 (0.8 + 0.9 + 0.9 + 0.6) / 4, 0.25)
    small = Lesion("all", 2, 0.03, (-2, -5, 50), False, 0.5, 0.5)
    core = Lesion("core", 1, 0.06, (5, -14, 40), False, 0.65, 0.25)
    rim = Lesion("rim", 1, 0.06, (6, -11, 32.5), True, 0.75, 0.25)
    expected = [big, small, core, rim, Lesion("rim", 2, 0.03, (-2, -5, 50), False, 0.5, 0.5)]
    assert [(one.region, one.number, one.touches_border) for one in found] == [
        (one.region, one.number, one.touches_border) for one in expected]
    for one, right in zip(found, expected, strict=True):
        assert one.centroid_mm == pytest.approx(right.centroid_mm)
        assert (one.volume_ml, one.mean_probability, one.mean_entropy) == pytest.approx(
            (right.volume_ml, right.mean_probability, right.mean_entropy))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, -1])
def test_a_lesion_touches_the_border_at_every_face(axis, side):
    labels = np.zeros((5, 5, 5), np.uint8)
    place = [2, 2, 2]
    place[axis] = side
    labels[tuple(place)] = 1
    assert [one.touches_border for one in list_lesions(labels, np.eye(4), STUDY)] == [True, True]
    inner = np.zeros((5, 5, 5), np.uint8)
    inner[1:4, 1:4, 1:4] = 1
    assert not any(one.touches_border for one in list_lesions(inner, np.eye(4), STUDY))


def test_no_lesion_and_nothing_known_of_the_voxels():
    assert list_lesions(np.zeros((4, 4, 4), np.uint8), AFFINE, STUDY) == []
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = 1
    assert {(one.mean_probability, one.mean_entropy)
            for one in list_lesions(labels, AFFINE, STUDY)} == {(None, None)}
