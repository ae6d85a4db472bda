"""Reading DICOM series: the same voxels in the same place, and what is refused."""

import re

import nibabel as nib
import numpy as np
import pydicom
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.dicom_series import series_in
from pixelnet_tf.dataset.fingerprint import inputs_of
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.raw_volume import RawVolume, geometry_of
from tests.dicom_study import OBLIQUE, change, orthogonal, write_series

ARRAY = np.random.default_rng(0).integers(-50, 2000, (7, 6, 5)).astype(np.int16)
#: The axes of files and patients: axial as dicoms of a head are, oblique, sagittal with slices that
#: run against their normal.
AFFINES = {
    "axial": nib.affines.from_matvec(np.diag([-0.9, -1.1, 3.0]), [10, 11, -12.5]),
    "oblique": nib.affines.from_matvec(orthogonal(OBLIQUE) * [-0.9, -1.1, 2.5],
                                       [31.25, -40.5, 12.125]),
    "against the normal": np.array([[0, 0, 1.5, -20], [-0.5, 0, 0, 80.0], [0, -0.5, 0, 90],
                                    [0, 0, 0, 1]]),
}


def only(folder):
    """The one series of a folder."""
    found, faults = series_in(folder)
    assert not faults
    series, = found
    return series


@pytest.fixture
def files(tmp_path):
    return write_series(tmp_path, ARRAY, AFFINES["oblique"], "AX FLAIR", number=4)


def refused(folder):
    """What reading the one series of a folder is refused for; by voxels and by headers alike."""
    series = only(folder)
    with pytest.raises(DataError, match=r"AX FLAIR.*number 4") as error:
        RawVolume.read(series)
    with pytest.raises(DataError) as other:
        geometry_of(series)
    assert str(error.value) == str(other.value)
    assert error.value.exit_code == 3
    assert error.value.file == str(folder)
    assert error.value.hint
    return error.value


@pytest.mark.parametrize("name", AFFINES)
def test_voxels_lie_where_the_files_say(name, tmp_path):
    write_series(tmp_path, ARRAY, AFFINES[name], "t2")
    volume = RawVolume.read(only(tmp_path))
    # Slices are read along their normal, which may be the other way round.
    orientation = nib.orientations.ornt_transform(
        nib.io_orientation(volume.geometry.affine), nib.io_orientation(AFFINES[name]))
    turned = nib.orientations.apply_orientation(volume.array, orientation)
    np.testing.assert_array_equal(turned, ARRAY)
    affine = volume.geometry.affine @ nib.orientations.inv_ornt_aff(orientation, ARRAY.shape)
    np.testing.assert_allclose(affine, AFFINES[name], atol=1e-6)
    assert volume.geometry.is_placed
    assert not volume.geometry.spacing_doubt
    assert geometry_of(only(tmp_path)).difference(volume.geometry) is None


def test_each_slice_keeps_its_own_scale(files):
    for k, path in enumerate(files):
        change(path, RescaleSlope=f"{1 + k / 8}", RescaleIntercept="0.5", RescaleType="US")
    array = RawVolume.read(only(files[0].parent)).array
    np.testing.assert_allclose(array, ARRAY * (1 + np.arange(5) / 8) + 0.5, rtol=1e-6)


def test_contents_tell_a_series_apart_and_names_do_not(files):
    def made_from():
        return inputs_of([Case("c", {"flair": only(files[0].parent)})])["c"]["images"]["flair"]

    before = made_from()
    files[0].rename(files[0].with_name("zzz"))
    assert made_from() == before
    change(files[1], ImageComments="changed")
    assert made_from() != before


def test_a_missing_slice_is_named_by_its_position(files):
    place = [float(part) for part in pydicom.dcmread(files[2]).ImagePositionPatient]
    files[2].unlink()
    error = refused(files[0].parent)
    assert "1 slice is missing" in str(error)
    np.testing.assert_allclose(error.value, place, atol=2e-3)
    assert files[1].name in str(error)
    assert files[3].name in str(error)


def test_slices_of_unequal_distance_are_refused(files):
    for path in files[3:]:
        place = np.array(pydicom.dcmread(path).ImagePositionPatient, float)
        change(path, ImagePositionPatient=list(np.round(
            place + 0.4 * np.cross(*np.reshape(pydicom.dcmread(
                path).ImageOrientationPatient, (2, 3)).astype(float)), 4)))
    error = refused(files[0].parent)
    assert "unequal distance: 2.9 mm between" in str(error)
    assert "2.5 mm elsewhere" in str(error)
    assert error.value == 2.9


def _multi_frame(files):
    for path in files[1:]:
        path.unlink()
    data = pydicom.dcmread(files[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    data.NumberOfFrames, data.PixelData = 3, data.PixelData * 3
    data.save_as(files[0])


def _two_volumes(files):
    write_series(files[0].parent, ARRAY, AFFINES["oblique"], "AX FLAIR", number=4, prefix="b_")
    for path in files[0].parent.glob("b_*"):
        change(path, SeriesInstanceUID=pydicom.dcmread(files[0]).SeriesInstanceUID)


WRONG = {
    "multi-frame files": (_multi_frame, r"multi-frame files: .*\.dcm holds 3 slices", "dcm2niix"),
    "mixed orientations": (lambda files: change(files[1], ImageOrientationPatient=[
        1, 0, 0, 0, 0, -1]), r"mixed orientations: .*\(1, 0, 0, 0, 0, -1\) in", "localizer"),
    "several sizes": (lambda files: change(
        files[1], Rows=3, PixelData=pydicom.dcmread(files[1]).PixelData[:42]),
        "slices of several sizes", "export"),
    "several spacings": (lambda files: change(files[1], PixelSpacing=[1, 1]),
                         "slices of several pixel spacings", "export"),
    "several volumes": (_two_volumes, "several slices at one place", "b-values"),
    "a single slice": (lambda files: [path.unlink() for path in files[1:]],
                       "is a single slice", "export"),
    "a tilted gantry": (lambda files: [change(path, ImagePositionPatient=[0, k, 3 * k],
                                              ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
                                       for k, path in enumerate(files)],
                        "do not lie above one another: the last one is shifted by 4 mm",
                        "dcm2niix"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_one_place_is_refused(name, files):
    spoil, words, step = WRONG[name]
    spoil(files)
    error = refused(files[0].parent)
    assert error.args[0].startswith("series")
    assert step in error.hint
    assert re.search(words, str(error))


def test_a_series_without_positions_is_refused(files):
    for path in files:
        data = pydicom.dcmread(path)
        del data.ImagePositionPatient
        data.save_as(path)
    with pytest.raises(DataError, match="does not tell where its slices lie"):
        RawVolume.read(only(files[0].parent))


def test_a_file_that_was_cut_short_is_named(files):
    files[2].write_bytes(files[2].read_bytes()[:-40])
    _, (fault,) = series_in(files[0].parent)
    assert "cannot be read" in str(fault)
    assert fault.file == str(files[2])


def test_what_is_no_image_is_passed_over(files):
    folder = files[0].parent
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.dcm").write_bytes(files[0].read_bytes())
    (folder / "short").write_bytes(b"D")
    report = pydicom.dcmread(files[0])
    del report.PixelData
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SeriesInstanceUID = "1.2.3"
    report.save_as(folder / "report.dcm")
    assert len(only(folder).slices) == 5


def test_an_image_that_cannot_be_read_is_a_fault(files):
    files[1].write_bytes(files[1].read_bytes()[:400])
    _, (fault,) = series_in(files[0].parent)
    assert fault.file == str(files[1])
    assert fault.hint
    assert fault.exit_code == 3
