"""Calibration: bins and errors by hand, from files to the summary, the table and the figure."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.calibration import (
    Reliability,
    find_probabilities,
    reliability_sums,
)
from pixelnet_tf.evaluation.matching import Matching, match_cases
from pixelnet_tf.evaluation.plots import reliability
from pixelnet_tf.evaluation.protocols import BratsProtocol
from pixelnet_tf.evaluation.score_cases import check_pairs
from pixelnet_tf.evaluation.summary import evaluate, read_evaluation, write_evaluation
from pixelnet_tf.evaluation.tables import calibration_table
from tests.evaluation.conftest import write_nifti

STUDY = Config().study


class Said:
    def __init__(self):
        self.warnings = []

    def message(self, text):
        pass

    def warning(self, text):
        self.warnings.append(text)

    def progress(self, *_):
        pass


def test_bins_and_errors_by_hand():
    truth = np.array([0, 0, 5, 5, 5, 0, 7, 0], np.uint8).reshape(8, 1, 1)
    shares = np.float32([
        [0.95, 0.03, 0.02],        # background, sure and right
        [0.35, 0.60, 0.05],        # background, taken for 5
        [0.35, 0.60, 0.05],        # 5, right
        [0.05, 0.92, 0.03],        # 5, right
        [0.55, 0.40, 0.05],        # 5, missed
        [1.00, 0.00, 0.00],        # background beyond doubt: left out
        [1.00, 0.00, 0.00],        # a lesion where it was ruled out: counted
        [0.40, 0.30, 0.30],        # nobody has judged it, see below
    ]).reshape(8, 1, 1, 3)
    truth[7] = 9
    predicted, five, seven = (Reliability.of(one) for one in reliability_sums(
        truth, shares, (0, 5, 7), ignore_label=9))
    assert predicted.voxels == (0, 0, 0, 0, 0, 1, 2, 0, 0, 3)
    assert predicted.confidence[5:] == pytest.approx(
        (0.55, 0.6, None, None, (0.95 + 0.92 + 1) / 3), nan_ok=True)
    assert predicted.accuracy[5:] == pytest.approx((0, 0.5, None, None, 2 / 3))
    assert predicted.expected_calibration_error == pytest.approx(
        (0.55 + 2 * 0.1 + 3 * (2.87 - 2) / 3) / 6)
    assert five.voxels == (2, 0, 0, 0, 1, 0, 2, 0, 0, 1)
    assert five.accuracy == (0, *[None] * 3, 1, None, 0.5, None, None, 1)
    assert five.expected_calibration_error == pytest.approx((0.03 + 0.6 + 0.2 + 0.08) / 6)
    assert seven.voxels == (6, *[0] * 9)
    assert seven.expected_calibration_error == pytest.approx((1 - 0.2) / 6)
    assert all(one.fault is None for one in (predicted, five, seven))


def test_scikit_learn_gives_the_same():
    """tests/make_golden_calibration.py made the file."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "calibration.json").read_text())
    shares = np.float32(golden["probabilities"])
    truth = np.uint8(golden["truth"]).reshape(-1, 1, 1)
    found = [Reliability.of(one) for one in reliability_sums(
        truth, shares.reshape(*truth.shape, -1), (0, 1, 2))]
    assert len(found) == len(golden["curves"]) == 3
    for mine, theirs in zip(found, golden["curves"], strict=True):
        full = [number for number, voxels in enumerate(mine.voxels) if voxels]
        assert [mine.voxels[number] for number in full] == theirs["voxels"]
        for own, others in ((mine.accuracy, "accuracy"), (mine.confidence, "confidence")):
            np.testing.assert_allclose([own[number] for number in full], theirs[others], rtol=1e-6)
        assert mine.expected_calibration_error == pytest.approx(
            theirs["expected_calibration_error"], rel=1e-5)
        assert mine.expected_calibration_error > 0.01


def test_what_is_as_probable_as_frequent_has_no_error():
    rng = np.random.default_rng(0)
    probable = rng.uniform(0, 1, 200_000).astype(np.float32)
    truth = (rng.random(probable.size) < probable).astype(np.uint8)
    shares = np.stack([1 - probable, probable], axis=-1)[None, None]
    _, lesion = (Reliability.of(one) for one in reliability_sums(
        truth[None, None], shares, (0, 1)))
    assert lesion.expected_calibration_error < 0.01
    _, sure = (Reliability.of(one) for one in reliability_sums(
        truth[None, None], np.clip(2 * shares - 0.5, 0.001, 0.999), (0, 1)))
    assert sure.expected_calibration_error == pytest.approx(0.125, abs=0.01)


def test_no_voxel_at_all():
    nothing = Reliability.of(reliability_sums(
        np.zeros((2, 2, 2), np.uint8), np.float32([[[[1.0, 0.0]]]] * 2).repeat(2, 1).repeat(2, 2),
        (0, 1))[0])
    assert nothing == Reliability((0,) * 10, (None,) * 10, (None,) * 10, None)


@pytest.fixture
def folders(predictions_dir, study_dir):
    """Predictions with probabilities for two of three cases: 0.7 for what was predicted."""
    for case in ("case_a", "case_b"):
        labels = np.asarray(nib.load(predictions_dir / f"{case}.nii.gz").dataobj)
        shares = np.full((*labels.shape, 4), 0.1, np.float32)
        for index, value in enumerate(STUDY.label_values):
            shares[labels == value, index] = 0.7
        write_nifti(predictions_dir / "probabilities" / f"{case}.nii.gz", shares)
    return predictions_dir, study_dir


def evaluated(folders):
    matching = match_cases(*folders, STUDY)
    said = Said()
    found = evaluate(matching, STUDY, BratsProtocol(), *folders, check_pairs(matching, STUDY), 1,
                     said)
    return found, said


def test_the_summary_holds_it_and_reads_back(folders, tmp_path, labels):
    found, said = evaluated(folders)
    assert not said.warnings
    calibration = found.calibration
    assert calibration.cases == 2
    assert list(calibration.classes) == ["necrosis", "edema", "enhancing"]
    # Of the first case all is right, of the second what did not move by a voxel.
    truth, moved = np.roll(labels, 1, axis=0), np.roll(labels, 2, axis=0)
    right = (1 + (truth == moved).mean()) / 2
    assert calibration.predicted_class.voxels == (0,) * 7 + (2 * labels.size, 0, 0)
    assert calibration.predicted_class.accuracy[7] == pytest.approx(right)
    assert calibration.predicted_class.expected_calibration_error == pytest.approx(right - 0.7)
    write_evaluation(found, tmp_path / "scores")
    assert read_evaluation(tmp_path / "scores").calibration == calibration
    tree = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert tree["calibration"]["cases"] == 2
    assert "10 bins" in tree["calibration_definitions"]["expected_calibration_error"]


def test_probabilities_that_exceed_1_by_rounding_are_written_as_they_are_read(folders, tmp_path):
    for case in ("case_a", "case_b"):
        path = folders[0] / "probabilities" / f"{case}.nii.gz"
        shares = np.asarray(nib.load(path).dataobj)
        write_nifti(path, np.float32(np.where(shares == shares.max(-1, keepdims=True), 1.0005, 0)))
    found, said = evaluated(folders)
    assert not said.warnings
    assert found.calibration.predicted_class.confidence[9] == 1
    write_evaluation(found, tmp_path / "scores")
    assert read_evaluation(tmp_path / "scores").calibration == found.calibration


def test_probabilities_that_do_not_fit_are_left_out_and_told(folders):
    path = folders[0] / "probabilities" / "case_a.nii.gz"
    shares = np.asarray(nib.load(path).dataobj)
    for wrong, words in ((shares[..., :3], "holds 3 volumes, study.labels has 4 classes"),
                         (shares[:-1], "is on another grid"),
                         (3 * shares, "holds no probabilities"),
                         (shares[..., 0], "four dimensions")):
        write_nifti(path, wrong)
        found, said = evaluated(folders)
        assert found.calibration.cases == 1
        warning, = said.warnings
        assert words in warning
        assert "case_a" in warning
    (folders[0] / "probabilities" / "case_b.nii.gz").unlink()
    found, _ = evaluated(folders)
    assert found.calibration is None
    assert calibration_table(found) is None


def test_probabilities_in_bids_lie_beside_the_segmentation(tmp_path):
    for name in ("sub-01_dseg.nii.gz", "sub-01_probseg.nii.gz", "sub-02_mask.nii.gz",
                 "sub-02_probseg.nii.gz", "sub-03_dseg.nii.gz"):
        (tmp_path / name).touch()
    pairs = {name: (tmp_path / "truth", tmp_path / f"{name}_{suffix}.nii.gz") for name, suffix in (
        ("sub-01", "dseg"), ("sub-02", "mask"), ("sub-03", "dseg"))}
    assert find_probabilities(Matching(pairs, (), ())) == {
        name: tmp_path / f"{name}_probseg.nii.gz" for name in ("sub-01", "sub-02")}


@pytest.mark.parametrize("wrong", [{"voxels": [1]}, {"accuracy": [2.0] * 10},
                                   {"confidence": [None] * 10}])
def test_impossible_numbers_of_a_file_are_refused(folders, tmp_path, wrong):
    found, _ = evaluated(folders)
    found.about["calibration"]["classes"]["edema"] |= wrong
    write_evaluation(found, tmp_path / "scores")
    with pytest.raises(DataError, match=r"calibration holds .*evaluate again"):
        read_evaluation(tmp_path / "scores")


def test_table_and_figure_show_the_numbers(folders):
    found, _ = evaluated(folders)
    table = calibration_table(found)
    assert [row[0] for row in table.rows] == ["predicted class", "necrosis", "edema", "enhancing"]
    error = found.calibration.classes["edema"].expected_calibration_error
    assert table.rows[2][4] == f"{error:.3f}"
    figure = reliability(found.calibration)
    axes = {ax.get_title().split("\n")[0]: ax for ax in figure.axes if ax.get_title()}
    points = axes["edema"].lines[1]
    edema = found.calibration.classes["edema"]
    assert points.get_xdata() == pytest.approx([edema.confidence[1], edema.confidence[7]])
    assert points.get_ydata() == pytest.approx([edema.accuracy[1], edema.accuracy[7]])
