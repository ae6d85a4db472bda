"""What `export` writes, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig, config_from_dict, config_to_dict
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.inference.segmenter import Segmenter
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.about import exported_config
from pixelnet_tf.serving.export import export_model, versions_in
from pixelnet_tf.serving.predict_remotely import served_config

from .conftest import CASE, slices_with_brain


def test_the_folder(exported):
    folder = exported / "tiny" / "1"
    for name in ("saved_model.pb", "serving.json", "model_card.md",
                 "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        assert (folder / name).is_file(), name
    assert [path.name for path in (exported / "tiny").iterdir()] == ["1"]


def test_serving_json(exported, run):
    about = json.loads((exported / "tiny" / "1" / "serving.json").read_text())
    assert about["channels"] == ["flair", "t1ce", "t2"]
    assert [(c["value"], c["name"]) for c in about["classes"]] == [
        (0, "background"), (1, "necrosis"), (2, "edema"), (4, "enhancing")]
    assert about["prior"] == {"kind": "sampled", "strength": 0.5, "correction": [0, 0, 0, 0]}
    assert about["training"]["cases"] == {"train": 2, "validation": 1, "test": 0}
    assert about["use"].startswith("For research use only.")
    assert exported_config(about).study == run.config().study
    assert exported_config(about).prediction.prior == "sampled"


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
    folder = export_model(smoothed, tmp_path / "models", "tiny")
    assert "a guided filter over the slice (radius 4 pixels" in (
        folder / "model_card.md").read_text()
    image = slices_with_brain(3, 40, 44)
    model = tf.saved_model.load(str(folder))
    found = model.signatures["serving_default"](image=tf.constant(image))["probabilities"]
    segmenter = Segmenter.of(config, run.network("sampled"))
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
    target = export_model(run, tmp_path, prior="corrected", mode="adaptive")
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
    ({"mode": "reference"}, "is not exported; give --mode exact"),
    ({"prior": "best"}, "prediction.prior must be one of"),
    ({"model_format": "tflite"}, "--format must be one of"),
])
def test_refused(run, tmp_path, arguments, text):
    with pytest.raises(ConfigError, match=text):
        export_model(run, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_version_is_not_overwritten(run, exported):
    with pytest.raises(ConfigError, match="is there already"):
        export_model(run, exported, "tiny", version=1)


def test_nothing_is_left_of_a_failed_export(run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("pixelnet_tf.serving.export.write_warmup", fail)
    with pytest.raises(Exception, match="cannot be written"):
        export_model(run, tmp_path, "tiny")
    assert not list((tmp_path / "tiny").iterdir())
