"""Geometry: JSON to the bit, and when two grids are one."""

import json

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.errors import DataError
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


def test_distances_come_from_the_affine_in_its_own_unit():
    """A true 12.5 mm is 12.5 mm, whatever pixdim says and whatever the unit is."""
    for unit, factor in (("mm", 1.0), ("meter", 1e-3), ("micron", 1e3)):
        header = nib.Nifti1Header()
        header.set_data_shape((4, 5, 6))
        affine = np.diag([2.0 * factor, 2.5 * factor, 3.0 * factor, 1.0])
        affine[:3, 3] = 10 * factor
        header.set_sform(affine, code=1)
        header.set_xyzt_units(unit)
        found = VolumeGeometry.from_header(header)
        np.testing.assert_allclose(found.spacing_mm, (2.0, 2.5, 3.0), rtol=1e-5)
        np.testing.assert_allclose(found.affine[:3, 3], 10, rtol=1e-5)
        # No zooms were written: they stand at 1, and it is said.
        assert "pixdim states voxels of" in found.spacing_doubt


def test_voxel_sides_that_agree_raise_no_doubt():
    assert geometry().spacing_doubt is None


@pytest.mark.parametrize(("affine", "message"), [
    (np.zeros((4, 4)), "singular"), (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
    (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    (np.diag([1.0, np.nan, 1.0, 1.0]), "not a finite 4 x 4 matrix"), (np.eye(3), "4 x 4"),
])
def test_an_affine_without_a_place_in_space(affine, message):
    with pytest.raises(DataError, match=message):
        VolumeGeometry.of((4, 5, 6), affine)


def test_a_sheared_affine_has_no_qform_and_is_kept():
    sheared = np.array([[1.0, 0.3, 0, 5], [0, 1.0, 0, 6], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    made = VolumeGeometry.of((4, 5, 6), sheared)
    np.testing.assert_allclose(made.nifti_header().get_sform(), sheared, atol=1e-6)
    assert made.difference(geometry(sheared)) is None
    assert made.voxel_mm3 == pytest.approx(2)
    assert made.spacing_mm[1] > 1.04


def test_a_permutation_is_found_only_where_voxels_coincide():
    first = geometry()
    orientation = nib.orientations.axcodes2ornt("PSR")
    turn = nib.orientations.ornt_transform(nib.io_orientation(OBLIQUE), orientation)
    shape = tuple(np.array((4, 5, 6))[np.argsort(turn[:, 0])])
    affine = OBLIQUE @ nib.orientations.inv_ornt_aff(turn, (4, 5, 6))
    np.testing.assert_array_equal(first.permutation_to(VolumeGeometry.of(shape, affine)), turn)
    affine[0, 3] += 0.5
    assert first.permutation_to(VolumeGeometry.of(shape, affine)) is None
    assert first.permutation_to(VolumeGeometry.of((4, 5, 6), 1.1 * OBLIQUE)) is None
