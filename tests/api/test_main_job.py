"""The main job from Python: the same files and labels as by the command line, and its errors."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import pixelnet_tf as px
from pixelnet_tf.errors import ConfigError, DataError, ModelError
from pixelnet_tf.io.files import file_digest
from pixelnet_tf.runs.folder import RunFolder
from tests.listening import Listening
from tests.main_job import run_main

CASE = "phantom_001"


@pytest.fixture(scope="module")
def model(main_job):
    return px.Segmenter.from_run(main_job / "run", prior="corrected")


@pytest.fixture(scope="module")
def paths(main_job):
    return {m: main_job / "study" / CASE / f"{CASE}_{m}.nii.gz" for m in ("flair", "t1ce", "t2")}


def test_from_a_phantom_to_a_run(tmp_path, main_job):
    ears = Listening()
    study = px.write_phantom(tmp_path / "study", 4, seed=1, size=(30, 28, 16), reporter=ears)
    assert len(study) == 4
    assert study.check(ears) == []
    config = px.load_config(main_job / "run" / "config.yaml")
    study = px.Study.open(tmp_path / "study", config)
    prepared = study.prepare(tmp_path / "prepared", workers=1, reporter=ears)
    run = px.train(prepared, config, tmp_path / "run", reporter=ears)
    assert ears.tasks == {"drawing": (4, 4), "checking": (4, 4), "preparing": (4, 4),
                          "training": (3, 3)}
    theirs = RunFolder(str(main_job / "run")).model()
    for one, other in zip(run.model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_form_gives_the_labels_of_the_command_line(tmp_path, main_job, model, paths):
    assert run_main("predict", "--model", main_job / "run", "--data", main_job / "study",
                    "--prior", "corrected", "--case", CASE, "--out", tmp_path / "out") == 0
    file = nib.load(tmp_path / "out" / f"{CASE}.nii.gz")
    wanted = np.asarray(file.dataobj)
    images = {m: nib.load(path) for m, path in paths.items()}
    forms = {
        "paths": paths, "nibabel": images,
        "sitk": {m: sitk.ReadImage(str(path)) for m, path in paths.items()},
        "mixed": {"flair": str(paths["flair"]), "t1ce": images["t1ce"],
                  "t2": (np.asarray(images["t2"].dataobj), images["t2"].affine)}}
    for name, form in forms.items():
        result = model.predict(form, probabilities=False)
        np.testing.assert_array_equal(result.labels, wanted, err_msg=name)
        assert result.probabilities is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(model.predict(forms["sitk"]).image).T,
                                  wanted)
    result = model.predict(paths)
    assert result.save(tmp_path / "seg.nii.gz").read_bytes() == (
        tmp_path / "out" / f"{CASE}.nii.gz").read_bytes()


def test_real_scans_give_the_labels_of_the_command_line(tmp_path, shared, main_job):
    """Blocks of volumes of the BraTS layout, given as nibabel's images; to the voxel."""
    images: dict[str, dict[str, nib.Nifti1Image]] = {}
    for folder in sorted((shared / "data" / "brats_layout").iterdir()):
        name = folder.name
        images[name] = {m: nib.load(folder / f"{name}_{m}.nii.gz").slicer[60:160, 60:180, 60:90]
                        for m in ("flair", "t1ce", "t2")}
        (tmp_path / "study" / name).mkdir(parents=True)
        for modality, image in images[name].items():
            nib.save(image, tmp_path / "study" / name / f"{name}_{modality}.nii.gz")
    assert len(images) == 2
    assert run_main("predict", "--model", main_job / "run", "--data", tmp_path / "study", "--out",
                    tmp_path / "out", "--mode", "adaptive") == 0
    model = px.Segmenter.from_run(main_job / "run", mode="adaptive")
    for name, of_case in images.items():
        result = model.predict(of_case, probabilities=False)
        wanted = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(result.labels, np.asarray(wanted.dataobj))
        np.testing.assert_array_equal(result.affine, wanted.affine)
        assert 0 < np.count_nonzero(result.labels) < result.labels.size


def test_predictions_name_the_file_of_their_network(tmp_path, main_job, model):
    """`report` and `postprocess` refuse predictions of another run by it."""
    model.predict_study(main_job / "prepared", tmp_path / "out", cases=[CASE])
    network, = json.loads((tmp_path / "out" / "prediction.json").read_text())["networks"]
    assert network["file"] == file_digest(main_job / "run" / "model.keras")
    assert network["weights"] == RunFolder(str(main_job / "run")).network("corrected").digest()


def test_what_a_result_tells(tmp_path, model, paths):
    result = model.predict(paths)
    assert result.probabilities.shape == (*result.labels.shape, 4)
    np.testing.assert_allclose(result.probabilities.sum(axis=-1), 1, atol=1e-5)
    assert result.class_names == {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    np.testing.assert_array_equal(result.affine, nib.load(paths["flair"]).affine)
    volumes, voxel_ml = result.volumes_ml(), np.prod(result.spacing_mm) / 1000
    assert volumes["edema"] == pytest.approx((result.labels == 2).sum() * voxel_ml, rel=1e-5)
    assert volumes["WT"] == pytest.approx((result.labels > 0).sum() * voxel_ml, rel=1e-5)
    result.save_probabilities(tmp_path / "p.nii.gz")
    assert nib.load(tmp_path / "p.nii.gz").shape == result.probabilities.shape
    truth = paths["flair"].with_name(f"{CASE}_seg.nii.gz")
    assert len(result.plot(truth).axes) > len(result.plot().axes) > 0
    for other in ((np.zeros((3, 3, 3)), np.eye(4)), (result.labels, np.eye(4))):
        with pytest.raises(DataError, match="another grid than the reference"):
            result.plot(other)
    with pytest.raises(DataError, match=r"written as \.nii or \.nii\.gz"):
        result.save(tmp_path / "seg.png")


def test_an_export_gives_the_same(tmp_path, main_job, model, paths):
    assert run_main("export", "--model", main_job / "run", "--prior", "corrected",
                    "--out", tmp_path / "models") == 0
    exported = px.Segmenter.from_export(tmp_path / "models" / "phantom" / "1")
    mine, theirs = model.predict(paths), exported.predict(paths)
    np.testing.assert_array_equal(mine.labels, theirs.labels)
    np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-5)


def test_an_export_of_several_networks_does_not_know_how_unsure_they_are(tmp_path, main_job, paths):
    """It answers by the mean of their scores, whose entropy is another one; and there was no
    mutual information, without a word."""
    run = main_job / "run"
    for name, runs in (("one", [run]), ("two", [run, run])):
        px.Segmenter.from_run(*runs).export(tmp_path, name=name)
    asked = ["prediction.uncertainty_maps=true"]
    exported = px.Segmenter.from_export(tmp_path / "two" / "1", overrides=asked)
    served = px.Segmenter.from_server(
        "http://127.0.0.1:9/v1/models/two", overrides=asked,
        serving_json=tmp_path / "two" / "1" / "serving.json")
    for model in (exported, served):
        with pytest.raises(ConfigError, match=r"mean of their scores; predict by the runs"):
            model.predict_study(main_job / "study", tmp_path / "out", cases=[CASE])
        with pytest.raises(ConfigError, match="mean of their scores"):
            model.predict(paths, uncertainty=True)
    assert exported.predict(paths).entropy is None
    single = px.Segmenter.from_export(tmp_path / "one" / "1")
    assert single.predict(paths, uncertainty=True).entropy.max() > 0


def test_scores_are_a_table(tmp_path, main_job, model, paths):
    truth = {CASE: paths["flair"].with_name(f"{CASE}_seg.nii.gz")}
    result = model.predict(paths)
    scores = px.evaluate({CASE: result.image}, truth, "brats", config=model.config)
    assert [(row["case"], row["region"]) for row in scores] == [
        (CASE, region) for region in ("ET", "WT", "TC")]
    model.predict_study(main_job / "study", tmp_path / "out", cases=[CASE])
    assert px.evaluate(tmp_path / "out", main_job / "study", "brats") == scores
    alone = px.evaluate((result.labels, result.affine), truth[CASE], config=model.config)
    assert [row["Dice"] for row in alone] == [row["Dice"] for row in scores]
    assert scores.mean("Dice", "WT") == scores[1]["Dice"]
    scores.save(tmp_path / "scores")
    assert (tmp_path / "scores" / "cases.csv").is_file()


@pytest.mark.parametrize(("change", "value", "message"), [
    (lambda images: images.pop("t2"), "t2", "modality 't2' is missing"),
    (lambda images: images.update(t1=images["t2"]), "t1", "'t1' is no modality.*did you mean"),
    (lambda images: images.update(t2="text"), None, "text: no such file"),
    (lambda images: images.update(t2=np.zeros((3, 3, 3))), "ndarray", "does not say where it lies"),
    (lambda images: images.update(t2=(np.eye(30)[:, :28, None] * np.ones(15), np.eye(4))), None,
     "not on the grid"),
    (lambda images: images.update(t2=(np.zeros((30, 28, 16)), nib.load(images["flair"]).affine)),
     0, "every voxel is 0"),
])
def test_wrong_images_are_named(model, paths, change, value, message):
    images = dict(paths)
    change(images)
    with pytest.raises(DataError, match=message) as raised:
        model.predict(images, name="Ada")
    assert raised.value.exit_code == 3
    assert raised.value.value == value


def test_wrong_folders_are_named(tmp_path, main_job):
    with pytest.raises(ModelError, match="not a trained run"):
        px.Segmenter.from_run(tmp_path)
    with pytest.raises(ConfigError, match="at least one run"):
        px.Segmenter.from_run()
    with pytest.raises(ModelError, match=r"serving\.json"):
        px.Segmenter.from_export(tmp_path)
    with pytest.raises(DataError, match="the folder is empty"):
        px.Study.open(tmp_path)
    with pytest.raises(DataError, match="not a prepared study"):
        px.train(tmp_path, "phantom", tmp_path / "run")
    other = px.Segmenter.from_run(main_job / "run", overrides=["prepare.slice_size=64"])
    with pytest.raises(DataError, match=r"prepare\.slice_size"):
        other.predict_study(main_job / "prepared", tmp_path / "out")


def test_an_export_has_the_settings_of_its_prediction(model, main_job, tmp_path):
    assert model.export(tmp_path, name="m", dry_run=True) == tmp_path / "m" / "1"
    assert not (tmp_path / "m").exists()
    two = px.Segmenter.from_run(main_job / "run", main_job / "run")
    assert two.export(tmp_path, name="two", dry_run=True) == tmp_path / "two" / "1"
    slow = px.Segmenter.from_run(main_job / "run", mode="reference")
    with pytest.raises(ConfigError, match=r"prediction\.mode reference .* not exported"):
        slow.export(tmp_path)


def test_a_preparation_can_be_looked_at_before(main_job, tmp_path):
    config = px.load_config(main_job / "run" / "config.yaml")
    study = px.Study.open(main_job / "study", config)
    found = study.update(tmp_path / "new", workers=1, dry_run=True)
    assert (len(found.prepared), found.kept, found.index) == (4, (), None)
    assert not (tmp_path / "new").exists()
    # With the run's settings, which are written down there; the others' folder stays as it is.
    shutil.copytree(main_job / "prepared", tmp_path / "again")
    prepared = study.prepare(tmp_path / "again", workers=1)
    assert (prepared.summary.prepared, len(prepared.summary.kept)) == ((), 4)
    assert px.PreparedStudy.open(tmp_path / "again").summary is None


def test_a_network_of_caffe_gives_the_same(tmp_path, main_job, paths):
    """Out to Caffe's files and back: the same labels as from the run."""
    run = main_job / "run"
    assert run_main("export-caffe", "--model", run, "--out", tmp_path / "caffe") == 0
    border = px.load_config(run / "config.yaml").model.border
    back = px.Segmenter.from_caffe(
        tmp_path / "caffe" / "deploy.prototxt", tmp_path / "caffe" / "weights.caffemodel",
        config=run / "config.yaml", overrides=[f"model.border={border}"])
    # Caffe's network knows none of the decisions.
    mine = px.Segmenter.from_run(run, prior="sampled", overrides=[
        "prediction.decisions=ignore"]).predict(paths)
    theirs = back.predict(paths)
    np.testing.assert_array_equal(mine.labels, theirs.labels)
    np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-5)
