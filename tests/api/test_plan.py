"""A plan of a folder, and the whole job by one call."""

import shutil
import subprocess

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.api.check import check_folder
from pixelnet_tf.api.job import Job
from pixelnet_tf.config import config_from_yaml
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.planning.trial import TrialResult, try_out
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import read_volume, write_labels, write_volume
from tests.listening import Listening
from tests.main_job import TINY, run_main

OVERRIDES = tuple(option.removeprefix("--set=") for option in TINY)


@pytest.fixture(scope="module")
def found(main_job):
    return px.plan(main_job / "study", trial=False)


def test_a_plan_of_the_phantom_prepares_without_an_edit(main_job, found, tmp_path, capsys):
    study = found.config.study
    assert (study.layout, study.modalities) == ("brats", ("flair", "t1ce", "t2", "t1"))
    assert study.labels == {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    assert study.regions == {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
    assert study.skull_stripped
    assert found.preset == "laptop"
    out = tmp_path / "mine.yaml"
    assert run_main("plan", main_job / "study", "--no-trial", "--out", out) == 0
    assert f"next: pixelnet-tf prepare --config {out}" in capsys.readouterr().out
    assert run_main("plan", main_job / "study", "--no-trial", "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_main("prepare", "--config", out, "--data", main_job / "study", "--out",
                    tmp_path / "prepared", "--dry-run") == 0


def test_the_file_is_the_plan_with_every_reason(found):
    text = found.yaml()
    assert config_from_yaml(text, "text") == found.config
    assert max(map(len, text.splitlines())) <= 100
    for setting in found.settings:
        assert all(word in text for word in setting.reason.split()), setting
    assert "4 cases" in text
    assert text.count("\nstudy:\n") == 1


def test_settings_of_the_call_come_before_the_rules(main_job):
    found = px.plan(main_job / "study", trial=False, overrides=OVERRIDES)
    assert found.config.training.steps == 3
    assert not found.config.prepare.bias_field.enabled
    assert "as the call says" in found.yaml()
    found = px.plan(main_job / "study", trial=False, overrides=["split={test: 3}"])
    assert (found.config.split.test, found.config.split.validation) == (3, 0.1)
    with pytest.raises(ConfigError, match=r"unknown key 'training\.stepps'"):
        px.plan(main_job / "study", trial=False, overrides=["training.stepps=3"])


def test_a_trial_fits_the_steps_and_tells_the_costs(main_job, monkeypatch):
    result = TrialResult("CPU", 0.1, 0.2, 10**9, 0.01, 0.02, 10**9)
    monkeypatch.setattr("pixelnet_tf.api.plan.try_out", lambda *given: result)
    found = px.plan(main_job / "study", minutes=1)
    assert 200 <= found.config.training.steps <= 300
    assert [cost.verb for cost in found.costs] == ["prepare", "train", "predict", "evaluate"]
    assert "1.0 GB" in found.yaml()
    assert "passes over the slices" in found.yaml()
    monkeypatch.setattr("pixelnet_tf.api.plan.try_out", lambda *given: "a trial failed: x")
    found = px.plan(main_job / "study")
    assert found.config.training.steps == 900
    assert "a trial failed: x: time and memory are not known" in found.notes
    assert not found.costs


@pytest.mark.parametrize("preset", ["best", "faithful", "laptop"])
@pytest.mark.parametrize("trial", [False, True])
def test_every_preset_says_how_often_to_validate(main_job, tmp_path, monkeypatch, preset, trial):
    """By the time of a trial, or by the multiplications; and not where the call says how often."""
    result = TrialResult("CPU", 0.1, 0.2, 10**9, 0.01, 0.02, 10**9)
    monkeypatch.setattr("pixelnet_tf.api.plan.try_out", lambda *given: result)
    (tmp_path / "vgg.caffemodel").write_bytes(b"")
    asked = {"preset": preset, "trial": trial}
    if preset != "laptop":
        asked["weights"] = tmp_path / "vgg.caffemodel"
    found = px.plan(main_job / "study", **asked, overrides=["split.validation=1"])
    said, = (each for each in found.settings if each.key == "training.validate_every")
    looks = int(said.reason.split()[0])
    assert 1 <= looks <= (80 if preset == "faithful" else 15)
    steps = found.config.training.steps or found.config.training.epochs * 8
    assert 0 < said.value <= steps
    assert f"# {looks} look{'s' * (looks > 1)} at the validation cases" in found.yaml()
    found = px.plan(main_job / "study", **asked, overrides=["training.validate_every=7"])
    assert found.config.training.validate_every == 7
    found = px.plan(main_job / "study", **asked, overrides=["split.validation=0"])
    assert found.config.training.validate_every == 0


@pytest.mark.parametrize(("override", "steps", "most"), [
    ("training.steps=20000", 20_000, 15),
    # Two cases of 16 slices, four in a step, make eight steps an epoch.
    ("training.epochs=500", 500 * 8, 500)])
def test_looks_and_costs_are_those_of_the_steps_that_the_call_gives(main_job, monkeypatch, override,
                                                                    steps, most):
    """Fitted to other steps, there was a look every 74 of 20,000, and the time was theirs."""
    result = TrialResult("CPU", 0.1, 0.2, 10**9, 0.01, 0.02, 10**9)
    monkeypatch.setattr("pixelnet_tf.api.plan.try_out", lambda *given: result)
    found = px.plan(main_job / "study", preset="laptop",
                    overrides=["split.validation=1", "sampling.lesion_free_slices=1", override])
    training = found.config.training
    assert (training.steps or 8 * training.epochs) == steps
    assert 1 <= steps / training.validate_every <= most
    train, = (cost for cost in found.costs if cost.verb == "train")
    assert 60 * train.minutes == pytest.approx(0.1 * steps, rel=0.15)


@pytest.mark.parametrize(("asked", "words"), [
    ({"minutes": 5, "overrides": ["training.steps=20"]}, r"--minutes.*training\.steps.*leave"),
    ({"minutes": 5, "trial": False}, r"--minutes.*--no-trial.*training\.steps=N"),
    ({"preset": "laptop", "weights": "vgg.caffemodel"}, r"--weights.*laptop.*--preset best")])
def test_what_would_take_no_part_is_refused(main_job, asked, words):
    with pytest.raises(ConfigError, match=words):
        px.plan(main_job / "study", **asked)


def test_a_trial_measures_a_network(main_job):
    config = px.load_config("phantom", [*OVERRIDES, "model.context_slices=3",
                                        "training.solver.base_lr=auto"])
    found = try_out(config, 28, 30)
    assert isinstance(found, TrialResult), found
    assert 0 < found.step_seconds < 10
    assert 0 < found.slice_seconds < 10
    assert 10**8 < found.training_bytes < 10**10


@pytest.mark.parametrize(("ends", "words"), [
    (subprocess.CompletedProcess([], 1, "", "Traceback\nValueError: x\n"),
     "a trial failed: ValueError: x"),
    (subprocess.CompletedProcess([], -9, "", ""), "memory did not suffice for a trial"),
    (subprocess.TimeoutExpired([], 1), "a trial took more than 180 s")])
def test_a_trial_that_fails_is_told_of(ends, words, monkeypatch):
    def run(*arguments, **options):
        if isinstance(ends, Exception):
            raise ends
        return ends

    monkeypatch.setattr("pixelnet_tf.planning.trial.subprocess.run", run)
    assert try_out(px.Config(), 8, 8) == words


def test_the_folder_may_be_told_by_a_configuration(main_job):
    found = px.plan(main_job / "study", config="phantom", trial=False)
    assert found.config.study.modalities == ("flair", "t1ce", "t2")
    assert found.config.study.name == "phantom"


@pytest.fixture
def study(main_job, tmp_path):
    return shutil.copytree(main_job / "study", tmp_path / "study")


def test_names_that_may_be_of_centres_are_noted(study):
    names = ("siteA_1", "siteA_2", "siteB_1", "siteB_2")
    for case, name in zip(sorted(study.iterdir()), names, strict=True):
        for path in case.iterdir():
            path.rename(case / path.name.replace(case.name, name))
        case.rename(study / name)
    found = px.plan(study, trial=False)
    assert found.config.split.patient == ""
    note, = (each for each in found.notes if "centres" in each)
    assert "(siteA, siteB)" in note
    assert config_from_yaml(found.yaml(), "text") == found.config
    pattern = note.rpartition("split.patient: ")[2].strip("'")
    found = px.plan(study, trial=False, overrides=[f"split.patient='{pattern}'"])
    assert found.config.split.patient == pattern
    assert not any("centres" in each for each in found.notes)


def relabel(path, value):
    array, geometry = read_volume(path)
    write_labels(path, np.where(array == 4, value, array), geometry)


def test_masks_and_skulls_are_told_apart(study):
    for case in study.iterdir():
        array, geometry = read_volume(case / f"{case.name}_seg.nii.gz")
        write_labels(case / f"{case.name}_seg.nii.gz", array > 0, geometry)
        for path in case.glob("*_t*.nii.gz"):
            path.unlink()
    found = px.plan(study, trial=False)
    assert found.config.study.modalities == ("flair",)
    assert found.config.study.labels == {0: "background", 1: "lesion"}
    assert found.config.study.regions == {"lesion": (1,)}


def test_a_modality_that_not_every_case_has_is_left_out_of_all(study):
    """Of the sizes and grids, too: it may lie on another grid than the others."""
    for number, case in enumerate(sorted(study.iterdir())):
        path = case / f"{case.name}_flair.nii.gz"
        array, geometry = read_volume(path)
        write_volume(path, array[:20], VolumeGeometry.of((20, *array.shape[1:]), geometry.affine))
        if number == 0:
            path.unlink()
    found = px.plan(study, trial=False)
    assert found.config.study.modalities == ("t1ce", "t2", "t1")
    assert not found.config.study.resample
    assert any("sizes (columns, rows, slices) 30x28x16" in line for line in found.found)
    assert any("Not every case has flair" in line for line in found.found)


def test_what_no_study_can_be_made_of_is_said(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_main("plan", tmp_path / "empty") == 3
    assert run_main("plan", tmp_path / "nowhere") == 3
    assert run_main("run", tmp_path / "nowhere", tmp_path / "out") == 3
    assert not (tmp_path / "out").exists()
    relabel(study / "phantom_001" / "phantom_001_seg.nii.gz", 250.5)
    relabel(study / "phantom_002" / "phantom_002_seg.nii.gz", 7)
    found = px.plan(study, trial=False).config.study.labels
    assert 7 in found
    with pytest.raises(DataError, match="no image"):
        px.plan(tmp_path / "empty")


def test_the_whole_job_killed_anywhere_goes_on_to_the_same(main_job, tmp_path, capsys):
    study, out, config = main_job / "study", tmp_path / "job", main_job / "run" / "config.yaml"
    call = ("run", study, out, "--config", config)
    assert run_main(*call, "--dry-run") == 0
    assert ("left to do in " f"{out}: prepare, train, predict, evaluate, report"
            ) in capsys.readouterr().out
    assert not out.exists()

    for task, number in (("preparing", 2), ("training", 2), ("scoring", 1)):
        def stop(heard, done, task=task, number=number):
            if (heard, done) == (task, number):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Job(study, out, config=config, reporter=Listening(stop)).run()
    # The configuration need not be given again.
    assert run_main("run", study, out) == 0
    said = capsys.readouterr()
    assert "prepare: done before" in said.err
    assert "train: done before" in said.err
    assert "WT" in said.out
    for part in ("plan.yaml", "prepared", "run", "predictions", "scores", "report.html"):
        assert f"written: {out / part}" in said.out
    for one, other in zip(RunFolder(str(out / "run")).model().get_weights(),
                          RunFolder(str(main_job / "run")).model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert check_folder(out).whole
    assert not list(out.glob(".lock*"))
    with pytest.raises(ConfigError, match=r"another configuration.*give a new OUT"):
        Job(study, out, overrides=["training.steps=4"])
