"""Cross-validation by the command line, its average, and both as an export."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.cases.split import Split
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.several import Runs
from pixelnet_tf.training import cross_validation
from pixelnet_tf.volumes.phantom_study import write_phantom
from tests.main_job import run_main

TINY = [f"--set={option}" for option in (
    "prepare.bias_field.enabled=false", "split.test=1", "split.validation=0", "split.folds=2",
    "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
    "sampling.pixels=60", "training.steps=1", "training.batch_slices=1")]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    """`study`, `prepared` (two folds and a test case) and `cv`, made by the verbs, fold after
    fold (`one_fold` is the state between); not to be changed."""
    folder = tmp_path_factory.mktemp("cv")
    write_phantom(folder / "study", 3, 1, size=(30, 28, 8))
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", folder / "study",
                    "--out", folder / "prepared", "--workers", 1) == 0
    assert train(folder, "--folds", "0") == 0
    shutil.copytree(folder / "cv", folder / "one_fold")
    assert train(folder, "--folds", "all") == 5
    assert train(folder, "--folds", "all", "--resume") == 0
    return folder


def train(job, *more) -> int:
    return run_main("train", "--config", "phantom", *TINY, "--data", job / "prepared",
                    "--out", job / "cv", *more)


def test_what_a_cross_validation_holds(job):
    cv, split = job / "cv", px.PreparedStudy.open(job / "prepared").split
    for number in (0, 1):
        run = RunFolder(str(cv / f"fold_{number}"))
        assert run.split() == split.fold(number)
        assert Path(run.file("model.keras")).is_file()
    assert Split.from_json(json.loads((cv / "split.json").read_text())) == split
    held_out = sorted((*split.train, *split.validation))
    scored = px.evaluate(cv / "out_of_fold" / "predictions", cv / "out_of_fold" / "truth")
    assert sorted(scored.evaluation.scores) == held_out
    summary = json.loads((cv / "out_of_fold" / "summary.json").read_text())
    assert summary["trained_on"] == []
    assert summary["per_case"] == json.loads(json.dumps(scored.evaluation.to_json()["per_case"]))
    # The truth is that of the study.
    case = held_out[0]
    truth, own = (np.asarray(nib.load(path).dataobj) for path in (
        cv / "out_of_fold" / "truth" / f"{case}.nii.gz",
        job / "study" / case / f"{case}_seg.nii.gz"))
    np.testing.assert_array_equal(truth, own)
    decisions = json.loads((cv / "decisions.json").read_text())
    assert sorted(decisions["cases"]) == held_out
    assert decisions["networks"] == 2
    assert run_main("check", cv) == 0


def test_what_has_ended_is_kept_and_all_folds_count(job):
    """The second call trained the other fold, and scored and decided over both."""
    for file in ("model.keras", "log.jsonl"):
        kept = (job / folder / "fold_0" / file for folder in ("one_fold", "cv"))
        assert next(kept).read_bytes() == next(kept).read_bytes()
    before, after = (json.loads((job / folder / "decisions.json").read_text())
                     for folder in ("one_fold", "cv"))
    split = px.PreparedStudy.open(job / "prepared").split
    assert before["cases"] == list(split.folds[0])
    assert sorted(after["cases"]) == sorted((*split.folds[0], *split.folds[1]))
    assert not (job / "one_fold" / "fold_1").exists()


@pytest.mark.parametrize(("folds", "words", "code"), [
    ("2", "fold 2 does not exist; the folds are 0 to 1", 2), ("a", "--folds takes all, or", 2),
    ("", "--folds takes all, or", 2), ("0,-1", "--folds takes all, or", 2)])
def test_folds_that_there_are_not(job, capsys, folds, words, code):
    assert train(job, "--folds", folds, "--dry-run") == code
    assert words in capsys.readouterr().err


def test_one_training_and_a_cross_validation_do_not_share_a_folder(job, main_job, capsys):
    assert run_main("train", "--config", "phantom", *TINY, "--data", job / "prepared",
                    "--out", main_job / "run", "--folds", "all", "--resume") == 5
    assert "is a single training" in capsys.readouterr().err
    assert train(job, "--folds", "0", "--fold", "1") == 2


def test_the_folder_and_a_pattern_stand_for_all_folds(job, tmp_path):
    cv = job / "cv"
    for path in (cv, cv / "fold_*"):
        found = Runs.find([str(path)])
        assert [Path(run.path).name for run in found.runs] == ["fold_0", "fold_1"]
        assert found.whole is not None
        assert found.decisions().networks == 2
    model = px.Segmenter.from_run(cv, same_split=True)
    assert "held-out cases of 2 folds decided" in model.follows
    # Of some folds alone nothing was decided, and they have no common split.
    alone = Runs.find([str(cv / "fold_0")])
    assert (alone.whole, len(alone.runs)) == (None, 1)
    with pytest.raises(ModelError, match="no run fits this pattern"):
        Runs.find([str(cv / "flod_*")])
    (tmp_path / "fold_0").mkdir()
    shutil.copy(cv / "fold_0" / "config.yaml", tmp_path / "fold_0")
    with pytest.raises(ModelError, match="the training of this fold has not ended"):
        Runs.find([str(tmp_path)])


def test_a_network_is_judged_by_cases_that_it_has_not_seen(job, tmp_path, monkeypatch):
    shutil.copytree(job / "cv", tmp_path / "cv")
    (tmp_path / "cv" / "decisions.json").unlink()
    heard, decided = [], cross_validation.decide_over

    def decide_over(judged, *more):
        heard.extend(judged)
        return decided(judged, *more)

    monkeypatch.setattr(cross_validation, "decide_over", decide_over)
    assert run_main("train", "--config", "phantom", *TINY, "--data", job / "prepared",
                    "--out", tmp_path / "cv", "--folds", "all", "--resume") == 0
    assert len(heard) == 2
    for each in heard:
        split = each.model.__self__.split()
        assert set(each.cases) == set(split.test)
        assert not {*split.train, *split.validation}.intersection(each.cases)


def test_decisions_for_the_former_network_of_a_fold_are_not_followed(job, tmp_path):
    cv = tmp_path / "cv"
    shutil.copytree(job / "cv", cv)
    (cv / "manifest.jsonl").unlink()
    decided = Runs.find([str(cv)]).decisions()
    assert len(decided.files) == 2
    shutil.rmtree(cv / "fold_1")
    assert run_main("train", "--config", "phantom", *TINY, "--set", "training.seed=5", "--data",
                    job / "prepared", "--out", cv / "fold_1", "--fold", 1) == 0
    assert Runs.find([str(cv)]).decisions() is None
    packed = px.Segmenter.from_run(cv).pack(tmp_path / "model.zip")
    assert "decisions.json" not in zipfile.ZipFile(packed).namelist()
    other = json.loads((cv / "decisions.json").read_text())
    # As an earlier version wrote it: nothing is known of the networks.
    (cv / "decisions.json").write_text(json.dumps({**other, "files": []}))
    assert Runs.find([str(cv)]).decisions() is not None
    packed = px.Segmenter.from_run(cv).pack(tmp_path / "earlier.zip")
    assert "decisions.json" in zipfile.ZipFile(packed).namelist()


def test_decisions_for_other_folds_are_not_followed(job, tmp_path):
    shutil.copytree(job / "cv", tmp_path / "cv")
    path = tmp_path / "cv" / "decisions.json"
    tree = json.loads(path.read_text())
    (tmp_path / "cv" / "manifest.jsonl").unlink()
    path.write_text(json.dumps({**tree, "cases": tree["cases"][:1]}))
    model = px.Segmenter.from_run(tmp_path / "cv")
    assert "held-out" not in model.follows


def test_the_average_and_its_export_give_the_same_labels(job, tmp_path):
    """With a fitted prior, whose one strength is that of the decisions."""
    cv = tmp_path / "cv"
    shutil.copytree(job / "cv", cv)
    (cv / "manifest.jsonl").unlink()
    tree = json.loads((cv / "decisions.json").read_text())
    tree |= {"strength": 0.3, "settings": {"prior": "fitted", "class_offsets": {"edema": 0.2}}}
    (cv / "decisions.json").write_text(json.dumps(tree))
    split = px.PreparedStudy.open(job / "prepared").split
    model = px.Segmenter.from_run(cv, overrides=["prediction.probability_maps=true"],
                                  same_split=True)
    summary = model.predict_study(job / "prepared", tmp_path / "found", split="test")
    assert summary.segmented == split.test
    case, = split.test
    images = {name: job / "study" / case / f"{case}_{name}.nii.gz" for name in model.modalities}
    mine = model.predict(images)
    labels = np.asarray(nib.load(tmp_path / "found" / f"{case}.nii.gz").dataobj)
    np.testing.assert_array_equal(labels, mine.labels)
    assert len(np.unique(labels)) > 1
    target = model.export(tmp_path / "models", name="both")
    about = json.loads((target / "serving.json").read_text())
    assert len(about["networks"]) == 2
    assert about["prior"]["strength"] == 0.3
    assert "the mean of those of 2 such networks" in (target / "model_card.md").read_text()
    exported = px.Segmenter.from_export(target).predict(images)
    np.testing.assert_array_equal(exported.labels, mine.labels)
    np.testing.assert_allclose(exported.probabilities, mine.probabilities, atol=1e-6)
    np.testing.assert_allclose(about["prior"]["correction"], np.mean([
        replace(run.priors(), strength=0.3).correction("fitted") for run in
        Runs.find([str(cv)]).runs], axis=0) + np.float32([0, 0, 0.2, 0]), rtol=1e-6)


def test_folds_of_a_study_without_any(tmp_path, main_job):
    from pixelnet_tf.api.study import make_cross_validation

    with pytest.raises(ConfigError, match="prepared without folds"):
        make_cross_validation(main_job / "prepared", "phantom", tmp_path / "cv")
