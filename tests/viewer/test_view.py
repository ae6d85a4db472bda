"""What `View` finds in folders of every kind, and how the verb refuses the others."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import urllib.request

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from pixelnet_tf import evaluate
from pixelnet_tf.api.viewing import View
from pixelnet_tf.cases.predictions import LeftOutRecord, PredictionRecord
from pixelnet_tf.config import config_to_json, load_config
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.io.files import write_json
from tests.main_job import run_main

from .conftest import SETTINGS


def kinds(case) -> list[str]:
    return [layer["key"] for layer in case.layers()]


def test_a_raw_study_is_told_by_its_names(viewed):
    source = View(viewed / "study").source
    case = next(one for one in source.cases if one.name == "las")
    assert list(case.images) == ["flair", "t2"]
    assert kinds(case) == ["image-0", "image-1", "reference"]


@pytest.mark.parametrize(("values", "names"), [
    ((1,), ["lesion"]), ((1, 2, 4), ["necrosis", "edema", "enhancing"]),
    ((2, 7), ["label_2", "label_7"])])
def test_labels_that_nobody_names_are_told_by_their_values(viewed, tmp_path, values, names):
    shutil.copytree(viewed / "study" / "ras", tmp_path / "ras")
    path = tmp_path / "ras" / "ras_seg.nii.gz"
    image = nib.load(path)
    places = np.arange(image.shape[0])[:, None, None] % len(values)
    nib.save(nib.Nifti1Image(np.where(image.get_fdata() > 0, np.array(values)[places], 0).astype(
        np.uint8), image.affine), path)
    assert list(View(tmp_path).source.study.labels.values()) == ["background", *names]


def test_a_prepared_study(main_job):
    source = View(main_job / "prepared").source
    assert kinds(source.cases[0]) == ["image-0", "image-1", "image-2", "reference", "balanced",
                                      "uniform"]
    name = source.cases[0].name
    truth = nib.load(main_job / "study" / name / f"{name}_seg.nii.gz")
    shown = nib.Nifti1Image.from_bytes(source.layer(0, "reference"))
    np.testing.assert_array_equal(shown.get_fdata(), truth.get_fdata())
    np.testing.assert_allclose(shown.affine, truth.affine, atol=1e-5)
    image = nib.Nifti1Image.from_bytes(source.layer(0, "image-0")).get_fdata()
    raw = nib.load(main_job / "study" / name / f"{name}_flair.nii.gz").get_fdata()
    # Normalised by a mean and a deviation: a straight line of the brain's raw intensities.
    assert np.corrcoef(image[raw > 0], raw[raw > 0])[0, 1] > 0.999
    for given in ({"config": "phantom"}, {"overrides": ["sampling.pixels=9"]}):
        with pytest.raises(ConfigError, match=r"own configuration; leave --config and --set out"):
            View(main_job / "prepared", **given)


def test_what_sampling_draws_of_a_slice_is_a_layer(main_job):
    source = View(main_job / "prepared").source
    config = load_config(main_job / "prepared" / "config.yaml")
    shown = {key: nib.Nifti1Image.from_bytes(source.layer(0, key)) for key in (
        "reference", "balanced", "uniform")}
    truth = np.asarray(shown["reference"].dataobj)
    for key in ("balanced", "uniform"):
        np.testing.assert_array_equal(shown[key].affine, shown["reference"].affine)
    balanced, uniform = (np.asarray(shown[key].dataobj) for key in ("balanced", "uniform"))
    values = np.array([0, 1, 2, 4])
    for drawn in (balanced, uniform):
        # Each drawn pixel is named by its own class.
        np.testing.assert_array_equal(values[drawn[drawn > 0] - 1], truth[drawn > 0])
        assert (np.count_nonzero(drawn, axis=(0, 1)) == min(
            config.sampling.pixels, truth[..., 0].size)).all()
    # The slice with most classes: each gives its share, or all that it has.
    z = int(np.argmax([len(np.unique(truth[..., k])) * 1e6 + (truth[..., k] > 0).sum()
                       for k in range(truth.shape[2])]))
    present = len(np.unique(truth[..., z]))
    for number, value in enumerate(values, start=1):
        there = np.count_nonzero(truth[..., z] == value)
        assert np.count_nonzero(balanced[..., z] == number) >= min(
            there, config.sampling.pixels // present) * (there > 0)
    assert np.count_nonzero(uniform[..., z] > 1) < np.count_nonzero(balanced[..., z] > 1)
    names = [each["name"] for each in source.to_json()["samples"]]
    assert names[:2] == ["drawn: background", "drawn: necrosis"]


def test_an_experiment_shows_every_case_as_each_part_segmented_it(viewed, tmp_path):
    for part, cases in (("balanced-sampled", ("ras", "las")), ("uniform-sampled", ("ras",))):
        folder = tmp_path / "out" / part / "predictions"
        folder.mkdir(parents=True)
        for case in cases:
            shutil.copy(viewed / "predictions" / f"{case}.nii.gz", folder)
        write_json(folder / "prediction.json", PredictionRecord(
            config=config_to_json(load_config("phantom", SETTINGS))).to_json())
        evaluate(folder, viewed / "study", overrides=SETTINGS, workers=1,
                 allow_missing=True).save(folder.parent)
    source = View(tmp_path / "out").source
    assert [case.name for case in source.cases] == [
        "las balanced-sampled", "ras balanced-sampled", "ras uniform-sampled"]
    assert [case.patient for case in source.cases] == ["las", "ras", "ras"]
    assert all(case.scores for case in source.cases)
    assert kinds(source.cases[0]) == ["image-0", "image-1", "reference", "prediction", "errors"]
    shutil.rmtree(tmp_path / "out" / "uniform-sampled")
    # As of a cross-validation: nothing has to be told apart.
    assert View(tmp_path / "out").cases == ("las", "ras")


def test_predictions_alone_lie_on_an_empty_image(viewed, tmp_path):
    shutil.copy(viewed / "predictions" / "las.nii.gz", tmp_path)
    write_json(tmp_path / "prediction.json", PredictionRecord(
        cases=("las", "lost"), left_out=(LeftOutRecord("lost", "no t2"),), trained_on=("las",),
        missing={"las": ("t2",)}, config=config_to_json(
            load_config("phantom", SETTINGS))).to_json())
    source = View(tmp_path).source
    las, lost = source.cases
    assert kinds(las) == ["grid", "prediction"]
    assert kinds(lost) == []
    assert las.warnings == ("a network has learned from this case, or was chosen by it",
                            "segmented without t2")
    assert lost.warnings == ("left out: no t2",)
    empty = nib.Nifti1Image.from_bytes(source.layer(0, "grid"))
    assert empty.shape == nib.load(tmp_path / "las.nii.gz").shape
    assert not empty.get_fdata().any()


@pytest.mark.parametrize(("region_based", "maps"), [
    ("false", ["background", "lesion"]), ("true", ["lesion"])])
def test_maps_of_probabilities_are_of_classes_or_of_regions(viewed, region_based, maps):
    source = View(viewed / "predictions", references=viewed / "study", overrides=[
        *SETTINGS, f"model.region_based={region_based}"]).source
    assert source.to_json()["maps"] == maps


def test_scores_and_what_they_were_scored_against(viewed, tmp_path):
    evaluate(viewed / "predictions", viewed / "study", overrides=SETTINGS,
             workers=1).save(tmp_path / "scores")
    source = View(viewed / "predictions", scores=tmp_path / "scores", overrides=SETTINGS).source
    by_name = {case.name: case for case in source.cases}
    assert by_name["ras"].scores == {"lesion": 1.0}
    assert 0.2 < by_name["anisotropic"].scores["lesion"] < 0.8
    # The references are those that the scores name, and they are a study with images.
    assert kinds(by_name["ras"]) == ["image-0", "image-1", "reference", "prediction", "errors",
                                     "probabilities"]
    assert "scores" not in source.measure(0)


def test_a_job_is_its_predictions_with_their_scores(viewed, tmp_path):
    shutil.copytree(viewed / "predictions", tmp_path / "predictions")
    write_json(tmp_path / "predictions" / "prediction.json", PredictionRecord(
        config=config_to_json(load_config("phantom", SETTINGS))).to_json())
    evaluate(tmp_path / "predictions", viewed / "study", workers=1).save(tmp_path / "scores")
    source = View(tmp_path).source
    assert {case.name: case.scores for case in source.cases}["ras"] == {"lesion": 1.0}


def test_references_of_other_predictions_are_refused(viewed, tmp_path):
    shutil.copy(viewed / "predictions" / "las.nii.gz", tmp_path / "other.nii.gz")
    with pytest.raises(DataError, match="no case in common"):
        View(viewed / "predictions", references=tmp_path, overrides=SETTINGS)


def test_the_verb_refuses_what_is_not_there(tmp_path, capsys):
    assert run_main("view", tmp_path / "nothing", "--no-browser") == 3
    assert "no such folder" in capsys.readouterr().err


def test_the_verb_says_where_the_page_is_and_ends_by_ctrl_c(viewed):
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelnet_tf", "view", str(viewed / "study"), "--port", "0",
         "--no-browser"], stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        assert said.startswith("4 cases at http://127.0.0.1:")
        with urllib.request.urlopen(said.split()[3], timeout=30) as page:
            assert b'data-page="view"' in page.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read().strip() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
