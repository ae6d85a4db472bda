"""Other models and modes than the plain one go out with the same answers."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import config_from_dict, config_to_dict
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.serving.signatures import build_signatures

from .conftest import slices_with_brain

VALUES = np.array([0, 1, 2, 4], np.uint8)


@pytest.mark.parametrize("overrides", [
    ("prediction.mode=adaptive", "prediction.precision=bfloat16"),
    ("model.fc7=faithful", "model.fc_width=8", "model.border=100", "model.batch_norm=true",
     "model.head=linear"),
    ("prepare.region=volume",),
], ids=lambda overrides: overrides[0].partition(".")[2])
def test_saved_and_loaded(serving_config, overrides, tmp_path):
    config = config_from_dict(config_to_dict(serving_config), overrides=overrides)
    segmenter = SliceSegmenter(PixelNet(config.model, 3, 4, seed=1), np.float32([0, .1, 0, -.1]),
                          config.prediction.mode, config.prediction.precision)
    module, signatures = build_signatures(segmenter, config)
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    image = slices_with_brain(2, 40, 37)
    everywhere = "region=volume" in overrides[0]
    wanted = np.ones((2, 40, 37), bool) if everywhere else (image != 0).any(axis=-1)
    scores = segmenter.scores(image, wanted).numpy()
    loaded = tf.saved_model.load(str(tmp_path))
    outputs = loaded.signatures["serving_default"](image=tf.constant(image))
    np.testing.assert_array_equal(outputs["labels"], VALUES[scores.argmax(axis=-1)])
