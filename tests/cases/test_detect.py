"""Telling the layout of a folder from its names, and finding the same cases by what was told."""

import json
from pathlib import Path

import pytest

from pixelnet_tf.cases.detect import detect_study
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import Layout, StudyConfig
from pixelnet_tf.errors import DataError
from tests.cases.test_layouts import touch


def names_of(layout: str) -> list[str]:
    """Files of a study of the cases A and B, with FLAIR, T1 with contrast and truth."""
    return {
        "brats": [f"{c}/{c}_{w}.nii.gz" for c in "AB" for w in ("flair", "t1ce", "seg")],
        "brats2023": [f"{c}/{c}-{w}.nii.gz" for c in "AB" for w in ("t2f", "t1c", "seg")],
        "flat": [f"{c}_{w}.nii.gz" for c in "AB" for w in ("FLAIR", "T1_Gd", "mask")],
        "nnunet": [*(f"imagesTr/{c}_000{n}.nii.gz" for c in "AB" for n in (0, 1)),
                   "labelsTr/A.nii.gz", "labelsTr/B.nii.gz", "imagesTs/T_0000.nii.gz",
                   "imagesTs/T_0001.nii.gz"],
        "msd": [f"{f}/{c}.nii.gz" for c in "AB" for f in ("imagesTr", "labelsTr")],
        "bids": [name for c in ("sub-A", "sub-B") for name in (
            f"{c}/anat/{c}_FLAIR.nii.gz", f"{c}/anat/{c}_ce-gd_T1w.nii.gz",
            f"derivatives/lesions/{c}/anat/{c}_label-lesion_mask.nii.gz",
            f"derivatives/lesions/{c}/anat/{c}_desc-brain_mask.nii.gz")],
        "pattern": [f"{c}/{w}.nii.gz" for c in "AB" for w in ("flair", "anat/t1_post", "lesion")],
    }[layout]


def write_dataset_json(folder: Path, layout: str) -> None:
    key = {"nnunet": "channel_names", "msd": "modality"}.get(layout)
    if key:
        labels = ({"background": 0, "edema": 1} if layout == "nnunet" else
                  {"0": "background", "1": "edema"})
        (folder / "dataset.json").write_text(json.dumps(
            {key: {"0": "FLAIR", "1": "T1gd"}, "labels": labels, "numTraining": 2}))


@pytest.mark.parametrize("layout", ["brats", "brats2023", "flat", "nnunet", "msd", "bids",
                                    "pattern"])
def test_each_layout_is_told_and_its_cases_are_found_by_what_was_told(tmp_path, layout):
    touch(tmp_path, *names_of(layout))
    write_dataset_json(tmp_path, layout)
    found = detect_study(tmp_path)
    assert found.layout == layout.removesuffix("2023")
    assert found.modalities == found.common_modalities == ("flair", "t1ce")
    prefix = "sub-" if layout == "bids" else ""
    assert [case.name for case in found.cases] == [f"{prefix}A", f"{prefix}B"]
    assert found.without_segmentation == ()
    assert [case.name for case in found.test_cases] == (["T"] if layout == "nnunet" else [])
    settings = found.settings()
    study = StudyConfig(**settings | {"modalities": tuple(settings["modalities"]), "regions": {}})
    assert find_cases(tmp_path, study) == [*found.cases, *found.test_cases]
    assert not any(case.faults or case.segmentation_faults for case in found.cases)
    assert found.labels == ({0: "background", 1: "edema"} if layout in ("nnunet", "msd") else
                            {0: "background", 1: "necrosis", 2: "edema", 3: "enhancing"}
                            if layout == "brats2023" else {})
    assert len(found.reasons) >= 3


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


def test_folders_that_are_no_study_end_in_words(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        detect_study(tmp_path)
    touch(tmp_path, "A/x.nii.gz", "B/y.nii.gz")
    with pytest.raises(DataError, match="no layout fits"):
        detect_study(tmp_path)
