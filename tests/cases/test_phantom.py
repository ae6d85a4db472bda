"""Synthetic cases: deterministic, varied, and of the contrasts that real images have."""

import numpy as np
import pytest

from pixelnet_tf.cases.phantom import (
    draw_anatomy,
    draw_brats_case,
    draw_isles_case,
    grid_mm,
    smooth_field,
)

SIZE = (64, 64, 32)
#: Of an anatomy that is drawn without a case: voxels, and their sides in mm.
SHAPE, SPACING = (48, 48, 24), (4.2, 4.2, 6.0)


@pytest.fixture(scope="module")
def tumour():
    return draw_brats_case(0, 1, SIZE)


@pytest.fixture(scope="module")
def stroke():
    return draw_isles_case(0, 1, (72, 64, 16))


def median(case, modality, mask):
    return float(np.median(case.volumes[modality][mask]))


def test_brats_arrays(tumour):
    assert list(tumour.volumes) == ["t1", "t1ce", "t2", "flair"]
    assert set(np.unique(tumour.labels)) == {0, 1, 2, 4}
    assert tumour.labels.dtype == np.uint8
    brain = tumour.volumes["flair"] > 0
    for array in tumour.volumes.values():
        assert array.dtype == np.int16
        assert array.shape == SIZE
        np.testing.assert_array_equal(array > 0, brain)
    assert 0.15 < brain.mean() < 0.35
    assert 0.96 < (tumour.labels == 0).mean() < 0.997
    assert not tumour.labels[~brain].any()


def test_the_same_arguments_give_the_same_case(tumour):
    again, other = draw_brats_case(0, 1, SIZE), draw_brats_case(0, 2, SIZE)
    for modality, array in tumour.volumes.items():
        np.testing.assert_array_equal(array, again.volumes[modality])
    np.testing.assert_array_equal(tumour.labels, again.labels)
    assert (tumour.labels != other.labels).any()


def test_tumour_contrasts(tumour):
    labels, brain = tumour.labels, tumour.volumes["flair"] > 0
    healthy = brain & (labels == 0)
    assert median(tumour, "flair", labels == 2) > 1.3 * median(tumour, "flair", healthy)
    assert median(tumour, "t1ce", labels == 4) > 1.2 * median(tumour, "t1ce", healthy)
    assert median(tumour, "t1ce", labels == 4) > 1.5 * median(tumour, "t1ce", labels == 1)
    assert median(tumour, "t1", labels == 1) < 0.8 * median(tumour, "t1", healthy)
    assert median(tumour, "t2", labels == 2) > 1.2 * median(tumour, "t2", healthy)


def test_the_tumour_is_nested(tumour):
    """Necrosis lies nearer to the tumour's middle than its rim, and that nearer than edema."""
    positions = np.argwhere(tumour.labels > 0) * tumour.spacing_mm
    middle = (np.argwhere(tumour.labels == 1) * tumour.spacing_mm).mean(axis=0)
    distance = np.linalg.norm(positions - middle, axis=1)
    values = tumour.labels[tumour.labels > 0]
    means = [distance[values == value].mean() for value in (1, 4, 2)]
    assert means == sorted(means)


def test_stroke_contrasts(stroke):
    lesion = stroke.labels == 1
    brain = stroke.volumes["adc"] > 0
    healthy = brain & ~lesion
    assert 0.001 < lesion.mean() < 0.03
    assert median(stroke, "dwi", lesion) > 1.4 * median(stroke, "dwi", healthy)
    assert median(stroke, "adc", lesion) < 0.8 * median(stroke, "adc", healthy)
    assert median(stroke, "cbf", lesion) < 0.7 * median(stroke, "cbf", healthy)
    assert (stroke.volumes["dwi"][~brain] > 0).mean() > 0.9
    assert stroke.spacing_mm[2] > 2 * stroke.spacing_mm[0]


def test_parts_of_a_voxel_sum_to_one_inside_the_brain_and_zero_outside():
    anatomy = draw_anatomy(np.random.default_rng(0), SHAPE, SPACING)
    parts = np.stack([anatomy.white, anatomy.grey, anatomy.deep, anatomy.fluid])
    np.testing.assert_allclose(parts.sum(0), anatomy.brain, atol=1e-5)
    assert parts.min() >= -1e-6
    share = parts[:, anatomy.brain].mean(axis=1)
    assert (share > [0.25, 0.1, 0.01, 0.03]).all()


def test_the_middle_of_the_grid_is_the_origin():
    position = grid_mm((3, 2, 1), (2.0, 4.0, 5.0))
    np.testing.assert_array_equal(position[0, :, 0, 0], [-2, 0, 2])
    np.testing.assert_array_equal(position[1, 0, :, 0], [-2, 2])
    np.testing.assert_array_equal(position[2], 0)


def test_neighbours_of_a_smoother_field_are_more_alike():
    def likeness(scale_mm: float) -> float:
        field = smooth_field(np.random.default_rng(1), SHAPE, SPACING, scale_mm)
        np.testing.assert_allclose([field.mean(), field.std()], [0, 1], atol=1e-4)
        return float((field[1:] * field[:-1]).mean())

    assert likeness(3) < likeness(8) < likeness(30)
