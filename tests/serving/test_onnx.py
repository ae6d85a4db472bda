"""ONNX: the sparse form agrees with TensorFlow; the dense one has an op without conversion."""

import json

import numpy as np
import pytest

from pixelnet_tf.serving.export import export_model
from pixelnet_tf.serving.signatures import build_signatures

from .conftest import asked, slices_with_brain

tf2onnx = pytest.importorskip("tf2onnx", reason="needs pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install '.[onnx]'")


def test_scores_within_a_ten_thousandth(run, local, tmp_path):
    target = export_model(run, asked(run, prior="sampled"), tmp_path, "tiny",
                          model_format="onnx")
    about = json.loads((target / "serving.json").read_text())
    assert about["onnx"]["largest_difference"] <= 1e-4
    assert list(about["signatures"]) == ["classify_pixels"]
    session = onnxruntime.InferenceSession(str(target / "model.onnx"),
                                           providers=["CPUExecutionProvider"])
    image = slices_with_brain(2, 45, 39)
    pixels = np.array([[0, 0, 0], [1, 20, 30], [0, 44, 38]], np.int32)
    scores, = session.run(["scores"], {"image": image, "pixels": pixels})
    dense = local.scores(image, np.ones(image.shape[:3], bool)).numpy()
    np.testing.assert_allclose(scores, dense[tuple(pixels.T)], atol=1e-4)


def test_the_op_that_stands_in_the_way_of_the_dense_form(local, serving_config, caplog):
    function = build_signatures(local, serving_config)[1]["serving_default"]
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature,
                                             opset=17)
    assert "TensorListConcatV2] is not supported" in caplog.text
    with pytest.raises(Exception, match="INVALID_GRAPH"):
        onnxruntime.InferenceSession(model.SerializeToString(),
                                     providers=["CPUExecutionProvider"])
