"""What a challenge's archive holds, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import StudyConfig, load_config
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.evaluation.submission import write_submission

from .conftest import write_nifti

BRATS = StudyConfig()
ISLES = load_config("isles2017").study


@pytest.fixture
def isles(tmp_path):
    """Two SMIR cases without truth, and their predictions."""
    affine = np.diag([-1.5, -1.5, 6, 1])
    for number in (1, 2):
        case = f"training_{number}"
        for i, modality in enumerate(("DWI", "ADC", "rCBF", "4DPWI")):
            name = f"VSD.Brain.XX.O.MR_{modality}.{100 * number + i}"
            write_nifti(tmp_path / "isles" / case / name / f"{name}.nii",
                        np.full((8, 8, 4), 5, np.int16), affine)
        lesion = np.zeros((8, 8, 4), np.uint8)
        lesion[2:4, 2:4, number] = 1
        write_nifti(tmp_path / "lesions" / f"{case}.nii.gz", lesion, affine)
    return tmp_path / "lesions", tmp_path / "isles"


def _brats(predictions_dir, study_dir, out, **options):
    return write_submission("brats2017", predictions_dir, study_dir, BRATS, out, **options)


def test_brats_archive(predictions_dir, study_dir, tmp_path, labels):
    out = tmp_path / "sent" / "brats.zip"
    names = _brats(predictions_dir, study_dir, out)
    assert names == ["case_a.nii.gz", "case_b.nii.gz", "case_c.nii.gz"]
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == names
        archive.extractall(tmp_path / "unpacked")
    volume = nib.load(tmp_path / "unpacked" / "case_a.nii.gz")
    assert volume.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(volume.dataobj), labels)
    image = nib.load(study_dir / "case_a" / "case_a_flair.nii.gz")
    np.testing.assert_array_equal(volume.affine, image.affine)
    assert [p.name for p in out.parent.iterdir()] == ["brats.zip"]


KILLED = """
import os, sys
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.evaluation import submission

written = []

def stop(*arguments):
    written.append(arguments)
    return b"x" * 1000 if len(written) == 1 else os._exit(9)

submission.nifti_bytes = stop
submission.write_submission("brats2017", *sys.argv[1:3], StudyConfig(), sys.argv[3])
"""


def test_what_a_killed_one_left_is_gone_after_the_next(predictions_dir, study_dir, tmp_path):
    out = tmp_path / "sent" / "brats.zip"
    arguments = [str(path) for path in (predictions_dir, study_dir, out)]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments]).returncode == 9
    left = [path.name for path in out.parent.iterdir()]
    assert left
    assert out.name not in left
    _brats(predictions_dir, study_dir, out)
    assert [path.name for path in out.parent.iterdir()] == ["brats.zip"]


def test_the_same_predictions_give_the_same_bytes(predictions_dir, study_dir, tmp_path):
    for name in ("one.zip", "two.zip"):
        _brats(predictions_dir, study_dir, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_isles_archive_is_named_after_the_perfusion_series(isles, tmp_path):
    names = write_submission("isles2017", *isles, ISLES, tmp_path / "isles.zip", "mymethod")
    assert names == ["SMIR.mymethod.103.nii", "SMIR.mymethod.203.nii"]
    with zipfile.ZipFile(tmp_path / "isles.zip") as archive:
        assert archive.namelist() == names
        archive.extractall(tmp_path)
    lesion = np.asarray(nib.load(tmp_path / names[1]).dataobj)
    assert np.argwhere(lesion).tolist() == [[x, y, 2] for x in (2, 3) for y in (2, 3)]


def test_isles_needs_a_smir_number(isles, tmp_path):
    for folder in sorted((isles[1] / "training_2").iterdir()):
        modality = folder.name.split("MR_")[1].split(".")[0]
        (folder / f"{folder.name}.nii").rename(folder / f"x_{modality.lower()}.nii")
        folder.rename(folder.parent / modality)
    with pytest.raises(DataError, match="case training_2: no SMIR number"):
        write_submission("isles2017", *isles, ISLES, tmp_path / "isles.zip")


def test_dry_run_writes_nothing(predictions_dir, study_dir, tmp_path):
    assert len(_brats(predictions_dir, study_dir, tmp_path / "x.zip", dry_run=True)) == 3
    assert not (tmp_path / "x.zip").exists()


def _unknown_label(folder: Path, labels):
    write_nifti(folder / "case_b.nii.gz", np.where(labels == 4, 3, labels).astype(np.uint8))


def _another_grid(folder: Path, labels):
    write_nifti(folder / "case_b.nii.gz", labels, np.diag([1.0, 1, 1, 1]))


def _missing(folder: Path, labels):
    (folder / "case_b.nii.gz").unlink()


def _twice(folder: Path, labels):
    write_nifti(folder / "case_b.nii", labels)


def _float(folder: Path, labels):
    write_nifti(folder / "case_b.nii.gz", labels.astype(np.float32))


def _not_asked_for(folder: Path, labels):
    write_nifti(folder / "case_q.nii.gz", labels)


@pytest.mark.parametrize(("spoil", "words"), [
    (_unknown_label, r"case case_b: .*unknown label 3"),
    (_another_grid, r"case case_b: .*another grid"),
    (_missing, r"case case_b: there is no prediction"), (_twice, r"case case_b: .*is there twice"),
    (_float, r"case case_b: .*labels as float32"), (_not_asked_for, r"case case_q: .*is no case"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_refuses(predictions_dir, study_dir, tmp_path, labels, spoil, words):
    spoil(predictions_dir, labels)
    with pytest.raises(DataError, match=words) as raised:
        _brats(predictions_dir, study_dir, tmp_path / "x.zip")
    assert raised.value.exit_code == 3
    assert not (tmp_path / "x.zip").exists()


def test_refuses_an_empty_folder(study_dir, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds no predictions"):
        _brats(tmp_path / "nothing", study_dir, tmp_path / "x.zip")


def test_lists_every_fault_at_once(predictions_dir, study_dir, tmp_path, labels):
    _float(predictions_dir, labels)
    (predictions_dir / "case_a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"(?s)case case_a: .*case case_b: "):
        _brats(predictions_dir, study_dir, tmp_path / "x.zip")


def test_labels_that_the_challenge_does_not_take(isles, tmp_path):
    lesion = np.full((8, 8, 4), 2, np.uint8)
    write_nifti(isles[0] / "training_2.nii.gz", lesion, np.diag([-1.5, -1.5, 6, 1]))
    study = dataclasses.replace(ISLES, labels={0: "background", 1: "core", 2: "penumbra"})
    with pytest.raises(DataError, match=r"case training_2: .*label 2; isles2017 takes \[0, 1\]"):
        write_submission("isles2017", *isles, study, tmp_path / "x.zip")


@pytest.mark.parametrize("options", [{"challenge": "brats"}, {"description": "a.b/c"}])
def test_refuses_unknown_options(predictions_dir, study_dir, tmp_path, options):
    arguments = {"challenge": "brats2017", "description": "x"} | options
    with pytest.raises(ConfigError, match=next(iter(options))):
        write_submission(arguments["challenge"], predictions_dir, study_dir, BRATS,
                         tmp_path / "x.zip", arguments["description"])
