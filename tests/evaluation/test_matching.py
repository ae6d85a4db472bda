"""Names on either side, and folders that cannot be matched."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.matching import match_cases, volumes_by_case

from .conftest import write_nifti

STUDY = StudyConfig()
NAMES = ["case_a", "case_b", "case_c"]


def test_matches_a_study_by_name(predictions_dir, study_dir):
    matching = match_cases(predictions_dir, study_dir, STUDY)
    assert list(matching.pairs) == NAMES
    reference, prediction = matching.pairs["case_b"]
    assert reference == study_dir / "case_b" / "case_b_seg.nii.gz"
    assert prediction == predictions_dir / "case_b.nii.gz"
    assert matching.missing == ""


def test_matches_a_flat_folder_and_both_suffixes(predictions_dir, tmp_path, labels):
    for name in NAMES:
        write_nifti(tmp_path / "flat" / f"{name}.nii", labels)
    matching = match_cases(predictions_dir, tmp_path / "flat", STUDY)
    assert [pair[0].name for pair in matching.pairs.values()] == [f"{n}.nii" for n in NAMES]


def test_a_reference_needs_no_modality(predictions_dir, study_dir):
    (study_dir / "case_a" / "case_a_t2.nii.gz").unlink()
    assert list(match_cases(predictions_dir, study_dir, STUDY).pairs) == NAMES


def test_says_what_is_missing_on_either_side(predictions_dir, study_dir, labels):
    (predictions_dir / "case_a.nii.gz").rename(predictions_dir / "case_z.nii.gz")
    with pytest.raises(DataError) as raised:
        match_cases(predictions_dir, study_dir, STUDY)
    text = str(raised.value)
    assert "1 without a prediction:\n  case_a" in text
    assert "1 without a reference:\n  case_z" in text
    assert "--allow-missing" in text
    matching = match_cases(predictions_dir, study_dir, STUDY, allow_missing=True)
    assert list(matching.pairs) == ["case_b", "case_c"]
    assert matching.without_prediction == ("case_a",)
    assert matching.without_reference == ("case_z",)


def test_only_the_cases_that_were_asked_for_are_expected(predictions_dir, study_dir):
    (predictions_dir / "case_a.nii.gz").unlink()
    (predictions_dir / "prediction.json").write_text(json.dumps({"cases": ["case_b", "case_c"]}))
    assert list(match_cases(predictions_dir, study_dir, STUDY).pairs) == ["case_b", "case_c"]
    (predictions_dir / "case_b.nii.gz").unlink()
    with pytest.raises(DataError, match="1 without a prediction:\n  case_b"):
        match_cases(predictions_dir, study_dir, STUDY)


def test_refuses_a_case_that_is_there_twice(predictions_dir, study_dir, labels):
    write_nifti(predictions_dir / "case_b.nii", labels)
    with pytest.raises(DataError, match=r"case case_b: .*is there twice.*case_b\.nii'"):
        match_cases(predictions_dir, study_dir, STUDY)


def test_refuses_folders_that_are_empty_or_absent(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no predictions"):
        volumes_by_case(tmp_path / "empty", "predictions")
    with pytest.raises(DataError, match="no such folder"):
        volumes_by_case(tmp_path / "absent", "predictions")


def test_refuses_nothing_in_common(tmp_path, study_dir):
    write_nifti(tmp_path / "other" / "x.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"no case in common.*'x'.*case_a"):
        match_cases(tmp_path / "other", study_dir, STUDY, allow_missing=True)


def test_refuses_a_study_without_segmentations(predictions_dir, study_dir):
    for name in NAMES:
        (study_dir / name / f"{name}_seg.nii.gz").unlink()
    with pytest.raises(DataError, match="none of its 3 cases has a segmentation"):
        match_cases(predictions_dir, study_dir, STUDY)


def test_refuses_a_broken_prediction_file(predictions_dir, study_dir):
    (predictions_dir / "prediction.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        match_cases(predictions_dir, study_dir, STUDY)


def test_volumes_beside_the_cases_of_a_study_are_no_references(study_dir, predictions_dir):
    """A prediction that was written into the study is scored against the truth, not itself."""
    for name in NAMES:
        (predictions_dir / f"{name}.nii.gz").rename(study_dir / f"{name}.nii.gz")
    matching = match_cases(study_dir, study_dir, STUDY)
    assert list(matching.pairs) == NAMES
    assert matching.pairs["case_a"] == (study_dir / "case_a" / "case_a_seg.nii.gz",
                                        study_dir / "case_a.nii.gz")


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_a_prediction_is_not_its_own_reference(predictions_dir, tmp_path, link):
    references = predictions_dir
    if link:
        references = tmp_path / "references"
        references.mkdir()
        for name in NAMES:
            getattr(references / f"{name}.nii.gz", link)(predictions_dir / f"{name}.nii.gz")
    with pytest.raises(DataError, match=r"case case_a: .*both .* and the reference \(3 "):
        match_cases(predictions_dir, references, STUDY)


def test_says_why_a_case_is_missing(predictions_dir, study_dir, labels):
    study = StudyConfig(layout="pattern", files={"seg": "*seg*.nii.gz", "flair": "*_flair.nii.gz",
                                                 "t1ce": "*_t1ce.nii.gz", "t2": "*_t2.nii.gz"})
    write_nifti(study_dir / "case_a" / "case_a_seg_2.nii.gz", labels)
    (predictions_dir / "case_b.nii.gz").unlink()
    (predictions_dir / "prediction.json").write_text(json.dumps(
        {"cases": NAMES, "left_out": [{"case": "case_b", "reason": "every voxel is 0"}]}))
    with pytest.raises(DataError) as raised:
        match_cases(predictions_dir, study_dir, study)
    assert "  case_b (left out: every voxel is 0)" in str(raised.value)
    assert "study/case_a: seg: 2 files fit" in str(raised.value)


def test_capitals_and_links_to_nowhere_are_met(tmp_path, labels):
    write_nifti(tmp_path / "r" / "a.nii.gz", labels).rename(tmp_path / "r" / "a.NII.GZ")
    write_nifti(tmp_path / "p" / "a.nii.gz", labels)
    pairs = match_cases(tmp_path / "p", tmp_path / "r", STUDY).pairs
    assert [path.name for path in pairs["a"]] == ["a.NII.GZ", "a.nii.gz"]
    # Reading says what to do about it.
    (tmp_path / "p" / "a.nii.gz").unlink()
    (tmp_path / "p" / "a.nii.gz").symlink_to(tmp_path / "nowhere")
    assert list(match_cases(tmp_path / "p", tmp_path / "r", STUDY).pairs) == ["a"]
