"""The picture under an overlay, from a raw and from a prepared study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nibabel import orientations

from pixelnet_tf.config import load_config
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.case_images import image_reader
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import read_geometry, read_volume
from pixelnet_tf.volumes.phantom_study import write_phantom

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false"])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_phantom(folder, 3, 0, size=(32, 28, 12))
    return folder


@pytest.fixture(scope="module")
def grid(phantom):
    return read_geometry(phantom / "phantom_002" / "phantom_002_seg.nii.gz")


@pytest.fixture(scope="module")
def readers(phantom, tmp_path_factory):
    """Of the raw and of the prepared study."""
    from pixelnet_tf.dataset.prepare_study import prepare_study
    prepared = tmp_path_factory.mktemp("prepared")
    prepare_study(CONFIG, phantom, prepared, workers=1)
    return [image_reader(folder, CONFIG.study) for folder in (phantom, prepared)]


def test_raw_study_gives_the_first_modality(phantom, grid):
    read = image_reader(phantom, CONFIG.study)
    expected, _ = read_volume(phantom / "phantom_002" / "phantom_002_flair.nii.gz")
    shown = read("phantom_002", grid)
    np.testing.assert_array_equal(shown.image, expected)
    assert shown.modality == "flair"
    # Skull-stripped: the brain is what is not zero, but for its holes.
    assert shown.brain[expected > 0].all()
    assert shown.brain.mean() < 0.6
    assert read("unknown", grid) is None


def test_prepared_study_gives_the_same_grid(readers, grid):
    raw, prepared = (read("phantom_002", grid) for read in readers)
    assert (prepared.image.shape, prepared.modality) == (raw.image.shape, "flair")
    np.testing.assert_array_equal(prepared.brain, raw.brain)
    # The z-score is one straight line over the brain; a flipped axis would break it.
    brain = prepared.brain
    assert np.corrcoef(prepared.image[brain], raw.image[brain])[0, 1] > 0.9999
    assert readers[1]("unknown", grid) is None


@pytest.mark.parametrize("code", ["RAS", "SAL", "PIR"])
def test_labels_whose_axes_are_in_another_order_have_the_same_voxels_under_them(
        readers, grid, code):
    turn = orientations.ornt_transform(orientations.io_orientation(grid.affine),
                                       orientations.axcodes2ornt(code))
    shape = orientations.apply_orientation(np.empty(grid.shape), turn).shape
    other = VolumeGeometry.of(shape, grid.affine @ orientations.inv_ornt_aff(turn, grid.shape))
    for read in readers:
        plain, shown = read("phantom_002", grid), read("phantom_002", other)
        for name in ("image", "brain"):
            np.testing.assert_array_equal(
                getattr(shown, name), orientations.apply_orientation(getattr(plain, name), turn))


def test_labels_on_another_grid_have_the_image_interpolated_under_them(readers, grid):
    # Every second slice, and half a voxel along x.
    affine = grid.affine @ np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] += grid.affine[:3, 0] / 2
    other = VolumeGeometry.of((*grid.shape[:2], grid.shape[2] // 2), affine)
    for read in readers:
        plain, shown = read("phantom_002", grid), read("phantom_002", other)
        between = (plain.image[:-1] + plain.image[1:])[..., ::2] / 2
        np.testing.assert_allclose(shown.image[:-1], between, rtol=1e-5, atol=1e-4)
        assert shown.brain.dtype == bool
        assert shown.brain.mean() == pytest.approx(plain.brain[..., ::2].mean(), abs=0.03)


def test_labels_that_lie_elsewhere_are_refused_by_name(readers, grid):
    affine = grid.affine.copy()
    affine[2, 3] += 1000
    for read in readers:
        with pytest.raises(DataError, match=r"case phantom_002: .*not lie where the labels lie"):
            read("phantom_002", replace(grid, affine=affine))


def test_refuses_a_folder_that_is_neither(tmp_path):
    with pytest.raises(DataError, match="no case found"):
        image_reader(tmp_path, CONFIG.study)
