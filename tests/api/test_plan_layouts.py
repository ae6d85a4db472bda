"""A plan of one study in every layout: what it finds is right, and `prepare` takes it as it is."""

import json
from dataclasses import replace

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.phantom import draw_brats_case
from pixelnet_tf.config import config_from_yaml
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from tests.dicom_study import write_series
from tests.study_forms import LAYOUTS, write_image, write_study

AFFINE = np.diag([-12.5, -12.5, 9.0, 1.0])
ENDINGS = {"flat": ".nrrd", "pattern": ".mgz", "bids": ".hdr", "isles2017": ".mha"}


@pytest.fixture(scope="module")
def cases():
    drawn = {f"case_{n}": draw_brats_case(0, n, (16, 16, 16)) for n in (1, 2, 3)}
    return {name: {"first": case.volumes["flair"], "second": case.volumes["t1ce"],
                   "seg": (case.labels > 0).astype(np.uint8)} for name, case in drawn.items()}


def write_dicom(folder, cases):
    """Two series and a truth in NIfTI a case."""
    for case, arrays in cases.items():
        for number, (key, text) in enumerate((("first", "AX T2 FLAIR"), ("second", "Ax T1 +C"))):
            write_series(folder / case, arrays[key], AFFINE, text, number=number, patient=case,
                         prefix=key)
        if "seg" in arrays:
            write_image(folder / case / f"{case}_seg.nii.gz", arrays["seg"], AFFINE)


@pytest.mark.parametrize("layout", [*LAYOUTS, "dicom"])
def test_a_plan_of_every_layout_prepares_without_an_edit(tmp_path, cases, layout):
    folder = tmp_path / "study"
    if layout == "dicom":
        write_dicom(folder, cases)
    else:
        write_study(folder, layout, cases, AFFINE, ENDINGS.get(layout, ".nii"))
    found = px.plan(folder, trial=False)
    study = found.config.study
    assert study.layout == {"brats2023": "brats", "isles2017": "isles", "isles2022": "isles"
                            }.get(layout, layout)
    assert study.modalities == (("dwi", "adc") if "isles" in layout else ("flair", "t1ce"))
    if layout == "brats2023":
        assert study.labels == {0: "background", 1: "necrosis", 2: "edema", 3: "enhancing"}
        assert study.regions == {"ET": (3,), "WT": (1, 2, 3), "TC": (1, 3)}
    else:
        assert study.labels == {0: "background", 1: "lesion"}
    config = config_from_yaml(found.yaml(), "the plan")
    summary = prepare_study(config, folder, tmp_path / "prepared", dry_run=True)
    assert len(summary.split.cases) == 3


def test_a_truth_whose_voxels_are_in_another_order_than_the_series_is_prepared(tmp_path, cases):
    """DICOM is right-handed, and a NIfTI file may be left-handed: LAS, as ISLES 2022."""
    write_dicom(tmp_path / "study", cases)
    mirrored = AFFINE @ np.diag([1, 1, -1, 1])
    mirrored[:3, 3] = AFFINE[:3, :3] @ [0, 0, 15]
    for case, arrays in cases.items():
        write_image(tmp_path / "study" / case / f"{case}_seg.nii.gz", arrays["seg"][..., ::-1],
                    mirrored)
    found = px.plan(tmp_path / "study", trial=False)
    assert found.config.study.resample
    summary = prepare_study(found.config, tmp_path / "study", tmp_path / "prepared", dry_run=True)
    assert len(summary.split.cases) == 3


def test_a_data_set_with_regions_class_order_is_planned_and_prepared_region_based(tmp_path, cases):
    """nnU-Net's way to ask for it; the paper's preset keeps the softmax."""
    folder = tmp_path / "study"
    whole = {name: {**arrays, "seg": arrays["seg"] + (arrays["second"] > np.percentile(
        arrays["second"], 97)) * arrays["seg"]} for name, arrays in cases.items()}
    write_study(folder, "nnunet", whole, AFFINE)
    about = json.loads((folder / "dataset.json").read_text())
    about["labels"] = {"background": 0, "whole": [1, 2], "core": 2}
    about["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(about))
    found = px.plan(folder, trial=False)
    config = config_from_yaml(found.yaml(), "the plan")
    assert config == found.config
    assert config.model.region_based
    assert config.score_names == ("whole", "core")
    assert config.study.region_order() == {"whole": 1, "core": 2}
    reasons = {each.key: each.reason for each in found.settings}
    assert reasons["study.regions_class_order"] == "dataset.json has it"
    summary = prepare_study(config, folder, tmp_path / "prepared", workers=1)
    assert len(summary.split.cases) == 3
    # What prepares once is trained with either loss.
    assert PreparedStudy.open(tmp_path / "prepared").config.scored_regions == ((1, 2), (2,))


@pytest.mark.parametrize("layout", ["brats", "dicom"])
def test_a_modality_that_one_case_has_twice_is_not_left_out_of_all(tmp_path, cases, layout):
    """It is told by `plan`, and refused by the next verb."""
    folder = tmp_path / "study"
    if layout == "dicom":
        write_dicom(folder, cases)
        write_series(folder / "case_2", cases["case_2"]["first"], AFFINE, "AX T2 FLAIR", number=9,
                     patient="case_2", prefix="again")
        words = "2 series fit"
    else:
        write_study(folder, layout, cases, AFFINE)
        write_image(folder / "case_2" / "case_2_FLAIR.nii.gz", cases["case_2"]["first"], AFFINE)
        words = "2 files fit"
    found = px.plan(folder, trial=False)
    assert found.config.study.modalities == ("flair", "t1ce")
    assert any(words in note and "1 of 3 cases" in note for note in found.notes)
    with pytest.raises(DataError, match=words):
        prepare_study(found.config, folder, tmp_path / "prepared", dry_run=True)


@pytest.mark.parametrize("layout", ["brats", "flat", "nnunet", "bids", "dicom"])
def test_cases_without_a_truth_are_set_aside_in_every_layout(tmp_path, cases, layout, monkeypatch):
    """They are test cases beside those that are drawn, whether the layout parts them or not; the
    folder is looked through once."""
    folder, last = tmp_path / "study", "case_3"
    some = {name: {key: array for key, array in arrays.items() if (name, key) != (last, "seg")}
            for name, arrays in cases.items()}
    if layout == "dicom":
        write_dicom(folder, some)
    else:
        write_study(folder, layout, some, AFFINE, ENDINGS.get(layout, ".nii"))
    found = px.plan(folder, trial=False)
    said = [each.reason for each in found.settings if each.key == "split.unlabelled"]
    assert said == ([] if layout in ("nnunet", "msd") else [
        "1 cases without a segmentation are segmented, not learned from and not scored"])
    config = config_from_yaml(found.yaml(), "the plan")
    looks: list[object] = []
    monkeypatch.setattr("pixelnet_tf.dataset.prepare_study.find_cases",
                        lambda *asked: looks.append(asked) or find_cases(*asked))
    summary = prepare_study(config, folder, tmp_path / "prepared", dry_run=True)
    assert len(looks) == 1
    blind, = (name for name in summary.split.cases if "case3" in name.replace("_", ""))
    assert blind in summary.split.test
    assert "can be predicted, not scored" in " ".join(summary.notes)
    if said:
        strict = replace(config, split=replace(config.split, unlabelled="refuse"))
        with pytest.raises(DataError, match="segmentation is missing"):
            prepare_study(strict, folder, tmp_path / "prepared", dry_run=True)
