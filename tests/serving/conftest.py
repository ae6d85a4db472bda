"""A tiny run, its export, and a phantom case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config, load_config
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.export import export_model
from pixelnet_tf.volumes.phantom_study import write_phantom

CASE = "phantom_001"
TINY = ("model.widths=[4,4,8,8,8]", "model.head_widths=[16]", "model.border=16",
        "prepare.bias_field.shrink_factor=2", "prepare.bias_field.iterations=[5]",
        "prediction.batch_slices=3")


@pytest.fixture(scope="session")
def serving_config() -> Config:
    """The phantom's configuration with a tiny model."""
    return load_config("phantom", TINY)


@pytest.fixture(scope="session")
def run(tmp_path_factory, serving_config) -> RunFolder:
    """A run whose model has random weights; its labels differ from pixel to pixel."""
    folder = RunFolder(str(tmp_path_factory.mktemp("run") / "run"))
    priors = ClassPriors(serving_config.study.class_names, (0.9, 0.03, 0.05, 0.02),
                         (0.4, 0.2, 0.2, 0.2), 0.5)
    folder.start(serving_config, Split((CASE, "phantom_002"), ("phantom_003",)), priors)
    model = PixelNet(serving_config.model, channels=3, classes=4, seed=3)
    # Shift the scores, so that every class wins somewhere.
    image = np.random.default_rng(5).normal(size=(2, 32, 32, 3)).astype(np.float32)
    scores = SliceSegmenter(model).scores(image, np.ones((2, 32, 32), bool)).numpy()
    last = model.parts["cls_score_new"]
    last.bias.assign(-scores.mean(axis=(0, 1, 2)) + np.array([0.01, 0, 0, 0]))
    folder.save_model(model)
    return folder


@pytest.fixture(scope="session")
def local(run) -> SliceSegmenter:
    """What the export must agree with."""
    return SliceSegmenter(run.model(), run.priors().correction("sampled"))


def asked(run: RunFolder, **prediction) -> Config:
    """The run's configuration with other settings of its prediction."""
    config = run.config()
    return replace(config, prediction=replace(config.prediction, **prediction))


@pytest.fixture(scope="session")
def exported(tmp_path_factory, run) -> Path:
    """Folder with tiny/1; not to be changed."""
    out = tmp_path_factory.mktemp("models")
    export_model(run, asked(run, prior="sampled"), out, "tiny")
    return out


def write_small_model(folder: Path, spec: tf.TensorSpec) -> None:
    """A SavedModel of other origin that loads in a fraction of an export's time."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)

    @tf.function(input_signature=[spec])
    def serve(image):
        return {"sum": tf.reduce_sum(image * module.weight)[None]}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """Folder with tiny/1, a small model of other origin; not to be changed."""
    out = tmp_path_factory.mktemp("small") / "models"
    write_small_model(out / "tiny" / "1",
                      tf.TensorSpec([None, None, None, 3], tf.float32, "image"))
    return out


@pytest.fixture(scope="session")
def registry(exported):
    """The export in memory, for applications whose start-up is not under test."""
    from pixelnet_tf.serving.registry import ModelRegistry
    registry = ModelRegistry(exported)
    registry.look()
    return registry


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """One phantom case of 36x32x6 voxels; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 1, 0, size=(36, 32, 6))
    return folder


@pytest.fixture(scope="session")
def case_files(study, serving_config) -> dict[str, Path]:
    """Modality -> file of the phantom case."""
    return {m: study / CASE / f"{CASE}_{m}.nii.gz" for m in serving_config.study.modalities}


def slices_with_brain(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise inside an ellipse, zero outside: (batch, height, width, 3) float32."""
    y, x = np.indices((height, width))
    inside = ((y / height - 0.5) / 0.4) ** 2 + ((x / width - 0.5) / 0.4) ** 2 < 1
    image = np.random.default_rng(seed).normal(size=(batch, height, width, 3))
    return (image * inside[..., None]).astype(np.float32)
