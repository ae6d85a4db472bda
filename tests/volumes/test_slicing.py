"""Slices: radiological view, the ISLES rule by hand, and the exact way back."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan

ORIENTATIONS = ["".join(signed) for order in itertools.permutations(("LR", "PA", "SI"))
                for signed in itertools.product(*order)]


def geometry(shape, codes="LPS") -> VolumeGeometry:
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for axis, (to, sign) in enumerate(ornt):
        affine[int(to), axis] = sign
    affine[3, 3] = 1
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    return VolumeGeometry.from_header(header)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_radiological_view_and_back_from_all_48_orientations(codes):
    """A value that grows to the left, to the back and upwards tells where a voxel went."""
    sizes = {"L": 3, "R": 3, "P": 4, "A": 4, "S": 5, "I": 5}
    steps = {"L": 1, "R": 1, "P": 10, "A": 10, "S": 100, "I": 100}
    shape = tuple(sizes[code] for code in codes)
    volume = np.zeros(shape, np.int32)
    for axis, code in enumerate(codes):
        index = np.arange(shape[axis]) if code in "LPS" else np.arange(shape[axis])[::-1]
        volume += steps[code] * index.reshape([-1 if i == axis else 1 for i in range(3)])
    plan = SlicePlan(geometry(shape, codes))
    slices = plan.to_slices(volume)
    assert slices.shape == (plan.slices, plan.height, plan.width) == (5, 4, 3)
    z, y, x = np.indices((5, 4, 3))
    np.testing.assert_array_equal(slices, x + 10 * y + 100 * z)
    np.testing.assert_array_equal(plan.from_slices(slices), volume)
    seen = plan.seen_as_volume(slices)
    np.testing.assert_array_equal(seen, volume)
    assert np.shares_memory(seen, slices)


@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
def test_upright_planes_and_back(codes):
    """Row 0 is the highest; columns run to the left in coronal, to the back in sagittal slices."""
    sizes = {"L": 3, "R": 3, "P": 4, "A": 4, "S": 5, "I": 5}
    shape = tuple(sizes[code] for code in codes)
    axial = np.arange(60).reshape(5, 4, 3)
    volume = SlicePlan(geometry(shape, codes)).from_slices(axial)
    coronal, sagittal = (SlicePlan(geometry(shape, codes), plane=plane)
                         for plane in ("coronal", "sagittal"))
    np.testing.assert_array_equal(coronal.to_slices(volume), axial[::-1].transpose(1, 0, 2))
    np.testing.assert_array_equal(sagittal.to_slices(volume), axial[::-1].transpose(2, 0, 1))
    for plan in (coronal, sagittal):
        slices = plan.to_slices(volume)
        assert slices.shape == (plan.slices, plan.height, plan.width)
        np.testing.assert_array_equal(plan.from_slices(slices), volume)
        np.testing.assert_array_equal(plan.to_axial(plan.read_voxels(slices)), axial)


def test_pixels_of_upright_planes_are_square():
    """4 x 3 x 2 voxels of 1 x 2 x 3 mm: the longer side is divided, and labels come back."""
    thick = VolumeGeometry.of((4, 3, 2), np.diag([-1.0, -2.0, 3.0, 1.0]))
    coronal, sagittal = (SlicePlan(thick, plane=plane) for plane in ("coronal", "sagittal"))
    assert (coronal.slices, coronal.height, coronal.width) == (3, 6, 4)
    assert (sagittal.slices, sagittal.height, sagittal.width) == (4, 3, 3)
    volume = np.arange(24).reshape(4, 3, 2)
    for plan in (coronal, sagittal):
        np.testing.assert_array_equal(plan.from_slices(plan.to_slices(volume, "nearest")), volume)
    column = coronal.to_slices(volume.astype(np.float32))[0, :, 0]
    # Voxels 1 (upper) and 0 (lower), three pixels each, linear between their centres.
    np.testing.assert_allclose(column, [1, 1, 2 / 3, 1 / 3, 0, 0], atol=1e-6)
    flat = VolumeGeometry.of((4, 3, 2), np.diag([-1.0, -1.0, 4.5, 1.0]))
    SlicePlan(flat)
    with pytest.raises(DataError, match=r"pixels of 4.5 x 1 mm in coronal slices: one side is more "
                                        r"than 4 times.*; set model.planes=\[axial\]"):
        SlicePlan(flat, plane="coronal")


@pytest.mark.parametrize("last", [0.0, 1e-7, -1e-7])
def test_the_last_digit_of_a_header_changes_no_size(last):
    # 3 slices of 2.5 pixels are 7.5 pixels; 4 pixels a slice are as many as may be.
    for side, height in ((2.5 + last, 8), (4 + last, 12)):
        thick = VolumeGeometry.of((4, 5, 3), np.diag([1.0, 1.0, side, 1.0]))
        assert SlicePlan(thick, plane="coronal").height == height


def test_the_isles_rule_by_hand():
    """2 rows of 4 pixels, doubled to 4 x 8 and padded by 2 rows above and below."""
    plan = SlicePlan(geometry((4, 2, 1)), 8)
    volume = np.array([[1, 5], [2, 6], [3, 7], [4, 8]], np.float32)[..., None]
    nearest = plan.to_slices(volume, "nearest")[0]
    assert nearest.shape == (8, 8)
    assert not nearest[[0, 1, 6, 7]].any()
    np.testing.assert_array_equal(nearest[2:6], np.repeat(
        [[1, 1, 2, 2, 3, 3, 4, 4], [5, 5, 6, 6, 7, 7, 8, 8]], 2, axis=0))
    linear = plan.to_slices(volume)[0]
    np.testing.assert_allclose(linear[2], [1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4])
    np.testing.assert_allclose(linear[:, 0], [0, 0, 1, 2, 4, 5, 0, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 3), st.integers(0, 20),
       st.sampled_from(ORIENTATIONS))
def test_labels_come_back_exactly(x, y, z, more, codes):
    shape = tuple({"L": x, "R": x, "P": y, "A": y, "S": z, "I": z}[code] for code in codes)
    labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)
    plan = SlicePlan(geometry(shape, codes), max(x, y) + more)
    slices = plan.to_slices(labels, "nearest")
    assert slices.dtype == np.uint8
    np.testing.assert_array_equal(plan.from_slices(slices), labels)


def test_only_the_native_pixels_are_read():
    plan = SlicePlan(geometry((5, 7, 2)), 16)
    pixels = plan.native_pixels_yx
    assert pixels.shape == (35, 2)
    slices = np.full((2, 16, 16, 3), -1, np.float32)
    values = np.random.default_rng(0).random((2, 35, 3)).astype(np.float32)
    slices[:, pixels[:, 0], pixels[:, 1]] = values
    volume = plan.from_slices(slices)
    assert volume.shape == (5, 7, 2, 3)
    np.testing.assert_array_equal(volume[:, :, 1].transpose(1, 0, 2).reshape(35, 3), values[1])


def test_linear_scaling_keeps_a_plane_inside():
    """A linear ramp stays linear between the outermost pixel centres."""
    volume = np.tile(np.arange(6, dtype=np.float32).reshape(6, 1, 1), (1, 6, 2))
    row = SlicePlan(geometry((6, 6, 2)), 15).to_slices(volume)[1, 7]
    position = (np.arange(15) + 0.5) * 6 / 15 - 0.5
    np.testing.assert_allclose(row, np.clip(position, 0, 5), atol=1e-5)


def test_channels_and_oblique_affine(save, tmp_path):
    from pixelnet_tf.volumes.nifti import read_volume
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1, -0.2), [1, 2, 3])
    volume, oblique = read_volume(save(tmp_path / "v.nii", np.random.default_rng(0).random(
        (4, 5, 6)).astype(np.float32), affine))
    plan = SlicePlan(oblique)
    channels = np.stack([volume, -volume], axis=-1)
    slices = plan.to_slices(channels)
    assert slices.shape == (6, 5, 4, 2)
    np.testing.assert_array_equal(slices[..., 0], -slices[..., 1])
    np.testing.assert_array_equal(plan.from_slices(slices), channels)


def test_too_large_a_slice():
    with pytest.raises(DataError, match=r"7x5 pixels.*slice_size = 6.*at least 7"):
        SlicePlan(geometry((5, 7, 2)), 6)
