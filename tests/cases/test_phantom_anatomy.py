"""The synthetic head: parts that sum to one, and smooth fields of a length."""

import numpy as np

from pixelnet_tf.cases.phantom_anatomy import draw_anatomy, grid_mm, smooth_field

SHAPE, SPACING = (48, 48, 24), (4.2, 4.2, 6.0)


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
