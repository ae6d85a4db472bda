"""DICOM and BIDS by the verbs: series in, segmentations out, exit codes and what is said."""

import os
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest

from pixelnet_tf.cases.predictions import PredictionRecord
from tests.dicom_study import write_series
from tests.main_job import run_main

SERIES = ("--series", "flair=*FLAIR*", "--series", "t1ce=*+C*")


@pytest.fixture(scope="module")
def clinic(main_job, tmp_path_factory):
    """A case of the main job's study as DICOM."""
    folder = tmp_path_factory.mktemp("clinic")
    for number, (modality, description) in enumerate((
            ("flair", "Ax T2 FLAIR fs"), ("t1ce", "Ax T1 SE +C"), ("t2", "Ax T2w")), start=1):
        image = nib.load(main_job / "study" / "phantom_001" / f"phantom_001_{modality}.nii.gz")
        write_series(folder / "patient_7" / f"s{number}", np.round(image.get_fdata()).astype(
            np.int16), image.affine, description, number=number, patient="patient_7")
    return folder


def predict(main_job, clinic, out, *more):
    return run_main("predict", "--model", main_job / "run", "--data", clinic, "--out", out, *more)


def test_dicom_in_and_out_by_the_verbs(main_job, clinic, tmp_path, capsys):
    asked = (*SERIES, "--series", "t2=*t2w*", "--output", "dicom-seg")
    assert predict(main_job, clinic, tmp_path / "p", *asked) == 0, capsys.readouterr().err
    made = pydicom.dcmread(tmp_path / "p" / "patient_7.dcm")
    assert (made.Modality, made.PatientID, len(made.SegmentSequence)) == ("SEG", "patient_7", 3)
    capsys.readouterr()
    assert run_main("check", tmp_path / "p") == 0
    assert run_main("evaluate", "--config", "phantom", "--predictions", tmp_path / "p",
                    "--references", main_job / "study", "--out", tmp_path / "s") == 3
    assert "holds DICOM segmentations" in capsys.readouterr().err
    assert run_main("prepare", "--config", main_job / "run" / "config.yaml", *asked[:-2], "--data",
                    clinic, "--out", tmp_path / "prepared", "--no-segmentation", "--workers", 1,
                    "--set", "split.test=0", "--set", "split.validation=0", "--dry-run"
                    ) == 0, capsys.readouterr().err


def test_bids_out_is_checked_and_scored_by_the_verbs(main_job, tmp_path, capsys):
    assert predict(main_job, main_job / "prepared", tmp_path / "p", "--output", "bids", "--case",
                   "phantom_001") == 0
    said = capsys.readouterr().err
    assert "phantom_001 as sub-phantom001" in " ".join(said.split())
    place = "sub-phantom001/anat/sub-phantom001_dseg.nii.gz"
    assert PredictionRecord.read(tmp_path / "p").files == {"phantom_001": place}
    assert run_main("check", tmp_path / "p") == 0
    assert run_main("evaluate", "--config", "phantom", "--predictions", tmp_path / "p",
                    "--references", main_job / "study", "--out", tmp_path / "scores") == 0
    # What was damaged is set aside, to be made anew.
    (tmp_path / "p" / place).write_bytes(b"damaged")
    assert run_main("check", tmp_path / "p", "--repair") == 3
    assert not (tmp_path / "p" / place).exists()


def _missing(case):
    files = sorted((case / "s1").iterdir(), key=lambda path: pydicom.dcmread(path).InstanceNumber)
    files[5].unlink()
    return ("series 'Ax T2 FLAIR fs'", "1 slice is missing, at position", "fetch the missing files")


def _twice(case):
    shutil.copytree(case / "s1", case / "s9")
    for path in (case / "s9").iterdir():
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID, data.SeriesDescription = "1.2.3.9", "Ax FLAIR repeat"
        data.save_as(path)
    return "2 series fit '*FLAIR*'", "'Ax FLAIR repeat'", "give a pattern that fits one"


def _none(case):
    shutil.rmtree(case / "s2")
    return "no series fits '*+C*'", "['Ax T2 FLAIR fs', 'Ax T2w']", "--series t1ce="


@pytest.mark.parametrize("spoil", [_missing, _twice, _none])
def test_series_that_cannot_be_used_end_with_code_3(main_job, clinic, tmp_path, capsys, spoil):
    shutil.copytree(clinic, tmp_path / "clinic")
    words = spoil(tmp_path / "clinic" / "patient_7")
    asked = (*SERIES, "--series", "t2=*t2w*")
    assert predict(main_job, tmp_path / "clinic", tmp_path / "p", *asked) == 3
    said = capsys.readouterr().err
    for word in ("patient_7", os.fspath(tmp_path / "clinic"), *words):
        assert word in said
    assert "Traceback" not in said
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("given", "words"), [
    ("flair", "takes MODALITY=PATTERN"), ("flair=", "takes MODALITY=PATTERN"),
    ("flare=*", "did you mean 'flair'?")])
def test_patterns_that_fit_no_modality_are_refused(main_job, clinic, tmp_path, capsys, given,
                                                   words):
    assert predict(main_job, clinic, tmp_path / "p", "--series", given) == 2
    assert words in capsys.readouterr().err
