"""Reading checks: each kind of bad case, found in one pass and named."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.checks import check_case, check_cases, refusal
from tests.listening import Listening

STUDY = StudyConfig(modalities=("flair", "t2"))


@pytest.fixture
def make(tmp_path, save, ball):
    def make(name: str = "A", seg: np.ndarray | None = None, affine=None, **arrays) -> Case:
        labels = np.zeros(ball.shape, np.uint8)
        labels[12, 12, 6] = 2
        volumes = {m: save(tmp_path / f"{name}_{m}.nii.gz", arrays.get(m, scale * ball),
                           affine if m == "t2" else None)
                   for m, scale in zip(STUDY.modalities, (1, 2), strict=True)}
        return Case(name, volumes, save(tmp_path / f"{name}_seg.nii.gz",
                                        labels if seg is None else seg))
    return make


def only(case: Case, study: StudyConfig = STUDY) -> str:
    (problem,) = check_cases([case], study)
    assert problem.case == case.name
    return problem.message


def test_a_sound_case_also_with_whole_float_labels(make, ball):
    seg = np.zeros(ball.shape, np.float64)
    seg[3, 4, 5] = 4.0
    result = check_case(make(seg=seg), STUDY)
    assert result.problems == ()
    assert result.has_lesion


def test_shape_mismatch_names_both(make, ball):
    message = only(make(t2=ball[:, :, 1:]))
    for word in ("A_t2.nii.gz: not on the grid of the first modality",
                 "shape (24, 24, 11) against (24, 24, 12)", "study.resample"):
        assert word in message


def test_affine_mismatch_names_both_and_is_fine_when_resampling(make):
    case = make(affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    message = only(case)
    assert "[0.0, 0.0, 1.0, 0.0]" in message
    assert "[0.0, 0.0, 2.0, 0.0]" in message
    assert check_cases([case], dataclasses.replace(STUDY, resample=True)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(make, ball, value):
    array = ball.copy()
    array[1, 2, 3] = value
    message = only(make(flair=array))
    assert "A_flair.nii.gz: 1 voxels are NaN or infinite, the first at (1, 2, 3)" in message


def test_an_empty_volume(make, ball):
    assert "every voxel is 0" in only(make(t2=0 * ball))


@pytest.mark.parametrize(("value", "dtype", "word"), [
    (3, np.uint8, "label 3;"), (1.5, np.float32, "label 1.5;"), (np.nan, np.float32, "label nan;")])
def test_unknown_label(make, ball, value, dtype, word):
    seg = np.zeros(ball.shape, dtype)
    seg[2, 2, 2] = value
    message = only(make(seg=seg))
    assert "A_seg.nii.gz" in message
    assert word in message
    assert "[0, 1, 2, 4]" in message


def test_broken_and_four_dimensional_files(make, ball, save, tmp_path):
    case = make()
    path = case.volumes["t2"]
    path.write_bytes(path.read_bytes()[:2000])
    assert "A_t2.nii.gz" in only(case)
    series = save(tmp_path / "series.nii", np.zeros((4, 4, 4, 2), np.float32))
    message = only(dataclasses.replace(make(), volumes={**case.volumes, "t2": series}))
    assert "(4, 4, 4, 2)" in message


def test_a_slice_that_is_too_large_is_seen_before_any_work(make, ball):
    result = check_case(make(), STUDY, slice_size=ball.shape[0] - 1)
    assert "larger than prepare.slice_size" in result.problems[0].message
    assert len(result.problems) == 1
    assert check_case(make(), STUDY, slice_size=max(ball.shape)).plan.height == max(ball.shape)


def test_faults_of_a_segmentation_are_told_from_those_of_the_images(make, ball):
    case = make(seg=np.full(ball.shape, 3, np.uint8))
    result = check_case(case, STUDY)
    assert (len(result.image_problems), len(result.segmentation_problems)) == (0, 1)
    assert check_case(case.without_segmentation(), STUDY).problems == ()


def test_no_lesion_anywhere_is_a_problem_of_every_case(make, ball):
    empty = [make(name, seg=np.zeros(ball.shape, np.uint8)) for name in "AB"]
    problems = check_cases(empty, STUDY)
    assert [problem.case for problem in problems] == ["A", "B"]
    assert "no label but the background" in problems[0].message
    assert check_cases([*empty, make("C")], STUDY) == []


def test_all_bad_cases_come_in_one_message(make, ball):
    cases = [Case("A", faults=(DataError("modality 'flair' is missing"),)),
             make("B", t2=ball[1:]), make("C")]
    ears = Listening()
    problems = check_cases(cases, STUDY, reporter=ears)
    assert ears.events == [("checking", n, 3, name) for n, name in enumerate("ABC", start=1)]
    message = str(refusal(problems, len(cases)))
    assert message.startswith("2 of 3 cases cannot be used:")
    assert "  A: modality 'flair' is missing" in message
    assert "  B: " in message


def test_a_segmentation_or_modality_that_lies_elsewhere_is_a_problem(make, ball, save, tmp_path):
    study = dataclasses.replace(STUDY, resample=True)
    elsewhere = np.diag([1.0, 1, 1, 1])
    elsewhere[:3, 3] = 12
    case = make()
    seg = np.zeros(ball.shape, np.uint8)
    seg[8:12, 8:12, 4:8] = 1
    moved = dataclasses.replace(case, segmentation=save(tmp_path / "s.nii", seg, elsewhere))
    assert "s.nii: only 0 of its 64 labelled voxels" in only(moved, study)
    message = only(make(affine=np.diag([-0.01, -0.01, 1, 1])), study)
    assert "A_t2.nii.gz: only 0.0% of it lies on the first modality's grid" in message


def test_an_image_whose_content_lies_elsewhere_is_a_problem(make, ball, save, tmp_path):
    """Its field of view holds the first modality's, where it is 0 everywhere."""
    wide = np.zeros((80, 80, 40), np.float32)
    wide[:8, :8, :8] = np.random.default_rng(0).uniform(50, 100, (8, 8, 8))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = 30.5, 30.5, -14.5
    case = make()
    case = dataclasses.replace(case, volumes={
        **case.volumes, "t2": save(tmp_path / "wide.nii", wide, affine)})
    assert "wide.nii: only 0.0% of it lies" in only(
        case, dataclasses.replace(STUDY, resample=True))


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1.0, 2.0, 1.0])])
def test_a_segmentation_that_lost_its_place_is_not_to_be_resampled(
        ball, save, tmp_path, affine, resample):
    placed = np.diag([-1.0, -1.0, 2.0, 1.0])
    placed[:3, 3] = 3, 2, 1
    labels = np.zeros(ball.shape, np.uint8)
    labels[8:16, 8:16, 4:8] = 1
    case = Case("A", {m: save(tmp_path / f"{m}.nii", ball, placed) for m in STUDY.modalities},
                save(tmp_path / "seg.nii", labels, affine))
    message = only(case, dataclasses.replace(STUDY, resample=resample))
    assert "seg.nii: not on the grid" in message
    assert "write it anew with that affine" in message
    assert "study.resample" not in message


def test_a_lesion_that_is_partly_lost_is_a_doubt(make, save, tmp_path):
    labels = np.zeros((24, 24, 12), np.uint8)
    labels[8:16, 8:16, 4:8] = 1
    moved = np.diag([-1.0, -1.0, 1.0, 1.0])
    moved[0, 3] = 10
    case = dataclasses.replace(make(), segmentation=save(tmp_path / "seg.nii", labels, moved))
    found = check_case(case, dataclasses.replace(STUDY, resample=True))
    assert found.problems == ()
    assert found.has_lesion
    assert "seg.nii: 25.0% of the lesion is not on the first modality's grid" \
        in found.doubts[0].message


def test_voxel_sides_of_another_unit_are_a_doubt(make, tmp_path):
    case = make()
    image = nib.load(case.volumes["flair"])
    image.header.set_xyzt_units("meter")
    (tmp_path / "metre.nii").write_bytes(image.to_bytes())
    found = check_case(Case("A", {m: tmp_path / "metre.nii" for m in STUDY.modalities}), STUDY)
    assert found.problems == ()
    assert "metre.nii: voxels of 1000 x 1000 x 1000 mm are none of a scanner" \
        in found.doubts[0].message


def test_a_background_that_is_not_zero_is_a_doubt(make, ball):
    assert check_case(make(), STUDY).doubts == ()
    (doubt,) = check_case(make(flair=ball + 1), STUDY).doubts
    assert "100.0% of the voxels are not 0" in doubt.message
    assert "study.skull_stripped" in doubt.message
    assert check_case(make(flair=ball + 1), dataclasses.replace(
        STUDY, skull_stripped=False)).doubts == ()


def test_a_modality_that_is_another_one_again_is_a_doubt(make, ball):
    """As in sets that fill in FLAIR for a sequence that a patient lacks."""
    found = check_case(make(t2=ball), STUDY)
    assert found.problems == ()
    (doubt,) = found.doubts
    assert doubt.case == "A"
    assert "A_t2.nii.gz: t2 is flair again, voxel for voxel" in doubt.message
    ball = ball.copy()
    ball[tuple(np.argwhere(ball)[0])] += 1
    assert check_case(make(t2=ball), STUDY).doubts == ()


def test_voxel_sides_that_disagree_are_a_doubt(make, tmp_path):
    case = make()
    image = nib.load(case.volumes["flair"])
    image.header["pixdim"][1:4] = 3
    (tmp_path / "doubt.nii").write_bytes(image.to_bytes())
    found = check_case(dataclasses.replace(case, volumes={
        **case.volumes, "flair": tmp_path / "doubt.nii"}), STUDY)
    assert found.problems == ()
    assert "doubt.nii: pixdim states voxels of 3 x 3 x 3 mm" in found.doubts[0].message


def test_a_label_that_is_whole_but_for_rounding(make, ball):
    seg = np.zeros(ball.shape, np.float32)
    seg[2, 2, 2] = np.float32(0.99999994)
    assert check_case(make(seg=seg), STUDY).problems == ()
    seg[2, 2, 3] = 0.99
    assert "unknown label 0.9900000095367432;" in only(make(seg=seg))
