"""Resampling to another grid, against positions worked out by hand."""

import nibabel as nib
import numpy as np

from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.resample import resample


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
    np.testing.assert_array_equal(result[:, 0, 0], [4, 4, 4, 0, 0, 0, 0, 0])
