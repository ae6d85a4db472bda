"""The warm-up file, read with TensorFlow Serving's own messages."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.serving.warmup import predict_log, warmup_image

prediction_log = pytest.importorskip(
    "tensorflow_serving.apis.prediction_log_pb2",
    reason="needs tensorflow-serving-api (pip install '.[test-serving]')")


def test_the_bytes_are_a_prediction_log():
    inputs = {"image": np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3),
              "pixels": np.array([[0, 1, 2]], np.int32)}
    log = prediction_log.PredictionLog.FromString(predict_log("tiny", "classify_pixels", inputs))
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == (
        "tiny", "classify_pixels")
    assert set(request.inputs) == {"image", "pixels"}
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)


def test_every_request_of_the_export_runs(exported):
    folder = exported / "tiny" / "1"
    model = tf.saved_model.load(str(folder))
    shapes = []
    for record in tf.data.TFRecordDataset(
            str(folder / "assets.extra" / "tf_serving_warmup_requests")):
        request = prediction_log.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "tiny"
        image = tf.make_ndarray(request.inputs["image"])
        shapes.append(image.shape)
    assert shapes == [(1, 240, 240, 3), (8, 240, 240, 3)]
    out = model.signatures[request.model_spec.signature_name](image=tf.constant(image[:1]))
    assert out["labels"].shape == (1, 240, 240)


def test_the_warmup_slice_has_an_inside_and_an_outside():
    inside = (warmup_image(1, 64, 3) != 0).any(axis=-1).mean()
    assert inside == pytest.approx(np.pi * 0.2**2, abs=0.01)
