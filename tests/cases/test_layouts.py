"""Finding cases: the three layouts, and what is said when something is missing."""

import os
from pathlib import Path

import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases, isles_modality
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError

BRATS = StudyConfig(modalities=("flair", "t1ce"))
ISLES = StudyConfig(layout="isles", modalities=("dwi", "adc", "cbf"),
                    labels={0: "background", 1: "lesion"}, regions={"lesion": (1,)})


def touch(root: Path, *names: str | bytes) -> None:
    """Make empty files; names as bytes may be no text."""
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_brats_with_and_without_grade_level(tmp_path):
    touch(tmp_path, *(f"HGG/B/B_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2", "seg")),
          *(f"LGG/A/A_{m}.nii" for m in ("flair", "t1ce", "seg")),
          *(f"C/C_{m}.nii.gz" for m in ("flair", "t1ce", "seg")), ".hidden/x")
    cases = find_cases(tmp_path, BRATS)
    assert [case.name for case in cases] == ["A", "B", "C"]
    assert cases[1].volumes == {"flair": tmp_path / "HGG/B/B_flair.nii.gz",
                                "t1ce": tmp_path / "HGG/B/B_t1ce.nii.gz"}
    assert list(cases[1].volumes) == ["flair", "t1ce"]
    assert cases[0].segmentation == tmp_path / "LGG/A/A_seg.nii"
    assert not any(case.faults for case in cases)


def test_missing_files_are_faults_that_name_what_was_looked_for(tmp_path):
    touch(tmp_path, "A/A_flair.nii.gz", "A/A_seg.nii.gz", "B/B_flair.nii.gz", "B/B_t1ce.nii.gz")
    without_t1ce, without_seg = find_cases(tmp_path, BRATS)
    assert len(without_t1ce.faults) == 1
    for word in ("'t1ce'", "A_t1ce.nii.gz", "A_flair.nii.gz", str(tmp_path / "A")):
        assert word in str(without_t1ce.faults[0])
    assert "segmentation is missing" in str(without_seg.segmentation_faults[0])
    assert find_cases(tmp_path, BRATS, require_segmentation=False)[1].faults == ()


def test_case_folder_without_files_is_at_fault(tmp_path):
    (tmp_path / "A").mkdir()
    (case,) = find_cases(tmp_path, BRATS)
    assert "holds no image" in str(case.faults[0])


def test_isles_2017_smir_folders(tmp_path):
    numbers = {"MR_ADC": 128020, "MR_DWI": 128021, "MR_rCBF": 128025, "MR_rCBV": 128026,
               "MR_4DPWI": 127014, "MR_MTT": 128027, "OT": 128050}
    for name, number in numbers.items():
        stem = f"VSD.Brain.XX.O.{name}.{number}"
        touch(tmp_path, f"training_2/{stem}/{stem}.nii")
    (case,) = find_cases(tmp_path, ISLES)
    assert case.name == "training_2"
    assert {m: path.name for m, path in case.volumes.items()} == {
        "dwi": "VSD.Brain.XX.O.MR_DWI.128021.nii", "adc": "VSD.Brain.XX.O.MR_ADC.128020.nii",
        "cbf": "VSD.Brain.XX.O.MR_rCBF.128025.nii"}
    assert list(case.volumes) == ["dwi", "adc", "cbf"]
    assert case.segmentation.name == "VSD.Brain.XX.O.OT.128050.nii"
    assert case.smir_id == "127014"


def test_isles_2022_with_sessions_and_derivatives(tmp_path):
    study = StudyConfig(layout="isles", modalities=("DWI", "adc"), labels=ISLES.labels,
                        regions=ISLES.regions)
    name = "sub-strokecase0001"
    touch(tmp_path, f"{name}/ses-0001/dwi/{name}_ses-0001_dwi.nii.gz",
          f"{name}/ses-0001/dwi/{name}_ses-0001_adc.nii.gz",
          f"{name}/ses-0001/anat/{name}_ses-0001_FLAIR.nii.gz",
          f"derivatives/{name}/ses-0001/{name}_ses-0001_msk.nii.gz",
          "derivatives/sub-strokecase0002/ses-0001/sub-strokecase0002_ses-0001_msk.nii.gz")
    (case,) = find_cases(tmp_path, study)
    assert case.volumes["DWI"].name == f"{name}_ses-0001_dwi.nii.gz"
    assert case.segmentation.name == f"{name}_ses-0001_msk.nii.gz"
    assert case.smir_id is None
    assert case.faults == ()


def test_two_files_of_one_modality_are_a_fault(tmp_path):
    touch(tmp_path, *(f"s/ses-{n}/s_ses-{n}_{m}.nii.gz" for n in (1, 2)
                      for m in ("dwi", "adc", "cbf", "msk")))
    (case,) = find_cases(tmp_path, ISLES)
    assert ["2 files fit" in str(fault) for fault in case.faults] == [True] * 3
    assert "seg: 2 files fit" in str(case.segmentation_faults[0])
    assert case.without_segmentation() == Case(case.name, faults=case.faults)


@pytest.mark.parametrize(("path", "expected"), [
    ("t/VSD.Brain.XX.O.MR_Tmax.1/VSD.Brain.XX.O.MR_Tmax.1.nii", ("tmax", "1")),
    ("t/VSD.Brain.XX.O.MR_ADC.77/image.nii", ("adc", "77")),
    ("t/MR_rCBV.nii.gz", ("cbv", None)),
    ("t/VSD.Brain_3more.XX.O.OT.128050/x.nii", ("seg", "128050")),
    ("s/sub-1_ses-1_flair.nii.gz", ("flair", None)),
])
def test_isles_names(path, expected):
    assert isles_modality(Path(path)) == expected


def test_pattern_layout(tmp_path):
    study = StudyConfig(layout="pattern", modalities=("flair",),
                        files={"flair": "anat/{case}_*FLAIR.nii.gz", "seg": "mask.nii"})
    touch(tmp_path, "P1/anat/P1_ax_FLAIR.nii.gz", "P1/mask.nii")
    (case,) = find_cases(tmp_path, study)
    assert case.files == (tmp_path / "P1/anat/P1_ax_FLAIR.nii.gz", tmp_path / "P1/mask.nii")
    unlabelled = StudyConfig(layout="pattern", modalities=("flair",),
                             files={"flair": study.files["flair"]})
    with pytest.raises(DataError, match="`seg`"):
        find_cases(tmp_path, unlabelled)
    assert find_cases(tmp_path, unlabelled, require_segmentation=False)[0].segmentation is None


def test_a_case_that_may_lack_a_truth_may_not_have_two(tmp_path):
    study = StudyConfig(layout="brats", modalities=("flair",))
    touch(tmp_path, "none/none_flair.nii.gz", "two/two_flair.nii.gz", "two/two_seg.nii.gz",
          "two/two_seg.nii")
    found = [case.allowing_unlabelled() for case in find_cases(tmp_path, study)]
    assert found[0].segmentation_faults == ()
    assert "2 files fit" in str(found[1].segmentation_faults[0])


def test_empty_or_missing_study_and_equal_names(tmp_path):
    with pytest.raises(DataError, match="the folder is empty"):
        find_cases(tmp_path, BRATS)
    with pytest.raises(DataError, match="no such folder"):
        find_cases(tmp_path / "nowhere", BRATS)
    touch(tmp_path, "loose.nii.gz")
    with pytest.raises(DataError, match=r"sub-folder per case.*loose\.nii\.gz"):
        find_cases(tmp_path, BRATS)
    touch(tmp_path, "HGG/A/A_flair.nii.gz", "LGG/A/A_flair.nii.gz")
    with pytest.raises(DataError, match=r"case A: .*two cases have this name"):
        find_cases(tmp_path, BRATS)


def test_names_on_the_disk(tmp_path):
    """Capitals, characters of patterns, macOS' own files, links to nowhere, pairs."""
    pattern = StudyConfig(layout="pattern", modalities=("flair",),
                          files={"flair": "{case}_*flair*", "seg": "seg.nii"})
    touch(tmp_path, "P[1]/P[1]_ax_flair.NII.GZ", "P[1]/._P[1]_ax_flair.NII.GZ", "P[1]/seg.nii",
          "__MACOSX/P[1]/x.nii.gz")
    (case,) = find_cases(tmp_path, pattern)
    assert case.name == "P[1]"
    assert case.volumes == {"flair": tmp_path / "P[1]/P[1]_ax_flair.NII.GZ"}
    study = tmp_path / "brats"
    touch(study, "A/A_flair.NII.GZ", "A/._A_flair.nii.gz", "A/A_seg.nii", "A/A_t1ce.hdr",
          "A/A_t1ce.img")
    (case,) = find_cases(study, BRATS)
    assert case.volumes["flair"].name == "A_flair.NII.GZ"
    assert case.volumes["t1ce"].name == "A_t1ce.hdr"
    (study / "A/A_t1ce.nii.gz").symlink_to(tmp_path / "nowhere")
    (case,) = find_cases(study, BRATS)
    assert case.faults == ()


def test_two_unicode_forms_are_one_name(tmp_path):
    composed, decomposed = "Ren\u00e9", "Rene\u0301"
    touch(tmp_path, f"{decomposed}/{composed}_flair.nii", f"{decomposed}/{decomposed}_t1ce.nii",
          f"{decomposed}/{composed}_seg.nii")
    (case,) = find_cases(tmp_path, BRATS)
    assert case.name == composed
    assert case.faults == ()
    touch(tmp_path, f"{composed}/{composed}_flair.nii")
    with pytest.raises(DataError, match="two cases have this name"):
        find_cases(tmp_path, BRATS)


@pytest.mark.parametrize("written", ["Ren\u00e9", "Rene\u0301"])
@pytest.mark.parametrize("on_disk", ["Ren\u00e9", "Rene\u0301"])
def test_patterns_and_derivatives_meet_either_form(tmp_path, on_disk, written):
    study = StudyConfig(layout="pattern", modalities=("flair", "t2"),
                        files={"flair": "{case}_flair.nii.gz", "t2": f"{written}*/*t2.nii"})
    touch(tmp_path, f"{on_disk}/{written}_flair.nii.gz", f"{on_disk}/{on_disk}2/t2.nii")
    (case,) = find_cases(tmp_path, study, require_segmentation=False)
    assert case.faults == ()
    isles = StudyConfig(layout="isles", modalities=("dwi",))
    touch(tmp_path / "i", f"{on_disk}/x_dwi.nii", f"derivatives/{written}/x_msk.nii")
    (case,) = find_cases(tmp_path / "i", isles)
    assert case.segmentation_faults == ()


@pytest.mark.parametrize("pattern", ["{case}_flair.nii.gz", "{case}*.nii.gz", "**/*flair.nii.gz"])
def test_every_kind_of_pattern_finds_links_capitals_and_no_folders(tmp_path, pattern):
    study = StudyConfig(layout="pattern", modalities=("flair",), files={"flair": pattern})
    for number, name in enumerate(("[A]_flair.nii.gz", "[A]_flair.NII.GZ")):
        folder = tmp_path / str(number) / "[A]"
        (folder / "x_flair.nii.gz").mkdir(parents=True)
        (folder / name).symlink_to(tmp_path / "nowhere")
        (case,) = find_cases(folder.parent, study, require_segmentation=False)
        assert case.volumes == {"flair": folder / name}


def test_a_pattern_outside_of_the_case_or_unsound_ends_in_words(tmp_path):
    touch(tmp_path, "A/flair.nii", "masks/A.nii")
    for seg, found in (("../masks/{case}.nii", 1), (f"{tmp_path}/masks/{{case}}.nii", 1),
                       ("/nowhere/{case}.nii", 0), ("**A[.nii", 0)):
        study = StudyConfig(layout="pattern", modalities=("flair",),
                            files={"flair": "flair.nii", "seg": seg})
        case = find_cases(tmp_path, study)[0]
        assert (case.segmentation is not None) == bool(found), seg
        assert len(case.segmentation_faults) == 1 - found


def test_a_name_that_is_no_text_is_a_fault_of_its_case(tmp_path):
    touch(tmp_path, b"case\xff/case\xff_flair.nii", b"A/A_flair.nii", b"A/A_t1ce.nii",
          b"A/A_seg.nii", b"A/notes\xff.nii", b"B/B_flair.nii", b"B/b\xff.nii")
    good, missing, bad = find_cases(tmp_path, BRATS, require_segmentation=False)
    assert good.faults == ()
    assert r"b\\xff.nii" in str(missing.faults[0])
    assert (bad.name, bad.volumes) == (r"case\xff", {})
    assert str(bad.faults[0]) == r"case\xff: the name is no UTF-8 text; rename it"
    pattern = StudyConfig(layout="pattern", modalities=("flair",), files={"flair": "b*.nii"})
    case = find_cases(tmp_path, pattern, require_segmentation=False)[1]
    assert str(case.faults[0]).endswith(r"b\xff.nii: the name is no UTF-8 text; rename it")
    with pytest.raises(DataError, match=r"case\\xff: the name is no UTF-8"):
        find_cases(tmp_path / os.fsdecode(b"case\xff"), BRATS)
