"""A tiny study to train on, prepared once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pixelnet_tf.config import Config, load_config
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.volumes.phantom_study import write_phantom

TINY = ["prepare.bias_field.enabled=false", "split.test=1", "split.validation=1",
        "model.widths=[4, 4, 8, 8, 8]", "model.head_widths=[16]", "model.border=32",
        "sampling.pixels=100", "sampling.lesion_free_slices=0.2", "training.batch_slices=2",
        "training.steps=4", "training.checkpoint_every=2"]


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """The phantom's configuration, narrow and short."""
    return load_config("phantom", TINY)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory, tiny_config) -> PreparedStudy:
    """Four phantom cases of 32x28x10 voxels, prepared: two to train, one each to validate and
    test; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    write_phantom(folder / "study", 4, 0, size=(32, 28, 10))
    prepare_study(tiny_config, folder / "study", str(folder / "prepared"), workers=1)
    return PreparedStudy.open(folder / "prepared")


@pytest.fixture(scope="session")
def planes_study(tmp_path_factory, tiny_config) -> PreparedStudy:
    """Three phantom cases of 16x14x8 voxels, axial and sagittal slices; not to be changed."""
    folder = tmp_path_factory.mktemp("planes")
    config = replace(tiny_config, model=replace(tiny_config.model, planes=("axial", "sagittal"),
                                                border=16))
    write_phantom(folder / "study", 3, 0, size=(16, 14, 8))
    for done in (3, 0):
        # What is finished stays as it is.
        summary = prepare_study(config, folder / "study", str(folder / "prepared"), workers=1)
        assert len(summary.prepared) == done
    return PreparedStudy.open(folder / "prepared")


@pytest.fixture
def make_trainer(tiny_study, tiny_config, tmp_path):
    """A function (out, **fields of TrainingConfig) -> Trainer."""

    def make(out="run", validates=True, **fields) -> Trainer:
        config = replace(tiny_config, training=replace(tiny_config.training, **fields))
        split = tiny_study.split if validates else replace(tiny_study.split, validation=())
        return Trainer(config, tiny_study, split, str(tmp_path / out))

    return make
