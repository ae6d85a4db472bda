"""Cases as folders of DICOM series: which series is which modality."""

import os

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases import dicom_series
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import ConfigError
from tests.dicom_study import change, write_series
from tests.listening import Listening

ARRAY = np.random.default_rng(0).integers(0, 2000, (4, 4, 3)).astype(np.int16)


def study(**settings):
    """The configuration of a study of two modalities, `series` as given."""
    return load_config("phantom", ["study.layout=dicom", "study.modalities=[flair, t1ce]", *(
        f"study.{key}={value}" for key, value in settings.items())]).study


@pytest.fixture
def case(tmp_path):
    """A case with series in folders and beside one another, and a segmentation."""
    folder = tmp_path / "Ärzte_01"
    for number, description in enumerate(("Ax FLAIR fs", "Ax T1 +C", "localizer"), start=1):
        write_series(folder / ("" if number > 1 else "deep/below"), ARRAY, np.diag([-1, -1, 3, 1]),
                     description, number=number, prefix=f"{number}_")
    nib.save(nib.Nifti1Image(ARRAY.astype(np.uint8), np.eye(4)), folder / "lesion_SEG.nii.gz")
    return folder


def test_series_are_chosen_by_description(case):
    found, = find_cases(case.parent, study(series={"t1ce": "*t1*+c*"}))
    assert not found.faults
    assert not found.segmentation_faults
    assert {name: (series.description, series.number, len(series.files))
            for name, series in found.volumes.items()} == {
        "flair": ("Ax FLAIR fs", "1", 3), "t1ce": ("Ax T1 +C", "2", 3)}
    assert os.fspath(found.volumes["flair"]) == str(case / "deep" / "below")
    assert found.segmentation == case / "lesion_SEG.nii.gz"
    found, = find_cases(case.parent, study(series={"t1ce": "*t1*"}, files={"seg": "{case}.nii"}))
    assert "looked for Ärzte_01.nii" in str(found.segmentation_faults[0])
    assert not find_cases(case.parent, study(series={"t1ce": "*t1*"}), require_segmentation=False
                          )[0].segmentation_faults


def test_headers_are_read_once_with_progress(case):
    """A verb lists the cases several times; a file that was changed is read anew."""
    ears, wanted = Listening(), study(series={"t1ce": "*t1*+c*"})
    find_cases(case.parent, wanted, reporter=ears)
    assert ears.tasks == {"reading series": (1, 1)}
    read = dicom_series._header.cache_info().misses
    find_cases(case.parent, wanted)
    assert dicom_series._header.cache_info().misses == read
    for path in (case / "deep" / "below").iterdir():
        change(path, SeriesDescription="Ax other FLAIR")
    found, = find_cases(case.parent, wanted)
    assert found.volumes["flair"].description == "Ax other FLAIR"


def test_a_modality_without_a_series_is_told_with_those_that_are_there(case):
    found, = find_cases(case.parent, study())
    fault, = found.faults
    assert fault.exit_code == 3
    assert "t1ce: no series fits '*t1ce*'" in str(fault)
    assert "['Ax FLAIR fs', 'Ax T1 +C', 'localizer']" in str(fault)
    assert fault.value == "t1ce"
    assert "--series t1ce=" in fault.hint


def test_two_series_that_fit_one_pattern_are_told(case):
    found, = find_cases(case.parent, study(series={"t1ce": "ax*"}))
    fault, = found.faults
    assert ("t1ce: 2 series fit 'ax*': series 'Ax FLAIR fs' (number 1, 3 files), series "
            "'Ax T1 +C' (number 2, 3 files)") in str(fault)
    assert (fault.file, fault.value) == (str(case), "t1ce")
    assert "--series t1ce='Ax FLAIR fs'" in fault.hint
    # A repeated scan has the same description: no pattern tells it apart.
    write_series(case, ARRAY, np.eye(4), "Ax T1 +C", number=9, prefix="9_")
    found, = find_cases(case.parent, study(series={"t1ce": "*t1*"}))
    assert "take all but one" in found.faults[0].hint


def test_a_case_without_dicom_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    found, = find_cases(tmp_path, study())
    assert [fault.args[0].rpartition("; ")[2] for fault in found.faults] == [
        "the case has no DICOM image"] * 2


@pytest.mark.parametrize(("settings", "words"), [
    ({"series": {"flare": "*"}}, r"study.series names 'flare'.*did you mean 'flair'"),
    ({"codes": {3: ["1", "SCT", "x"]}}, r"study.codes names label 3"),
    ({"codes": {0: ["1", "SCT", "x"]}}, r"study.codes names label 0"),
    ({"codes": {1: ["1", "SCT", " "]}}, r"study.codes.1 needs a value"),
    ({"codes": {1: ["1", "SCT"]}}, r"must be a list of 3"),
])
def test_settings_that_fit_nothing_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        study(**settings)
