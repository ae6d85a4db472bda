"""A small study on disk, and that study prepared."""

from pathlib import Path

import pytest

from pixelnet_tf.config import Config, load_config
from pixelnet_tf.volumes.phantom_study import write_phantom

NAMES = ("phantom_001", "phantom_002", "phantom_003", "phantom_004")


@pytest.fixture(scope="session")
def small_config() -> Config:
    """The phantom's configuration without bias field correction."""
    return load_config("phantom", ["prepare.bias_field.enabled=false", "split.folds=3"])


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> Path:
    """Four phantom cases of 32x28x12 voxels; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, len(NAMES), 0, size=(32, 28, 12))
    return folder


@pytest.fixture(scope="session")
def small_prepared(tmp_path_factory, small_study, small_config) -> str:
    """`small_study`, prepared; not to be changed."""
    from pixelnet_tf.dataset.prepare_study import prepare_study
    out = str(tmp_path_factory.mktemp("prepared"))
    prepare_study(small_config, small_study, out, workers=1)
    return out
