"""TensorFlow Serving's JSON forms, without a model."""

import base64
import json

import numpy as np
import pytest

from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.loaded_model import Signature, TensorInfo
from pixelnet_tf.serving.predict_json import PredictCall, parse_predict, render_predict


def info(dtype, *shape) -> TensorInfo:
    return TensorInfo("x:0", np.dtype(dtype), "DT", shape)


class Model:
    """A model of which only the signatures matter."""

    signatures = {  # noqa: RUF012
        "serving_default": Signature({"image": info(np.float32, None, 2)}, {}),
        "two": Signature({"a": info(np.int32, None), "b": info(bool, None)}, {}),
        "text": Signature({"s": info(object, None)}, {}),
    }


def parse(tree, signature="serving_default"):
    body = tree if isinstance(tree, bytes) else json.dumps(
        {"signature_name": signature, **tree}).encode()
    return parse_predict(body, Model(), ServerLimits())


@pytest.mark.parametrize(("tree", "by_row"), [
    ({"instances": [[1, 2], [3, 4.5]]}, True),
    ({"instances": [{"image": [1, 2]}, {"image": [3, 4.5]}]}, True),
    ({"inputs": [[1, 2], [3, 4.5]]}, False),
    ({"inputs": {"image": [[1, 2], [3, 4.5]]}}, False),
])
def test_the_forms_of_one_input(tree, by_row):
    call = parse(tree)
    np.testing.assert_array_equal(call.inputs["image"], np.float32([[1, 2], [3, 4.5]]))
    assert call.inputs["image"].dtype == np.float32
    assert call.by_row is by_row


def test_several_inputs_in_rows_and_columns():
    row = parse({"instances": [{"a": 1, "b": True}, {"a": 2, "b": False}]}, "two").inputs
    column = parse({"inputs": {"a": [1, 2], "b": [True, False]}}, "two").inputs
    for inputs in (row, column):
        assert inputs["a"].tolist() == [1, 2]
        assert inputs["b"].tolist() == [True, False]


def test_strings_are_base64():
    text = base64.b64encode(b"\0\xff").decode()
    for tree in ({"instances": [{"b64": text}]}, {"inputs": [{"b64": text}]},
                 {"instances": [{"s": {"b64": text}}]}):
        assert parse(tree, "text").inputs["s"].tolist() == [b"\0\xff"]


@pytest.mark.parametrize(("tree", "signature", "text"), [
    ({"instances": [["1", "2"]]}, "serving_default", "strings"),
    ({"instances": [[1, None]]}, "serving_default", "null"),
    ({"instances": [[True, False]]}, "serving_default", "true or false"),
    ({"instances": [[1, 2], [3]]}, "serving_default", "different lengths"),
    ({"instances": [[1, 2, 3]]}, "serving_default", r"shape \[1, 3\]"),
    ({"instances": [1, 2]}, "serving_default", "1 dimensions"),
    ({"instances": []}, "serving_default", "at least one instance"),
    ({"inputs": []}, "serving_default", "1 dimensions"),
    ({"inputs": {"imag": 1}}, "serving_default", "exactly the keys"),
    ({"instances": [{"image": [1, 2], "more": 1}]}, "serving_default", "not known"),
    ({"instances": [[1e39, 2]]}, "serving_default", "too large"),
    ({"inputs": {"a": [1.5], "b": [True]}}, "two", "fractions"),
    ({"inputs": {"a": [2**31], "b": [True]}}, "two", "out of range"),
    ({"inputs": {"a": [10**40], "b": [True]}}, "two", "several types"),
    ({"inputs": {"a": [1], "b": [1]}}, "two", "must be bool"),
    ({"inputs": [1]}, "two", "an object with the keys"),
    ({"instances": [{"a": 1, "b": True}, 3]}, "two", "all objects or all values"),
    ({"instances": ["plain"]}, "text", "b64"),
    ({"instances": [{"b64": "!!"}]}, "text", "not Base64"),
    ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "serving_default", "exactly one of"),
    ({}, "serving_default", "exactly one of"),
    ({"inputs": [[1, 2]]}, "serving_defautl", "did you mean 'serving_default'"),
    (b'{"instances": [[NaN, 1]]}', "", "NaN"),
    (b'{"instances": [[-Infinity, 1]]}', "", "Infinity"),
    (b"[1]", "", "must be a JSON object"),
    (b"{", "", "not JSON"),
    (b"\xff\xfe", "", "not JSON"),
    (b'{"instances": ' + b"[" * 100_000, "", "nested too deeply|not JSON"),
])
def test_what_does_not_fit_is_said(tree, signature, text):
    with pytest.raises(ApiError, match=text) as caught:
        parse(tree, signature)
    assert caught.value.status == 400


def test_answers():
    outputs = {"labels": np.array([1, 2], np.uint8), "share": np.float32([[0.5], [1]])}
    rows = json.loads(render_predict(PredictCall("x", {}, True), outputs))
    assert rows == {"predictions": [{"labels": 1, "share": [0.5]}, {"labels": 2, "share": [1]}]}
    columns = json.loads(render_predict(PredictCall("x", {}, False), outputs))
    assert columns == {"outputs": {"labels": [1, 2], "share": [[0.5], [1]]}}
    one = {"labels": outputs["labels"]}
    assert json.loads(render_predict(PredictCall("x", {}, True), one)) == {"predictions": [1, 2]}
    assert json.loads(render_predict(PredictCall("x", {}, False), one)) == {"outputs": [1, 2]}


def test_strings_go_out_as_text_or_as_base64():
    outputs = {"name": np.array([b"ab"], object), "raw_bytes": np.array([b"\xff"], object)}
    answer = json.loads(render_predict(PredictCall("x", {}, False), outputs))
    assert answer == {"outputs": {"name": ["ab"], "raw_bytes": [{"b64": "/w=="}]}}
