"""Telling the layout of a folder by itself: the same cases are found and checked by what was told.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.cases.detect import detect_study
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.names import modality_in
from pixelnet_tf.cases.phantom import draw_brats_case
from pixelnet_tf.config import Layout, StudyConfig, config_from_dict
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.checks import check_cases
from pixelnet_tf.volumes.nifti import read_volume
from pixelnet_tf.volumes.raw_volume import RawVolume
from tests.cases.test_layouts import touch
from tests.dicom_study import write_series
from tests.study_forms import LAYOUTS, write_image, write_study

AFFINE = np.diag([-12.5, -12.5, 9.0, 1.0])
AFFINE[:3, 3] = (94, 94, -67)
#: Each layout in .nii.gz and in one more form, so that every form meets a layout.
IN_FORMS = [*((layout, ".nii.gz") for layout in LAYOUTS), ("brats", ".mha"), ("flat", ".nrrd"),
            ("nnunet", ".nrrd"), ("msd", ".hdr"), ("bids", ".nii"), ("pattern", ".mgz"),
            ("isles2017", ".mhd"), ("isles2022", ".img"), ("brats2023", ".mgh")]


@pytest.fixture(scope="module")
def phantom() -> dict[str, dict[str, np.ndarray]]:
    """Two cases with a tumour, and one without truth."""
    cases = {}
    for number, name in enumerate(("case_1", "case_2", "case_3"), start=1):
        drawn = draw_brats_case(0, number, (16, 16, 16))
        cases[name] = {"first": drawn.volumes["flair"], "second": drawn.volumes["t1ce"],
                       "seg": (drawn.labels > 0).astype(np.uint8)}
    del cases["case_3"]["seg"]
    return cases


def study_of(settings: dict) -> StudyConfig:
    """The configuration by which `find_cases` finds what was detected."""
    return config_from_dict({"study": {"labels": {0: "background", 1: "lesion"}, "regions": {}}
                             | settings}).study


@pytest.mark.parametrize(("layout", "ending"), IN_FORMS)
def test_every_layout_and_form_is_told_found_and_sound(tmp_path, phantom, layout, ending):
    write_study(tmp_path, layout, phantom, AFFINE, ending)
    found = detect_study(tmp_path)
    assert found.layout == {"brats2023": "brats", "isles2017": "isles", "isles2022": "isles"
                            }.get(layout, layout)
    names = ("dwi", "adc") if layout.startswith("isles") else ("flair", "t1ce")
    assert found.modalities == found.common_modalities == names
    truth, test = ((2, 1) if layout in ("nnunet", "msd") else (3, 0))
    assert (len(found.cases), len(found.test_cases)) == (truth, test)
    assert len(found.without_segmentation) == truth - 2

    study = study_of(found.settings())
    cases = find_cases(tmp_path, study, require_segmentation=False)
    assert [case for case in cases if not case.test] == list(found.cases)
    assert [case for case in cases if case.test] == list(found.test_cases)
    assert check_cases(cases, study) == []
    for case, drawn in zip(cases, phantom.values(), strict=True):
        for modality, key in zip(names, ("first", "second"), strict=True):
            np.testing.assert_array_equal(RawVolume.read(case.volumes[modality]).array, drawn[key])
        if "seg" in drawn:
            np.testing.assert_array_equal(RawVolume.read(case.segmentation).array, drawn["seg"])
    bad = find_cases(tmp_path, study)
    assert ["segmentation is missing" in str(case.segmentation_faults) for case in bad
            ] == [False, False, not test]
    assert found.reasons[0].startswith({
        "nnunet": "nnU-Net: ", "msd": "Medical Segmentation Decathlon: ", "bids": "BIDS: ",
        "brats": "BraTS: ", "brats2023": "BraTS 2023: ", "flat": "Flat: ", "isles2017":
        "ISLES 2017: ", "isles2022": "ISLES 2022: ", "pattern": "A folder a case, "}[layout])
    expected = {0: "background", 1: "lesion"} if test else {
        0: "background", 1: "necrosis", 2: "edema", 3: "enhancing"} if layout == "brats2023" else {}
    assert found.labels == expected


@pytest.mark.parametrize(("folder", "layout", "modalities", "cases"), [
    ("lgg", Layout.BRATS, ("flair", "t1ce", "t1"), 24),
    ("brats_layout", Layout.BRATS, ("flair", "t1ce", "t2", "t1"), 2),
    ("msd_crops", Layout.BRATS, ("flair", "t1ce", "t2", "t1"), 8),
    ("isles2022", Layout.ISLES, ("dwi", "adc"), 2),
])
def test_real_folders_as_they_lie(shared, folder, layout, modalities, cases):
    found = detect_study(shared / "data" / folder)
    assert (found.layout, found.common_modalities, len(found.cases)) == (layout, modalities, cases)
    assert found.without_segmentation == ()


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_real_crops_in_the_forms_of_nnunet_and_the_decathlon(shared, tmp_path, layout):
    """Voxels, places and truth are those of the crops as they lie."""
    crops = find_cases(shared / "data" / "msd_crops", StudyConfig(modalities=("flair", "t1ce")))[:2]
    affine = RawVolume.read(crops[0].segmentation).geometry.affine
    arrays = {case.name: {key: read_volume(path)[0] for key, path in (
        ("first", case.volumes["flair"]), ("second", case.volumes["t1ce"]),
        ("seg", case.segmentation))} for case in crops}
    write_study(tmp_path, layout, arrays, affine, ".nii")
    found = detect_study(tmp_path)
    assert (found.layout, found.common_modalities) == (layout, ("flair", "t1ce"))
    study = study_of(found.settings() | {"labels": {0: "b", 1: "n", 2: "e", 4: "t"},
                                         "regions": {}})
    cases = find_cases(tmp_path, study)
    assert check_cases(cases, study) == []
    assert [case.name for case in cases] == [crop.name for crop in crops]
    for case, crop in zip(cases, crops, strict=True):
        for modality in ("flair", "t1ce"):
            ours, theirs = (RawVolume.read(each.volumes[modality]) for each in (case, crop))
            np.testing.assert_array_equal(ours.array, theirs.array)
        assert ours.geometry.shape == theirs.geometry.shape


def write_json(folder: Path, **changes: object) -> None:
    """Change what dataset.json says; None takes a key away."""
    path = folder / "dataset.json"
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


@pytest.mark.parametrize(("layout", "changes", "words"), [
    ("nnunet", {"numTraining": 7}, "states numTraining 7, but there are 2 training cases"),
    ("msd", {"numTraining": 1}, "states numTraining 1, but there are 2 training cases"),
    ("nnunet", {"file_ending": ".nrrd"}, r"states file_ending '.nrrd'.*holds files as case_1"),
    ("nnunet", {"file_ending": ".png"}, "file_ending '.png' is none of"),
    ("nnunet", {"channel_names": {"0": "FLAIR", "2": "T1Gd"}}, "must number the channels from 0"),
    ("nnunet", {"channel_names": ["FLAIR"]}, "channel_names must map keys to values"),
    ("nnunet", {"labels": {"lesion": 1}}, "must name 0, the background"),
    ("nnunet", {"labels": {"background": 0, "lesion": "one"}}, "labels.lesion must be a whole"),
    ("msd", {"modality": None}, "says no names of the channels"),
])
def test_a_dataset_json_that_contradicts_its_files_is_named(tmp_path, phantom, layout, changes,
                                                            words):
    write_study(tmp_path, layout, phantom, AFFINE)
    write_json(tmp_path, **changes)
    study = StudyConfig(layout=layout, modalities=("flair", "t1ce"))
    with pytest.raises(DataError, match=words) as refused:
        find_cases(tmp_path, study)
    assert refused.value.file == str(tmp_path / "dataset.json")
    assert refused.value.exit_code == 3
    assert refused.value.hint


def problems(folder: Path, study: StudyConfig) -> str:
    found = check_cases(find_cases(folder, study), study)
    assert all(problem.fault.hint and problem.fault.file for problem in found)
    return "\n".join(str(problem.fault) for problem in found)


def test_channels_that_are_not_as_dataset_json_says_are_faults_of_their_case(tmp_path, phantom):
    folder = write_study(tmp_path / "n", "nnunet", phantom, AFFINE)
    study = study_of(detect_study(folder).settings())
    (folder / "imagesTr/case_1_0001.nii.gz").unlink()
    write_image(folder / "imagesTr/case_2_0002.nii.gz", phantom["case_2"]["first"], AFFINE)
    told = problems(folder, study)
    assert "case case_1" in told
    assert "'t1ce' is missing: looked for case_1_0001.nii.gz" in told
    assert "case_2_0002.nii.gz: is channel 2, but" in told
    write_json(folder, channel_names={"0": "FLAIR", "1": "T2"}, numTraining=None)
    by_name = StudyConfig(layout="nnunet", modalities=("flair", "t1ce"), labels=study.labels,
                          regions={})
    assert "looked for a channel called 't1ce' in dataset.json, which names ['FLAIR', 'T2']" in (
        problems(folder, by_name))

    folder = write_study(tmp_path / "m", "msd", phantom, AFFINE)
    study = study_of(detect_study(folder).settings())
    write_json(folder, modality={"0": "FLAIR", "1": "T1gd", "2": "T2"})
    assert "case_1.nii.gz: holds 2 volumes where dataset.json names 3 channels" in problems(
        folder, study)
    (folder / "imagesTr/case_1.nii.gz").unlink()
    assert "case case_1" in problems(folder, study)


def test_labels_that_are_not_in_the_list_are_named(tmp_path, phantom):
    folder = write_study(tmp_path, "nnunet", phantom, AFFINE)
    study = study_of(detect_study(folder).settings())
    write_image(folder / "labelsTr/case_1.nii.gz", phantom["case_1"]["seg"] * 3, AFFINE)
    told = problems(folder, study)
    assert f"case case_1: {folder}/labelsTr/case_1.nii.gz: unknown label 3" in told
    assert "study.labels names [0, 1]" in told


def test_two_files_that_fit_one_modality_are_named(tmp_path):
    touch(tmp_path / "bids", *(f"sub-01/anat/sub-01_{acq}FLAIR.nii.gz"
                               for acq in ("", "acq-tse_")),
          "derivatives/m/sub-01/anat/sub-01_mask.nii.gz")
    study = StudyConfig(layout="bids", modalities=("flair",))
    (case,) = find_cases(tmp_path / "bids", study)
    (fault,) = case.faults
    assert fault.exit_code == 3
    assert ("flair: 2 files fit, ['sub-01_FLAIR.nii.gz', 'sub-01_acq-tse_FLAIR.nii.gz']"
            in str(fault))
    assert "name it by study.files" in fault.hint
    named = StudyConfig(layout="bids", modalities=("flair",), files={"flair": "*_acq-tse_FLAIR"})
    (case,) = find_cases(tmp_path / "bids", named)
    assert case.volumes["flair"].name == "sub-01_acq-tse_FLAIR.nii.gz"
    assert not case.faults
    touch(tmp_path / "flat", "A_flair.nii.gz", "A_t2f.nii.gz", "A_dark_fluid.nii.gz",
          "A_seg.nii.gz", "A_mask.nii.gz")
    flat = StudyConfig(layout="flat", modalities=("flair",))
    (case,) = find_cases(tmp_path / "flat", flat)
    # A name that is exactly the study's comes before what others call it.
    assert case.volumes["flair"].name == "A_flair.nii.gz"
    assert case.segmentation.name == "A_seg.nii.gz"
    (tmp_path / "flat/A_flair.nii.gz").unlink()
    (case,) = find_cases(tmp_path / "flat", flat)
    assert "flair: 2 files fit" in str(case.faults[0])


def test_bids_folders(tmp_path):
    """Sessions are cases, masks of brains are none of lesions, derived images no images."""
    touch(tmp_path, *(f"sub-01/ses-{n}/anat/sub-01_ses-{n}_{s}.nii.gz" for n in (1, 2)
                      for s in ("T1w", "ce-gd_T1w", "T2w")),
          "sub-01/ses-1/func/sub-01_ses-1_bold.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz",
          "sub-02/anat/sub-02_ce-gd_T1w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz",
          "sub-02/anat/sub-02_desc-brain_mask.nii.gz", "sub-02/anat/sub-02_desc-tumor_dseg.nii.gz",
          "derivatives/x/sub-01/ses-2/anat/sub-01_ses-2_roi.nii.gz",
          "derivatives/x/sub-01/ses-2/anat/sub-01_ses-2_space-MNI_T1w.nii.gz",
          "derivatives/masks/sub-01_ses-1_label-lesion_mask.nii.gz")
    found = detect_study(tmp_path)
    assert (found.layout, found.modalities) == ("bids", ("t1ce", "t2", "t1"))
    assert [case.name for case in found.cases] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert not any(case.faults or case.segmentation_faults for case in found.cases)
    assert [case.segmentation.name for case in found.cases] == [
        "sub-01_ses-1_label-lesion_mask.nii.gz", "sub-01_ses-2_roi.nii.gz",
        "sub-02_desc-tumor_dseg.nii.gz"]
    assert found.cases[1].volumes["t1"].name == "sub-01_ses-2_T1w.nii.gz"
    named = StudyConfig(layout="bids", modalities=("t1",),
                        files={"t1": "derivatives/x/*_space-MNI_T1w"})
    assert find_cases(tmp_path, named)[1].volumes["t1"].name.endswith("space-MNI_T1w.nii.gz")


def test_a_bids_folder_without_masks_is_told(tmp_path, phantom):
    cases = {name: {key: array for key, array in arrays.items() if key != "seg"}
             for name, arrays in phantom.items()}
    write_study(tmp_path, "bids", cases, AFFINE)
    found = detect_study(tmp_path)
    assert len(found.without_segmentation) == 3
    assert "0 of them have a segmentation." in found.reasons
    told = problems(tmp_path, study_of(found.settings()))
    assert told.count("segmentation is missing: looked for a mask or dseg of this case, here or "
                      "under derivatives") == 3


def test_flat_names_are_cut_at_the_longest_known_word(tmp_path):
    touch(tmp_path, "p_01_T1_post.nii.gz", "p_01_T1.nii.gz", "p_01_lesion_mask.nii.gz",
          "p_02-T2-FLAIR.nii.gz", "loose.nii.gz", "p_03_odd.nii.gz")
    study = StudyConfig(layout="flat", modalities=("t1ce", "t1"))
    cases = {case.name: case for case in find_cases(tmp_path, study)}
    assert list(cases) == ["loose", "p_01", "p_02", "p_03"]
    assert cases["p_01"].volumes == {"t1ce": tmp_path / "p_01_T1_post.nii.gz",
                                     "t1": tmp_path / "p_01_T1.nii.gz"}
    assert cases["p_01"].segmentation == tmp_path / "p_01_lesion_mask.nii.gz"
    assert "which holds ['p_03_odd.nii.gz']" in str(cases["p_03"].faults[0])
    other = StudyConfig(layout="flat", modalities=("odd", "t9"), files={"t9": "T1"})
    assert find_cases(tmp_path, other, False)[1].volumes == {"t9": tmp_path / "p_01_T1.nii.gz"}


def test_one_folder_of_nnunet_images_is_read_by_the_numbers_of_its_channels(tmp_path, phantom):
    write_study(tmp_path, "nnunet", phantom, AFFINE)
    settings = detect_study(tmp_path).settings()
    assert settings["files"] == {"flair": "0000", "t1ce": "0001"}
    (case,) = find_cases(tmp_path / "imagesTs", study_of(settings), require_segmentation=False)
    assert (case.name, case.test, list(case.volumes)) == ("case_3", False, ["flair", "t1ce"])
    moved = tmp_path / "new patients"
    (tmp_path / "imagesTs").rename(moved)
    (case,) = find_cases(moved, study_of(settings), require_segmentation=False)
    assert not case.faults
    alone = detect_study(moved)
    assert (alone.layout, alone.modalities) == ("nnunet", ("channel_0", "channel_1"))
    (case,) = find_cases(moved, StudyConfig(layout="nnunet", modalities=("flair",)), False)
    assert "dataset.json that names the channels" in str(case.faults[0])


def test_a_pair_of_files_may_be_stated_by_either_ending(tmp_path, phantom):
    write_study(tmp_path, "nnunet", phantom, AFFINE, ".img")
    for ending in (".img", ".hdr"):
        write_json(tmp_path, file_ending=ending)
        assert [case.faults for case in detect_study(tmp_path).cases] == [(), ()]


def listed_study(folder, phantom):
    """nnU-Net's second form: dataset.json says where the files of each case lie."""
    write_study(folder, "nnunet", phantom, AFFINE)
    cases = sorted(path.name[:-7] for path in (folder / "labelsTr").iterdir())
    (folder / "imagesTr").rename(folder / "raw")
    (folder / "labelsTr").rename(folder / "truth")
    listed = {name: {"images": [f"raw/{name}_0000.nii.gz", f"./raw/{name}_0001.nii.gz"],
                     "label": f"truth/{name}.nii.gz"} for name in cases}
    write_json(folder, numTraining=len(cases), overwrite_image_reader_writer="SimpleITKIO",
               dataset=listed)
    return cases


def test_a_dataset_json_that_lists_the_files_is_followed(tmp_path, phantom):
    names = listed_study(tmp_path, phantom)
    found = detect_study(tmp_path)
    assert (found.layout, found.modalities) == ("nnunet", ("flair", "t1ce"))
    assert "lists the files" in found.reasons[0]
    assert [case.name for case in found.test_cases] == ["case_3"]
    cases = find_cases(tmp_path, study_of(found.settings()))
    assert [case.name for case in cases if not case.test] == names
    assert not any(case.faults for case in cases)
    assert cases[0].volumes["t1ce"] == tmp_path / "raw" / f"{names[0]}_0001.nii.gz"
    assert cases[0].segmentation == tmp_path / "truth" / f"{names[0]}.nii.gz"
    write_json(tmp_path, channel_names=None)
    assert detect_study(tmp_path).modalities == ("channel_0", "channel_1")


@pytest.mark.parametrize(("changes", "words"), [
    ({"dataset": {"a": {"images": ["raw/a_0000.nii.gz"], "label": None}}, "numTraining": 1},
     "lists 1 images of a, and names 2 channels"),
    ({"numTraining": 9}, "states numTraining 9, but `dataset` lists 2 cases"),
    ({"dataset": {"a": {"images": [], "label": "x"}}}, "dataset.a.images is empty"),
    ({"dataset": {"a": "raw"}}, "dataset.a must map"),
    ({"labels": {"0": "background", "1": "tumour", "2": "tumour"}},
     r"labels calls several values 'tumour': \[1, 2\]"),
])
def test_a_list_of_files_that_contradicts_itself_is_named(tmp_path, phantom, changes, words):
    listed_study(tmp_path, phantom)
    write_json(tmp_path, **changes)
    with pytest.raises(DataError, match=words) as refused:
        find_cases(tmp_path, StudyConfig(layout="nnunet", modalities=("flair", "t1ce")))
    assert refused.value.file == str(tmp_path / "dataset.json")


def test_a_listed_file_that_is_not_there_is_a_fault_of_its_case(tmp_path, phantom):
    name, *_ = listed_study(tmp_path, phantom)
    (tmp_path / "raw" / f"{name}_0001.nii.gz").unlink()
    case, *others = find_cases(tmp_path, StudyConfig(layout="nnunet", modalities=("flair", "t1ce")))
    assert "no such file, and dataset.json says" in str(case.faults[0])
    assert not any(other.faults for other in others)


@pytest.mark.parametrize(("labels", "named", "regions", "ignored"), [
    ({"background": 0, "edema": 1, "core": 2}, {0: "background", 1: "edema", 2: "core"}, {}, None),
    ({"0": "background", "2": "core"}, {0: "background", 2: "core"}, {}, None),
    ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
     {0: "background", 1: "whole", 2: "core", 3: "enhancing"},
     {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, None),
    ({"background": 0, "lesion": 1, "ignore": 2}, {0: "background", 1: "lesion"}, {}, 2),
    # One name for two values stands with the value behind it.
    ({"background": 0, "tumor": [1, 2]}, {0: "background", 1: "tumor_1", 2: "tumor_2"},
     {"tumor": (1, 2)}, None),
    ({"background": 0, "all": [1, 2, 3], "core": [1, 2]},
     {0: "background", 1: "core_1", 2: "core_2", 3: "all"},
     {"all": (1, 2, 3), "core": (1, 2)}, None),
])
def test_labels_are_read_in_either_way_of_writing(tmp_path, phantom, labels, named, regions,
                                                  ignored):
    write_study(tmp_path, "nnunet", phantom, AFFINE)
    write_json(tmp_path, labels=labels)
    found = detect_study(tmp_path)
    assert (found.labels, found.regions, found.ignore_label) == (named, regions, ignored)
    study = study_of(found.settings())
    assert (study.labels, study.ignore_label) == (named, ignored)
    assert study.regions == (regions or {name: (value,) for value, name in named.items() if value})


def test_regions_class_order_makes_every_name_a_region(tmp_path, phantom):
    """nnU-Net's way to ask for region-based training."""
    write_study(tmp_path, "nnunet", phantom, AFFINE)
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    write_json(tmp_path, labels=labels, regions_class_order=[1, 2, 3])
    found = detect_study(tmp_path)
    study = study_of(found.settings())
    assert study.labels == {0: "background", 1: "whole", 2: "core", 3: "enhancing"}
    assert study.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert list(study.regions_class_order.items()) == [("whole", 1), ("core", 2), ("enhancing", 3)]
    assert study.ignore_label == 4


@pytest.mark.parametrize(("order", "words"), [
    ([1, 2], "has 2 values, and labels names 3 regions"), ([3, 2, 1], "is 1, which is none of"),
    ([2, 2, 3], r"makes label 2 of label 1 \(whole\)"), ("1", "regions_class_order must be a list"),
])
def test_a_regions_class_order_that_does_not_fit_is_refused(tmp_path, phantom, order, words):
    write_study(tmp_path, "nnunet", phantom, AFFINE)
    write_json(tmp_path, labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3],
                                 "enhancing": [3]}, regions_class_order=order)
    with pytest.raises(DataError, match=words):
        detect_study(tmp_path)


def test_what_is_no_modality_is_left_out_and_named(tmp_path):
    """Masks of brains, transforms, raw perfusion, diffusion in many directions."""
    touch(tmp_path / "brats", *(f"{c}/{c}_{w}.nii.gz" for c in "AB" for w in
                                ("flair", "t1", "brainmask", "t1_reg", "seg", "swi")))
    found = detect_study(tmp_path / "brats")
    assert found.modalities == ("flair", "t1", "swi")
    assert "Left out, since no modality is called so: brainmask, t1_reg." in found.reasons
    touch(tmp_path / "isles", *(f"t_{n}/VSD.Brain.XX.O.{w}.{n}/VSD.Brain.XX.O.{w}.{n}.nii"
                                for n in (1, 2) for w in ("MR_4DPWI", "MR_ADC", "MR_rCBF", "OT")))
    found = detect_study(tmp_path / "isles")
    assert (found.layout, found.modalities) == ("isles", ("adc", "cbf"))
    assert "Left out, since a file of it is a series of volumes: 4dpwi." in found.reasons
    touch(tmp_path / "bids", *(f"sub-1/{f}/sub-1_{s}" for f, s in (
        ("anat", "T1w.nii.gz"), ("dwi", "dwi.nii.gz"), ("dwi", "dwi.bval"), ("perf", "asl.nii.gz"),
        ("anat", "defacemask.nii.gz"))))
    found = detect_study(tmp_path / "bids")
    assert found.modalities == ("t1",)
    assert "Left out, since a file of it is a series of volumes: asl, dwi." in found.reasons
    touch(tmp_path / "pattern", *(f"{c}/{w}.nii" for c in "AB" for w in ("T1", "xfm", "label")))
    found = detect_study(tmp_path / "pattern")
    assert found.files == {"t1": "T1.nii", "seg": "label.nii"}
    touch(tmp_path / "labels", "BRATS_001.nii.gz", "BRATS_002.nii.gz")
    with pytest.raises(DataError, match="no layout fits"):
        detect_study(tmp_path / "labels")


def test_names_that_are_no_text_are_faults_of_their_case(tmp_path):
    touch(tmp_path, b"flat/p\xff_flair.nii", b"flat/q_flair.nii", b"nnunet/imagesTr/p\xff_0000.nii",
          b"nnunet/imagesTr/q_0000.nii", b"bids/sub-1\xff/anat/sub-1\xff_FLAIR.nii",
          b"bids/sub-2/anat/sub-2_FLAIR.nii", b"msd/imagesTr/p\xff.nii", b"msd/imagesTr/q.nii")
    (tmp_path / "msd/dataset.json").write_text('{"modality": {"0": "FLAIR"}}')
    for layout in ("flat", "nnunet", "bids", "msd"):
        found = detect_study(tmp_path / layout)
        assert found.layout == layout
        assert sorted(str(case.faults[0]) for case in found.cases if case.faults) == [
            {"bids": r"sub-1\xff"}.get(layout, r"p\xff") + ": the name is no UTF-8 text; rename it"]


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_no_change_of_dataset_json_is_more_than_an_error(tmp_path, phantom, layout):
    write_study(tmp_path, layout, phantom, AFFINE, ".nii")
    path = tmp_path / "dataset.json"
    whole = path.read_text()
    tree = json.loads(whole)
    texts = [json.dumps(tree | {key: value}) for key in tree for value in (
        None, 0, -1, 1e999, "", "x", [], [1], {}, {"0": 0}, {"a": "b"}, {"0": None}, {"-1": "x"},
        {"\u00b2": "x"}, [{"image": 3}], [{}])]
    texts += [whole[:cut] for cut in range(0, len(whole), 17)] + ["[]", "null", "[" * 100_000]
    refused = 0
    for text in texts:
        path.write_text(text)
        try:
            detect_study(tmp_path)
        except DataError:
            refused += 1
    assert refused > len(texts) / 2


def test_folders_that_are_no_study_end_in_words(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        detect_study(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        detect_study(tmp_path / "nowhere")
    touch(tmp_path, "A/x.nii.gz", "B/y.nii.gz")
    with pytest.raises(DataError, match=r"no layout fits.*A/x.nii.gz") as refused:
        detect_study(tmp_path)
    assert "study.layout: pattern" in refused.value.hint


def test_dicom_series_are_told_by_their_descriptions(tmp_path, phantom):
    for case, whole in phantom.items():
        arrays = {key: array[4:10, 4:10, 6:9] for key, array in whole.items()}
        for number, (key, text) in enumerate((("first", "AX T2 FLAIR [fs]"), ("second", "Ax T1 +C"),
                                              ("first", "3-plane localizer")), start=1):
            write_series(tmp_path / case / text[:5], arrays[key], AFFINE, text, number=number,
                         patient=case)
        if "seg" in arrays:
            write_image(tmp_path / case / f"{case}_seg.nii.gz", arrays["seg"], AFFINE)
    found = detect_study(tmp_path)
    assert (found.layout, found.common_modalities) == ("dicom", ("flair", "t1ce"))
    assert found.series == {"flair": "ax t2 flair [[]fs]", "t1ce": "ax t1 +c"}
    assert found.without_segmentation == ("case_3",)
    study = study_of(found.settings())
    cases = find_cases(tmp_path, study, require_segmentation=False)
    assert cases == list(found.cases)
    assert check_cases(cases, study) == []


@pytest.mark.parametrize(("text", "modality"), [
    ("Ax T1 +C", "t1ce"), ("SAG T1 MPRAGE POST", "t1ce"), ("t1_mprage_sag_p2", "t1"),
    ("AX T2 FLAIR", "flair"), ("t2_tirm_tra_dark-fluid", "flair"), ("ep2d_diff_3scan_ADC", "adc"),
    ("T1 FLAIR", "t1"), ("DWI b1000", "dwi"), ("localizer", None), ("", None)])
def test_the_modality_that_a_description_speaks_of(text, modality):
    assert modality_in(text) == modality
