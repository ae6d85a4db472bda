"""A gRPC client's messages fit the exported signatures."""

import numpy as np
import pytest
import tensorflow as tf

from .conftest import slices_with_brain

predict_pb2 = pytest.importorskip(
    "tensorflow_serving.apis.predict_pb2",
    reason="needs tensorflow-serving-api (pip install '.[test-serving]')")

IMAGE = slices_with_brain(2, 40, 36)


@pytest.mark.parametrize(("signature", "inputs"), [
    ("serving_default", {"image": IMAGE}),
    ("segment_raw", {"image": IMAGE, "brain": (IMAGE != 0).any(axis=-1)}),
    ("classify_pixels", {"image": IMAGE, "pixels": np.array([[0, 3, 4]], np.int32)}),
    ("segment_encoded", {"image_bytes": np.array([row.tobytes() for row in IMAGE], object),
                         "size_yx": np.array([[40, 36]] * 2, np.int32)}),
])
def test_predict_request(exported, signature, inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    arrived = predict_pb2.PredictRequest.FromString(request.SerializeToString())

    model = tf.saved_model.load(str(exported / "tiny" / "1"))
    function = model.signatures[arrived.model_spec.signature_name]
    specs = function.structured_input_signature[1]
    assert set(arrived.inputs) == set(specs)
    for name, proto in arrived.inputs.items():
        assert tf.as_dtype(proto.dtype) == specs[name].dtype
        assert specs[name].shape.is_compatible_with([d.size for d in proto.tensor_shape.dim])
    outputs = function(**{name: tf.constant(tf.make_ndarray(proto))
                          for name, proto in arrived.inputs.items()})
    response = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    back = predict_pb2.PredictResponse.FromString(response.SerializeToString())
    for name, value in outputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(back.outputs[name]), value)
