"""Geometry: JSON to the bit, and when two grids are one."""

import json

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.volumes.geometry import VolumeGeometry

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.1, 0.9, 5.0]), [10.1, -20.2, 30.3])


def geometry(affine=OBLIQUE, shape=(4, 5, 6), kind=nib.Nifti1Header) -> VolumeGeometry:
    header = kind()
    header.set_data_shape(shape)
    header.set_sform(affine, code=2)
    header.set_qform(affine, code=1)
    return VolumeGeometry.from_header(header)


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_json_keeps_every_bit(kind):
    first = geometry(kind=kind)
    again = VolumeGeometry.from_json(json.loads(json.dumps(first.to_json())))
    assert again.header == first.header
    assert (again.shape, again.spacing_mm) == (first.shape, first.spacing_mm)
    assert again.affine.tobytes() == first.affine.tobytes()
    assert again.nifti_header() == first.nifti_header()


def test_spacing():
    np.testing.assert_allclose(geometry().spacing_mm, (1.1, 0.9, 5.0), rtol=1e-6)


def test_equal_grids():
    assert geometry().difference(geometry()) is None
    rounded = OBLIQUE + 1e-5
    assert geometry().difference(geometry(rounded)) is None


def test_other_shape_names_both():
    assert geometry().difference(geometry(shape=(4, 5, 7))) == "shape (4, 5, 6) against (4, 5, 7)"


def test_other_affine_names_both_and_how_far():
    moved = OBLIQUE.copy()
    moved[0, 3] += 3
    text = geometry(np.eye(4)).difference(geometry(np.diag([1, 1, 2, 1])))
    assert "[0.0, 0.0, 1.0, 0.0]" in text
    assert "[0.0, 0.0, 2.0, 0.0]" in text
    assert "up to 5 mm apart" in text
    assert "up to 3 mm apart" in geometry().difference(geometry(moved))
