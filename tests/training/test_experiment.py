"""Both samplings, both priors, over folds."""

import json
import pickle
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.io.locks import Owner
from pixelnet_tf.reporting import LogReporter
from pixelnet_tf.training import experiment
from pixelnet_tf.training.experiment import Experiment
from pixelnet_tf.volumes.nifti import read_volume, write_labels
from pixelnet_tf.volumes.phantom_study import write_phantom


@pytest.fixture(scope="module")
def folded(tmp_path_factory, tiny_config):
    """(study folder, prepared study with two folds of two cases, configuration)."""
    folder = tmp_path_factory.mktemp("folded")
    write_phantom(folder / "study", 4, 1, size=(32, 28, 10))
    config = replace(tiny_config, split=replace(tiny_config.split, test=0.0, validation=0.0,
                                                folds=2),
                     training=replace(tiny_config.training, steps=2))
    prepare_study(config, folder / "study", str(folder / "prepared"), workers=1)
    return folder / "study", PreparedStudy.open(folder / "prepared"), config


class Said(LogReporter):
    """A reporter that remembers."""

    def __init__(self):
        self.messages, self.warnings, self.segmented = [], [], []

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)

    def progress(self, task, done, total, detail=""):
        if task == "segmenting":
            self.segmented.append(detail)


def test_the_whole_comparison_and_its_second_call(folded, tmp_path, monkeypatch):
    study_dir, prepared, config = folded
    out = tmp_path / "out"

    def run(config=config):
        said = Said()
        return Experiment(config, prepared, study_dir, out, reporter=said).run(), said

    found, said = run()
    assert list(found) == ["balanced-sampled", "balanced-corrected", "uniform-sampled",
                           "uniform-corrected"]
    for name, result in found.items():
        assert sorted(result.scores) == sorted(prepared.cases)
        about = json.loads((out / name / "predictions" / "prediction.json").read_text())
        assert sorted(about["cases"]) == sorted(about["made_from"]) == sorted(prepared.cases)
        assert len(about["networks"]) == 2
        assert about["trained_on"] == []
        assert result.about["predicted_by"]["prior"] == name.split("-")[1]
    for ending in ("txt", "md", "csv", "tex"):
        text = (out / f"tables.{ending}").read_text()
        assert all(name in text for name in found)
    assert "Mean scores of uniform-sampled, 4 cases" in (out / "tables.txt").read_text()
    assert sum("cases to train" in line for line in said.messages) == 4
    assert len(said.segmented) == 16
    runs = out / "balanced" / "fold0" / "model.keras"
    stamp = runs.stat().st_mtime_ns
    # A power cut after the last step of a training can bring its lock back.
    lock = runs.parent / ".lock"
    lock.write_text(json.dumps(asdict(replace(Owner.this("train"), started="long ago"))))
    again, said = run()
    assert not lock.exists()
    assert any("died at work there" in line for line in said.warnings)
    assert runs.stat().st_mtime_ns == stamp
    assert said.segmented == []
    for name, result in again.items():
        assert result.scores == found[name].scores
    # With another clean-up the predictions are made anew, and their scores. (Of one variant, as
    # every network is traced again.)
    monkeypatch.setattr(experiment, "STRATEGIES", ("balanced",))
    monkeypatch.setattr(experiment, "PRIORS", ("sampled",))
    cleaned = replace(config, prediction=replace(config.prediction, postprocess=replace(
        config.prediction.postprocess, minimum_component={"WT": 10**6})))
    again, said = run(cleaned)
    assert runs.stat().st_mtime_ns == stamp
    assert len(said.segmented) == 4
    assert "2 segmentations that were made from something else are removed" in said.warnings[0]
    kinds = again["balanced-sampled"].emptiness("WT")
    assert (kinds["prediction_empty"], kinds["none_empty"]) == (4, 0)
    # Asked for again with other settings, the old tables would be wrong.
    longer = replace(config, training=replace(config.training, steps=3))
    with pytest.raises(ConfigError, match=r"has training\.steps=3 \(not 2\); .* a new --out"):
        run(longer)


@pytest.mark.parametrize("damage", ["missing", "label", "grid"])
def test_a_test_case_that_cannot_be_scored_is_seen_before_any_training(folded, tmp_path, damage):
    study_dir, prepared, config = folded
    shutil.copytree(study_dir, tmp_path / "study")
    path = tmp_path / "study" / "phantom_003" / "phantom_003_seg.nii.gz"
    array, geometry = read_volume(path)
    if damage == "missing":
        path.unlink()
    elif damage == "label":
        write_labels(path, array + 90, geometry)
    else:
        nib.save(nib.Nifti1Image(array.astype(np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match=r"'?phantom_003"):
        Experiment(config, prepared, tmp_path / "study", tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


def test_a_split_without_test_cases_is_refused(folded, tmp_path):
    study_dir, prepared, config = folded
    bare = PreparedStudy(prepared.path, prepared.config,
                         replace(prepared.split, test=(), folds=()), prepared.index)
    with pytest.raises(DataError, match=r"split\.folds"):
        Experiment(config, bare, study_dir, tmp_path)


class Elsewhere:
    """A stand-in for workers: what they are sent is pickled, and done here."""

    def run(self, function, cases, arguments, spare):
        for case in cases:
            done, sent, others = pickle.loads(pickle.dumps((function, case, arguments)))
            yield case, done(sent, *others)


def test_workers_do_a_fold_of_a_sampling_each(folded, tmp_path, monkeypatch):
    study_dir, prepared, config = folded
    done = []
    monkeypatch.chdir(study_dir.parent)
    for part in ("_train", "_predict"):
        monkeypatch.setattr(Experiment, part, lambda self, strategy, number, split, part=part:
                            done.append((part, strategy, number, split.test, self.out)))
    monkeypatch.setattr(Experiment, "_evaluate", lambda self, *given: None)
    monkeypatch.setattr(experiment, "comparison_tables", lambda found: [])
    monkeypatch.setattr(experiment, "paper_table", lambda result, name: None)
    monkeypatch.setattr(experiment, "render_all", lambda tables, form: "")
    Experiment(config, PreparedStudy.open("prepared"), Path("study"), tmp_path / "out").run(
        Elsewhere())
    assert done == [(part, strategy, number, prepared.split.folds[number], tmp_path / "out")
                    for strategy in ("balanced", "uniform") for number in (0, 1)
                    for part in ("_train", "_predict")]
