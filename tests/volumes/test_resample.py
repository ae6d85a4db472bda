"""Resampling to another grid, against positions worked out by hand."""

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.resample import bring_image, bring_labels, resample


def geometry(shape, affine) -> VolumeGeometry:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    return VolumeGeometry.from_header(header)


def test_linear_values_at_the_positions_of_a_sheared_target():
    source = geometry((12, 10, 8), np.diag([-2.0, 1.5, 3.0, 1.0]))
    x, y, z = np.indices(source.shape)
    array = (3 * x - 2 * y + 5 * z).astype(np.float32)
    affine = np.array([[-1.0, 0.2, 0, -4], [0, 1.0, 0.1, 3], [0.1, 0, 1.0, 6], [0, 0, 0, 1]])
    target = geometry((6, 5, 4), affine)
    result = resample(array, source, target)
    index = np.indices(target.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    i, j, k = world / np.array([[-2.0], [1.5], [3.0]])
    np.testing.assert_allclose(result.ravel(), 3 * i - 2 * j + 5 * k, atol=1e-3)


def test_labels_stay_labels_and_outside_is_zero():
    source = geometry((4, 4, 4), np.eye(4))
    labels = np.full((4, 4, 4), 4, np.uint8)
    target = geometry((8, 4, 4), np.array([[0.5, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0],
                                           [0, 0, 0, 1.0]]))
    result = resample(labels, source, target, "nearest")
    assert result.dtype == np.uint8
    # The fourth lies on the very face of the source; faces to the patient's right belong to it.
    np.testing.assert_array_equal(result[:, 0, 0], [4, 4, 4, 4, 0, 0, 0, 0])


def ball(shape) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = np.sqrt((grid ** 2).sum(0)) < 0.7
    return (inside * np.random.default_rng(0).uniform(50, 100, shape)).astype(np.float32)


def test_axes_in_another_order_are_permuted_without_a_change():
    array, source = ball((8, 10, 12)), geometry((8, 10, 12), np.diag([-1.0, -1.2, 2.0, 1.0]))
    target = geometry((12, 8, 10), np.array([[0, 1.0, 0, -7], [0, 0, 1.2, -10.8], [2.0, 0, 0, 0],
                                             [0, 0, 0, 1]]))
    wanted = np.moveaxis(array, 2, 0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(
        bring_image(array, source, target, wanted != 0, keep_zeros=True), wanted)
    np.testing.assert_array_equal(bring_labels(array, source, target), wanted)


def test_a_mask_does_not_grow_by_interpolation():
    array, source = ball((20, 20, 20)), geometry((20, 20, 20), np.diag([1.0, 1.0, 1.0, 1.0]))
    shift = np.eye(4)
    shift[:3, 3] = 0.4
    target = geometry((20, 20, 20), shift)
    brought = bring_image(array, source, target, array != 0, keep_zeros=True)
    nearest = resample((array != 0).astype(np.uint8), source, target, "nearest") > 0
    np.testing.assert_array_equal(brought != 0, nearest)
    grown = bring_image(array, source, target, array != 0, keep_zeros=False)
    assert (grown != 0).sum() > nearest.sum()


def test_what_lies_elsewhere_is_refused_with_the_number_of_voxels():
    array, source = ball((20, 20, 20)), geometry((20, 20, 20), np.eye(4))
    away = np.eye(4)
    away[0, 3] = 16
    target = geometry((20, 20, 20), away)
    labels = (array > 0).astype(np.uint8)
    with pytest.raises(DataError, match=r"only \d+ of its \d+ labelled voxels lie"):
        bring_labels(labels, source, target)
    with pytest.raises(DataError, match=r"only [\d.]+% of it lies on"):
        bring_image(array, source, target, array != 0, keep_zeros=True)
    # No lesion at all lies nowhere.
    assert not bring_labels(0 * labels, source, target).any()


def test_a_scan_of_a_slab_takes_its_part_of_a_whole_head():
    array, source = ball((20, 20, 20)), geometry((20, 20, 20), np.eye(4))
    affine = np.eye(4)
    affine[:3, 3] = 0.25, 0.25, 8
    slab = geometry((20, 20, 4), affine)
    needed = resample((array != 0).astype(np.uint8), source, slab, "nearest") > 0
    assert bring_image(array, source, slab, needed, keep_zeros=True).any()
