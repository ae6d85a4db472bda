"""Rigid registration: `study.register`, the motion that is kept, and results on any grid."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.config import OutputForm, load_config
from pixelnet_tf.dataset.fingerprint import preparation_of
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.inference.predict import CaseSource, write_cases
from pixelnet_tf.inference.volume import SegmentedVolume
from pixelnet_tf.volumes import registration
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.checks import check_case
from pixelnet_tf.volumes.geometry import moved
from pixelnet_tf.volumes.nifti import read_volume, write_volume
from pixelnet_tf.volumes.phantom_study import write_phantom
from pixelnet_tf.volumes.registration import register_rigid
from pixelnet_tf.volumes.resample import resample

#: Voxels of 7.1 x 7.1 x 7.2 mm.
SIZE = (32, 28, 20)
CONFIG = load_config("phantom", [
    "prepare.bias_field.enabled=false", "split.test=0", "split.validation=0",
    "study.modalities=[flair, t2]", "study.register=rigid"])


def motion() -> np.ndarray:
    """From a point of the first image in mm to the same point of the second one."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (4, -3, 8), degrees=True).as_matrix()
    matrix[:3, 3] = 3, -4, 2
    return matrix


def farthest(one: np.ndarray, other: np.ndarray, geometry) -> float:
    """Greatest distance in mm of a corner of a grid under two motions."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in geometry.shape))).reshape(3, -1)
    points = geometry.affine @ np.vstack([corners, np.ones(8)])
    return float(np.linalg.norm(((one - other) @ points)[:3], axis=0).max())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A phantom whose T2 was taken with the head shifted and turned; not to be changed."""
    folder = tmp_path_factory.mktemp("registered") / "study"
    write_phantom(folder, 1, 0, size=SIZE)
    path = folder / "phantom_001" / "phantom_001_t2.nii.gz"
    array, geometry = read_volume(path)
    # A slice more, so that the two grids differ as well.
    array = np.pad(array, [(0, 0), (0, 0), (0, 1)])
    grid = type(geometry).of((*SIZE[:2], SIZE[2] + 1), geometry.affine)
    there = type(grid).of(grid.shape, np.linalg.inv(motion()) @ grid.affine)
    write_volume(path, resample(array, grid, there), grid)
    return folder


@pytest.fixture(scope="module")
def images(study):
    return [read_volume(study / "phantom_001" / f"phantom_001_{name}.nii.gz")
            for name in ("t2", "flair")]


@pytest.fixture(scope="module")
def prepared(study) -> PreparedStudy:
    out = str(study.parent / "prepared")
    prepare_study(CONFIG, study, out, workers=1)
    return PreparedStudy.open(out)


def test_a_known_motion_is_found_to_half_a_voxel(images):
    (moving, grid), (fixed, first) = images
    found = register_rigid(moving, grid, fixed, first)
    assert farthest(np.eye(4), motion(), first) > 25
    assert farthest(found, motion(), first) < 3.6


def test_a_search_that_ends_on_the_way_is_begun_anew(images, monkeypatch):
    """As within thin slices, where it turns by too little; here its steps shrink too fast."""
    (moving, grid), (fixed, first) = images
    monkeypatch.setattr(registration, "_SHORTER", 0.3)
    assert farthest(register_rigid(moving, grid, fixed, first), motion(), first) < 3.6
    monkeypatch.setattr(registration, "_ROUNDS", 1)
    assert farthest(register_rigid(moving, grid, fixed, first), motion(), first) > 5


def test_the_same_images_give_the_same_motion_to_the_bit(images):
    (moving, grid), (fixed, first) = images
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(register_rigid(moving, grid, fixed, first))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(*found)


def test_images_in_place_stay_as_they_are(study, images):
    fixed, first = images[1]
    other, grid = read_volume(study / "phantom_001" / "phantom_001_t1ce.nii.gz")
    np.testing.assert_array_equal(register_rigid(other, grid, fixed, first), np.eye(4))


def test_a_scan_that_lies_elsewhere_is_found_by_its_centre(images):
    (moving, grid), (fixed, first) = images
    far = np.eye(4)
    far[:3, 3] = 400, -300, 200
    elsewhere = moved(grid, np.linalg.inv(far))
    assert farthest(register_rigid(moving, elsewhere, fixed, first), far @ motion(), first) < 3.6


def test_a_search_that_does_not_converge_is_named(images, monkeypatch):
    (moving, grid), (fixed, first) = images
    monkeypatch.setattr(registration, "_ITERATIONS", 2)
    with pytest.raises(DataError, match="does not converge: mutual information"):
        register_rigid(moving, grid, fixed, first)


def test_images_without_a_common_part_are_named(images, monkeypatch):
    (moving, grid), (fixed, first) = images
    far = np.eye(4)
    far[:3, 3] = 4000, 0, 0
    monkeypatch.setattr(registration, "_centre_of_mass", lambda image: np.zeros(3))
    with pytest.raises(DataError, match="no part in common with the first modality"):
        register_rigid(moving, moved(grid, far), fixed, first)


def test_a_case_is_refused_without_and_brought_with_registration(study, prepared):
    case, = find_cases(study, CONFIG.study)
    plain = replace(CONFIG.study, register="none")
    with pytest.raises(DataError, match="not on the grid of the first modality"):
        prepare_case(case, plain, CONFIG.prepare)
    assert check_case(case, plain).problems
    assert not check_case(case, CONFIG.study).problems
    assert preparation_of(plain, CONFIG.prepare) != preparation_of(CONFIG.study, CONFIG.prepare)

    volume = prepared.read_volume("phantom_001")
    assert volume.geometry.shape == SIZE
    own = volume.grids["t2"]
    assert set(volume.grids) == {"t2"}
    assert own.geometry.shape == (*SIZE[:2], SIZE[2] + 1)
    assert farthest(own.motion, motion(), volume.geometry) < 3.6
    stored = json.loads((study.parent / "prepared/cases/phantom_001.json").read_text())
    np.testing.assert_array_equal(stored["grids"]["t2"]["motion"], own.motion)
    # The network sees both as if the head had not moved.
    still = study.parent / "still"
    write_phantom(still, 1, 0, size=SIZE)
    expected = prepare_case(find_cases(still, plain)[0], plain, CONFIG.prepare).images[..., 1]
    inside = volume.brain & (expected != 0)

    def likeness(images: np.ndarray) -> float:
        return float(np.corrcoef(images[..., 1][inside], expected[inside])[0, 1])

    unregistered = prepare_case(case, replace(plain, resample=True), CONFIG.prepare).images
    assert likeness(unregistered) < 0.65
    assert likeness(volume.images) > 0.78


def write(prepared, out, **options):
    """Write the truth as if it had been predicted."""
    def segment(volume):
        classes = volume.plan.from_slices(volume.labels)
        labels = np.asarray(CONFIG.study.label_values, np.uint8)[classes]
        maps = np.eye(4, dtype=np.float32)[classes]
        return SegmentedVolume(labels, maps)

    maps = replace(CONFIG, prediction=replace(CONFIG.prediction, probability_maps=True))
    source = CaseSource.open(prepared.path, CONFIG)
    return write_cases(segment, {"networks": [{"model": "m", "weights": "0"}]}, source, maps, out,
                       **options)


def test_results_lie_on_the_grid_that_is_asked_for(study, prepared, tmp_path):
    drawn = []
    write(prepared, tmp_path / "t2", grid="t2", draw=lambda volume, labels: drawn.append(labels))
    labels, geometry = read_volume(tmp_path / "t2" / "phantom_001.nii.gz")
    grid = read_volume(study / "phantom_001" / "phantom_001_t2.nii.gz")[1]
    assert geometry.difference(grid) is None
    truth, first = read_volume(study / "phantom_001" / "phantom_001_seg.nii.gz")
    # Where the lesion truly is in the moved scan.
    there = resample(truth, first, moved(grid, motion()), "nearest")
    dice = 2 * ((labels > 0) & (there > 0)).sum() / ((labels > 0).sum() + (there > 0).sum())
    assert dice > 0.8
    np.testing.assert_array_equal(drawn[0], truth)
    maps = nib.load(tmp_path / "t2" / "probabilities" / "phantom_001.nii.gz").get_fdata()
    np.testing.assert_array_equal(maps.argmax(-1), np.searchsorted((0, 1, 2, 4), labels))
    assert (maps.sum(-1) == 1).all()
    assert PredictionRecord.read(tmp_path / "t2").grid == "t2"
    # The same call keeps it; another grid is something else.
    assert write(prepared, tmp_path / "t2", grid="t2").kept == ("phantom_001",)
    with pytest.raises(DataError, match="other settings of the prediction"):
        write(prepared, tmp_path / "t2")
    # A picture that is missing is drawn of the labels, brought back.
    write(prepared, tmp_path / "t2", grid="t2", draw=lambda volume, labels: drawn.append(labels))
    assert (drawn[1] > 0).sum() == pytest.approx((truth > 0).sum(), rel=0.3)

    write(prepared, tmp_path / "flair", grid="flair")
    assert PredictionRecord.read(tmp_path / "flair").grid == ""
    np.testing.assert_array_equal(read_volume(tmp_path / "flair" / "phantom_001.nii.gz")[0], truth)


@pytest.mark.parametrize(("options", "message"), [
    ({"grid": "t3"}, "the grid of 't3' is asked for, which is no modality .did you mean 't2'"),
    ({"grid": "t2", "output": OutputForm.BIDS}, "lie on the grid of the first modality"),
])
def test_a_grid_that_there_cannot_be_is_refused(prepared, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        write(prepared, tmp_path / "out", **options)
