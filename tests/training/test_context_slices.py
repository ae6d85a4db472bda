"""A training whose hypercolumns reach into neighbouring slices, to its end."""

from dataclasses import replace

import numpy as np
import pytest

from pixelnet_tf.config import config_from_dict, config_to_dict
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.runs.keras_file import load_model
from pixelnet_tf.training.loop import Trainer


def test_slabs_of_each_plane_train_what_is_beside_and_validation_decides(
        planes_study, tiny_config, tmp_path):
    planes = planes_study.config.model.planes
    config = replace(
        tiny_config, model=replace(tiny_config.model, context_slices=3, border=16, planes=planes),
        sampling=replace(tiny_config.sampling, slab_slices=2),
        training=replace(tiny_config.training, steps=2))
    trainer = Trainer(config, planes_study, planes_study.split, str(tmp_path / "run"))
    assert trainer.schedule.slab == 2
    model = trainer.run()
    decided = trainer.run_folder.decisions()
    assert decided.cases == planes_study.split.validation
    assert [trial.step for trial in decided.tried][:2] == ["prior", "class_offsets.edema"]
    again = load_model(str(tmp_path / "run" / "model.keras"))
    assert again.config.context_slices == 3
    assert again.config.planes == planes
    for name in ("fc6_new_below1", "fc6_new_above1"):
        kernel = model.parts[name].kernel.numpy()
        assert np.abs(kernel).max() > 0
        np.testing.assert_array_equal(again.parts[name].kernel, kernel)
    assert SliceSegmenter(again).reach == 1


def test_lesions_are_not_laid_into_one_slice_of_several(tiny_config):
    tree = config_to_dict(tiny_config)
    with pytest.raises(ConfigError, match=r"with model\.context_slices=3 those beside it are seen"):
        config_from_dict(tree, overrides=["model.context_slices=3", "sampling.lesion_mixing=0.5"])
