"""What `export` writes, and what it refuses."""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from pixelnet_tf.config import GuidedFilterConfig, config_from_dict, config_to_dict
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.evaluation.protocols import BratsProtocol, RegionScore
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.io.files import write_json
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.about import describe_export, exported_config, served_config
from pixelnet_tf.serving.export import export_model, versions_in
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.model_card import model_card

from .conftest import CASE, asked, slices_with_brain


def test_the_folder(exported):
    folder = exported / "tiny" / "1"
    for name in ("saved_model.pb", "serving.json", "model_card.md",
                 "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        assert (folder / name).is_file(), name
    assert [path.name for path in (exported / "tiny").iterdir()] == ["1"]


def test_two_exports_of_a_run_are_the_same_byte_for_byte(run, tmp_path):
    """In processes of their own, whose sets and dictionaries of words have another order each."""
    def begin(seed):
        return subprocess.Popen(
            [sys.executable, "-m", "pixelnet_tf", "export", "--model", run.path, "--name", "tiny",
             "--out", str(tmp_path / seed)], stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"})

    for process in [begin(seed) for seed in ("1", "2")]:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    first, second = ({str(path.relative_to(folder)): path.read_bytes()
                      for path in folder.rglob("*") if path.is_file()}
                     for folder in (tmp_path / "1", tmp_path / "2"))
    assert len(first) >= 7
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_a_model_that_is_dropped_leaves_nothing_behind(exported):
    """TensorFlow keeps the gradients of a loaded graph for good, and with them the whole graph."""
    def graphs():
        gc.collect()
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    def load():
        LoadedModel(exported / "tiny" / "1", "tiny", 1)

    load()
    before = graphs()
    load()
    assert graphs() == before


def test_serving_json(exported, run):
    about = json.loads((exported / "tiny" / "1" / "serving.json").read_text())
    assert about["channels"] == ["flair", "t1ce", "t2"]
    assert [(c["value"], c["name"]) for c in about["classes"]] == [
        (0, "background"), (1, "necrosis"), (2, "edema"), (4, "enhancing")]
    assert about["prior"] == {"kind": "sampled", "strength": 0, "correction": [0, 0, 0, 0]}
    assert about["training"]["cases"] == {"train": 2, "validation": 1, "test": 0}
    assert about["use"].startswith("For research use only.")
    assert exported_config(about).study == run.config().study
    assert exported_config(about).prediction.prior == "sampled"


@pytest.mark.parametrize(("prior", "strength"), [
    ("sampled", 0.0), ("corrected", 1.0), ("fitted", 0.5)])
def test_the_strength_is_the_one_that_is_applied(run, serving_config, prior, strength):
    config = replace(serving_config, prediction=replace(serving_config.prediction, prior=prior))
    about = describe_export(run, config, "tiny", 1)
    full = run.priors().correction("corrected")
    assert about["prior"]["strength"] == strength
    np.testing.assert_allclose(about["prior"]["correction"], strength * full, rtol=1e-6)


@pytest.fixture
def validated(run, tmp_path) -> RunFolder:
    """A copy of the run with a log: the best validation is neither the first nor the last."""
    shutil.copytree(run.path, tmp_path / "validated")
    rows = [{"step": step, "loss": 1.0} for step in (2, 4, 6)]
    rows += [{"step": step, "validation/dice_edema": score, "validation/score": score}
             for step, score in ((2, 0.2), (4, 0.7), (6, 0.6))]
    (tmp_path / "validated" / "log.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"])))
    return RunFolder(str(tmp_path / "validated"))


@pytest.mark.parametrize("checkpoints", [True, False])
def test_the_validation_is_that_of_the_exported_weights(validated, serving_config, checkpoints):
    if checkpoints:
        write_json(validated.file("checkpoints/state.json"), {
            "last": {"name": "last-6", "step": 6}, "best": {"name": "best-4", "step": 4,
                                                            "score": 0.7}})
    about = describe_export(validated, serving_config, "tiny", 1)
    assert about["metrics"]["validation"] == {"step": 4, "dice_edema": 0.7, "score": 0.7}
    assert (about["training"]["steps"], about["training"]["weights_step"]) == (6, 4)
    card = model_card(about)
    assert "6 steps (the weights are those after step 4)" in card
    assert "the validation, these weights (after step 4): dice_edema 0.7000" in card
    if checkpoints:
        # The last state's own scores, not the best one's.
        last = RunFolder(validated.file("checkpoints/last"))
        about = describe_export(last, serving_config, "tiny", 1)
        assert about["metrics"]["validation"]["score"] == 0.6


def test_scores_of_another_network_do_not_go_out_with_a_model(run, tmp_path):
    score = RegionScore("none_empty", dict.fromkeys(BratsProtocol().measures, 0.5),
                        dict.fromkeys(BratsProtocol().measures, True))

    def evaluation(**about) -> Evaluation:
        return Evaluation.of(BratsProtocol(), {"WT": (1, 2, 4)}, {CASE: {"WT": score}}, **about)

    weights = run.network("sampled").digest()
    by = {"networks": ["others"], "prior": "sampled", "mode": "exact"}
    with pytest.raises(ModelError, match="made by another network"):
        export_model(run, run.config(), tmp_path, "tiny", evaluation=evaluation(predicted_by=by))
    assert not (tmp_path / "tiny").exists()
    by["networks"] = [weights]
    own = describe_export(run, run.config(), "tiny", 1, evaluation(
        predicted_by=by, trained_on=[CASE], made_from={CASE: {}}), [weights])
    assert CASE not in json.dumps(own)
    card = model_card(own)
    assert "predicted with the prior sampled in mode exact; the network was trained on" in card
    unknown = describe_export(run, run.config(), "tiny", 1, evaluation(), [weights])
    assert "what they were predicted by is not on record" in model_card(unknown)


def test_no_case_is_named(exported):
    for name in ("serving.json", "model_card.md"):
        assert CASE not in (exported / "tiny" / "1" / name).read_text()


def test_the_card_says_what_matters(exported):
    card = (exported / "tiny" / "1" / "model_card.md").read_text()
    for text in ("For research use only.", "flair, t1ce, t2", "**not part of the graph**",
                 "| 3 | 4 | enhancing |", "Prior: sampled", "`segment_raw`", "2 train"):
        assert text in card, text


def test_the_guided_filter_goes_out_with_the_model(run, serving_config, tmp_path):
    config = config_from_dict(config_to_dict(serving_config), overrides=[
        "prediction.guided_filter.radius=4", "prediction.prior=sampled"])
    smoothed = RunFolder(str(tmp_path / "run"))
    smoothed.start(config, run.split(), run.priors())
    smoothed.save_model(run.model())
    folder = export_model(smoothed, config, tmp_path / "models", "tiny")
    assert "a guided filter over the slice (radius 4 pixels" in (
        folder / "model_card.md").read_text()
    image = slices_with_brain(3, 40, 44)
    model = tf.saved_model.load(str(folder))
    found = model.signatures["serving_default"](image=tf.constant(image))["probabilities"]
    segmenter = SliceSegmenter.of(config.prediction, run.network("sampled"))
    expected = tf.nn.softmax(segmenter.scores(image, (image != 0).any(axis=-1)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    about = json.loads((folder / "serving.json").read_text())
    with pytest.raises(ConfigError, match=r"prediction\.guided_filter was settled by"):
        served_config(about, lambda exported: replace(exported, prediction=replace(
            exported.prediction, guided_filter=GuidedFilterConfig(5))))


def test_a_json_of_another_program_is_refused():
    with pytest.raises(ModelError, match="export the model again"):
        exported_config({"format": 99, "config": {}})


def test_the_next_version(run, tmp_path):
    (tmp_path / "phantom" / "7").mkdir(parents=True)
    (tmp_path / "phantom" / "notes").mkdir()
    target = export_model(run, asked(run, prior="corrected", mode="adaptive"), tmp_path)
    assert target == tmp_path / "phantom" / "8"
    about = json.loads((target / "serving.json").read_text())
    assert about["mode"] == "adaptive"
    # log(real / sampled) of the first class.
    assert about["prior"]["correction"][0] == pytest.approx(0.81093, abs=1e-5)
    assert versions_in(tmp_path / "phantom") == [7, 8]


@pytest.mark.parametrize(("arguments", "text"), [
    ({"name": "../up"}, "a model's name takes letters"),
    ({"name": "a/b"}, "a model's name takes letters"),
    ({"name": ""}, "a model's name takes letters"),
    ({"version": 0}, "--version must be 1 or more"),
    ({"model_format": "tflite"}, "--format must be one of"),
])
def test_refused(run, tmp_path, arguments, text):
    with pytest.raises(ConfigError, match=text):
        export_model(run, run.config(), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_yardstick_is_not_exported(run, tmp_path):
    with pytest.raises(ConfigError, match="is not exported; give --mode exact"):
        export_model(run, asked(run, mode="reference"), tmp_path / "out")


def test_a_version_is_not_overwritten(run, exported):
    with pytest.raises(ConfigError, match="is there already"):
        export_model(run, run.config(), exported, "tiny", version=1)


def test_nothing_is_left_of_a_failed_export(run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("pixelnet_tf.serving.export.write_warmup", fail)
    with pytest.raises(Exception, match="cannot be written"):
        export_model(run, run.config(), tmp_path, "tiny")
    assert not list(tmp_path.iterdir())
