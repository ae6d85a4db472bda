"""Files to scores: exact values, strict reading, and errors that come out with their case."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.label_files import read_labels
from pixelnet_tf.evaluation.matching import Matching, match_cases
from pixelnet_tf.evaluation.protocols import BratsProtocol
from pixelnet_tf.evaluation.score_cases import check_pairs, score_cases
from pixelnet_tf.evaluation.summary import Evaluation, check_scored_files, record
from pixelnet_tf.reporting import LogReporter
from tests.study_forms import write_image

from .conftest import write_nifti

STUDY = StudyConfig()


def _score(predictions_dir, study_dir, **options):
    matching = match_cases(predictions_dir, study_dir, STUDY)
    return score_cases(matching, STUDY, BratsProtocol(), **options)


def test_scores_each_case_against_its_own_reference(predictions_dir, study_dir):
    scores = _score(predictions_dir, study_dir)
    assert list(scores) == ["case_a", "case_b", "case_c"]
    exact, one_off, two_off = (scores[c]["WT"].values for c in scores)
    assert exact["Dice"] == 1.0
    assert exact["Hausdorff95"] == 0.0
    assert 1.0 > one_off["Dice"] > two_off["Dice"] > 0.5
    assert 0 < one_off["Hausdorff95"] <= 1.0 < two_off["Hausdorff95"] <= 2.0


def test_worker_processes_give_the_same_scores(predictions_dir, study_dir):
    seen = []

    class Seen(LogReporter):
        def progress(self, task, done, total, detail=""):
            seen.append((task, done, total, detail))

    scores = _score(predictions_dir, study_dir, workers=2, reporter=Seen())
    assert scores == _score(predictions_dir, study_dir)
    assert sorted(case for *_, case in seen) == ["case_a", "case_b", "case_c"]
    assert [entry[:3] for entry in seen] == [("scoring", done, 3) for done in (1, 2, 3)]


def test_pairs_are_read_before_any_is_scored(predictions_dir, study_dir, labels):
    matching = match_cases(predictions_dir, study_dir, STUDY)
    contents = check_pairs(matching, STUDY)
    assert list(contents) == ["case_a", "case_b", "case_c"]
    assert contents["case_b"].values == {0, 1, 2, 4}
    assert contents["case_b"].prediction == hashlib.sha256(
        (predictions_dir / "case_b.nii.gz").read_bytes()).hexdigest()
    write_nifti(predictions_dir / "case_a.nii.gz", labels.astype(np.float64))
    (predictions_dir / "case_c.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"case case_a: .*float64(.|\n)*case_c\.nii\.gz"):
        check_pairs(matching, STUDY)


@pytest.mark.parametrize(("ending", "voxels"), [
    (".mhd", ".raw"), (".hdr", ".img"), (".img", ".img")])
def test_changed_voxels_beside_their_header_are_other_contents(tmp_path, labels, ending, voxels):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    paths = [write_image(tmp_path / side / f"x{ending}", labels, affine, packed=False)
             for side in ("r", "p")]
    matching = Matching({"x": tuple(paths)}, (), ())
    before = check_pairs(matching, STUDY)
    rules = BratsProtocol()
    evaluation = Evaluation.of(rules, STUDY.regions, score_cases(matching, STUDY, rules),
                               **record(matching, tmp_path / "p", before))
    check_scored_files(evaluation, matching)
    changed = paths[1].with_suffix(voxels)
    changed.write_bytes(changed.read_bytes().replace(b"\4", b"\2"))
    after = check_pairs(matching, STUDY)
    assert after["x"].reference == before["x"].reference
    assert after["x"].prediction != before["x"].prediction
    with pytest.raises(DataError, match="is not the prediction that was scored"):
        check_scored_files(evaluation, matching)


def test_volumes_in_a_sheared_grid_are_those_of_its_voxels(tmp_path, labels):
    # As a gantry tilted by 30 degrees gives it: slices of 4 mm lie 3.46 mm apart.
    affine = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 12 ** 0.5, 0], [0, 0, 0, 1]])
    for side in ("r", "p"):
        write_nifti(tmp_path / side / "x.nii.gz", labels, affine)
    matching = match_cases(tmp_path / "p", tmp_path / "r", STUDY)
    score = score_cases(matching, STUDY, BratsProtocol())["x"]["WT"]
    volume_ml = np.count_nonzero(labels) * 12 ** 0.5 / 1000
    assert score.agreement.reference_ml == pytest.approx(volume_ml, rel=1e-6)
    assert score.agreement.prediction_ml == pytest.approx(volume_ml, rel=1e-6)
    small = np.zeros_like(labels)
    small[2:9, 2:6, 3] = 4                                     # 28 voxels: 0.097 ml, not 0.112
    for side in ("r", "p"):
        write_nifti(tmp_path / side / "x.nii.gz", small, affine)
    assert score_cases(matching, STUDY, BratsProtocol())["x"]["WT"].lesions.detected == (1, 0, 0, 0)


def test_spacing_of_the_file_is_used(tmp_path, labels):
    affine = np.diag([2.0, 2, 5, 1])
    write_nifti(tmp_path / "r" / "x.nii.gz", labels, affine)
    write_nifti(tmp_path / "p" / "x.nii.gz", np.roll(labels, 1, axis=2), affine)
    assert _score(tmp_path / "p", tmp_path / "r")["x"]["WT"].values["Hausdorff95"] > 3.9


@pytest.mark.parametrize(("change", "words"), [
    (lambda v: np.where(v == 4, 3, v).astype(np.uint8), r"unknown label 3.*\[0, 1, 2, 4\]"),
    (lambda v: v.astype(np.float32), "labels as float32"),
    (lambda v: v[:, :, 1:], r"another grid.*\(16, 16, 12\) against \(16, 16, 11\)"),
    (lambda v: np.where(v == 4, np.int16(260), v), "value 260"),
    (lambda v: np.where(v == 4, np.int16(-1), v), "value -1"),
])
def test_refuses_bad_predictions_by_name(predictions_dir, study_dir, labels, change, words):
    write_nifti(predictions_dir / "case_b.nii.gz", change(labels))
    with pytest.raises(DataError, match=words) as raised:
        _score(predictions_dir, study_dir)
    assert "case case_b: " in str(raised.value)
    assert "case_b.nii.gz" in str(raised.value)


@pytest.mark.parametrize("affine", [
    np.diag([-1.0, -1, 2, 1]), np.diag([1.0, -1, 1, 1]),
    np.array([[-1.0, 0, 0, 5], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
], ids=["spacing", "mirrored", "moved"])
def test_refuses_another_affine(predictions_dir, study_dir, labels, affine):
    write_nifti(predictions_dir / "case_b.nii.gz", labels, affine)
    with pytest.raises(DataError, match=r"case case_b: .*another grid.*affine"):
        _score(predictions_dir, study_dir)


def test_takes_an_affine_that_differs_by_rounding(predictions_dir, study_dir, labels):
    write_nifti(predictions_dir / "case_b.nii.gz", np.roll(labels, 1, axis=0),
                np.diag([-1.00001, -1, 1, 1]))
    assert _score(predictions_dir, study_dir)["case_b"]["WT"].values["Dice"] == 1.0


def test_names_every_bad_case_and_not_only_the_first(predictions_dir, study_dir, labels):
    write_nifti(predictions_dir / "case_a.nii.gz", labels.astype(np.float64))
    (predictions_dir / "case_c.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError) as raised:
        _score(predictions_dir, study_dir, workers=2)
    assert "case case_a: " in str(raised.value)
    assert "case_c.nii.gz" in str(raised.value)


def test_whole_numbers_stored_as_floats_pass_in_a_reference_only(tmp_path, labels):
    path = write_nifti(tmp_path / "x.nii.gz", labels.astype(np.float32))
    array, _ = read_labels(path, STUDY, "x", reference=True)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, labels)
    half = write_nifti(tmp_path / "y.nii.gz", labels.astype(np.float32) / 2)
    with pytest.raises(DataError, match=r"value 0\.5"):
        read_labels(half, STUDY, "y", reference=True)


def test_a_prediction_that_lost_its_place_is_not_to_be_resampled(tmp_path, labels):
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    affine[:3, 3] = 30, 40, -20
    write_nifti(tmp_path / "r" / "x.nii.gz", labels, affine)
    write_nifti(tmp_path / "p" / "x.nii.gz", labels, np.eye(4))
    with pytest.raises(DataError, match=r"lost its place in space.*resampling would ruin it"):
        _score(tmp_path / "p", tmp_path / "r")
    flipped = affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] = (affine @ [labels.shape[0] - 1, 0, 0, 1])[:3]
    write_nifti(tmp_path / "p" / "x.nii.gz", labels[::-1], flipped)
    with pytest.raises(DataError, match="the same voxels in another order"):
        _score(tmp_path / "p", tmp_path / "r")


def test_distances_come_from_the_affine_and_doubts_are_said(tmp_path, labels, caplog):
    """Files whose pixdim was never written: 5 mm slices are 5 mm."""
    affine = np.diag([2.0, 2, 5, 1])
    for name, array in (("r", labels), ("p", np.roll(labels, 1, axis=2))):
        path = tmp_path / name / "x.nii"
        write_nifti(path, array, affine)
        image = nib.load(path)
        image.header["pixdim"][1:4] = 1
        path.write_bytes(image.to_bytes())
    assert _score(tmp_path / "p", tmp_path / "r")["x"]["WT"].values["Hausdorff95"] > 3.9
    assert "pixdim states voxels of 1 x 1 x 1 mm, the affine has 2 x 2 x 5 mm" in caplog.text
