"""The picture under an overlay, from a raw and from a prepared study."""

from __future__ import annotations

import numpy as np
import pytest

from pixelnet_tf.config import load_config
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.case_images import image_reader
from pixelnet_tf.volumes.nifti import read_volume
from pixelnet_tf.volumes.phantom_study import write_phantom

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false"])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_phantom(folder, 3, 0, size=(32, 28, 12))
    return folder


def test_raw_study_gives_the_first_modality(phantom):
    read = image_reader(phantom, CONFIG.study)
    expected, _ = read_volume(phantom / "phantom_002" / "phantom_002_flair.nii.gz")
    shown = read("phantom_002")
    np.testing.assert_array_equal(shown.image, expected)
    assert shown.modality == "flair"
    # Skull-stripped: the brain is what is not zero, but for its holes.
    assert shown.brain[expected > 0].all()
    assert shown.brain.mean() < 0.6
    assert read("unknown") is None


def test_prepared_study_gives_the_same_grid(phantom, tmp_path):
    from pixelnet_tf.dataset.prepare_study import prepare_study
    prepare_study(CONFIG, phantom, tmp_path / "prepared", workers=1)
    raw = image_reader(phantom, CONFIG.study)("phantom_002")
    read = image_reader(tmp_path / "prepared", CONFIG.study)
    prepared = read("phantom_002")
    assert (prepared.image.shape, prepared.modality) == (raw.image.shape, "flair")
    np.testing.assert_array_equal(prepared.brain, raw.brain)
    # The z-score is one straight line over the brain; a flipped axis would break it.
    brain = prepared.brain
    assert np.corrcoef(prepared.image[brain], raw.image[brain])[0, 1] > 0.9999
    assert read("unknown") is None


def test_refuses_a_folder_that_is_neither(tmp_path):
    with pytest.raises(DataError, match="no case found"):
        image_reader(tmp_path, CONFIG.study)
