"""TensorFlow Serving's JSON forms, without a model."""

import base64
import json

import numpy as np
import pytest

from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.predict_json import (
    PredictCall,
    Signature,
    TensorInfo,
    parse_predict,
    render_predict,
)


def info(dtype, *shape) -> TensorInfo:
    return TensorInfo("x:0", np.dtype(dtype), "DT", shape)


SIGNATURES = {
    "serving_default": Signature({"image": info(np.float32, None, 2)}, {}),
    "two": Signature({"a": info(np.int32, None), "b": info(bool, None)}, {}),
    "text": Signature({"s": info(object, None)}, {}),
}


def parse(tree, signature="serving_default"):
    body = tree if isinstance(tree, bytes) else json.dumps(
        {"signature_name": signature, **tree}).encode()
    return parse_predict(body, SIGNATURES, ServerLimits())


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


def answer(outputs, by_row, limits=None):
    return json.loads(render_predict(PredictCall("x", {}, by_row), outputs,
                                     limits or ServerLimits()))


def test_answers():
    outputs = {"labels": np.array([1, 2], np.uint8), "share": np.float32([[0.5], [1]])}
    assert answer(outputs, True) == {
        "predictions": [{"labels": 1, "share": [0.5]}, {"labels": 2, "share": [1]}]}
    assert answer(outputs, False) == {"outputs": {"labels": [1, 2], "share": [[0.5], [1]]}}
    one = {"labels": outputs["labels"]}
    assert answer(one, True) == {"predictions": [1, 2]}
    assert answer(one, False) == {"outputs": [1, 2]}


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("shape", [(3,), (8200,), (2, 3, 4), (2, 8200), (4100, 2),
                                   (3, 30, 60, 2), (1, 1, 8193), (2, 0)])
def test_an_answer_in_blocks_is_what_json_makes_of_the_whole(shape, by_row):
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    text = np.array([f"{n}".encode() for n in range(value.size)], object).reshape(shape)
    outputs = {"share": value, "some_bytes": text, "word": text}
    plain = {"share": value.tolist(),
             "some_bytes": [{"b64": base64.b64encode(b).decode()} for b in text.flat],
             "word": [b.decode() for b in text.flat]}
    found = answer(outputs, by_row)
    if by_row:
        assert [row["share"] for row in found["predictions"]] == plain["share"]
        columns = {key: [row[key] for row in found["predictions"]] for key in outputs}
    else:
        columns = found["outputs"]
        assert columns["share"] == plain["share"]
    for key in ("some_bytes", "word"):
        assert flat(columns[key]) == plain[key]
        assert answer({key: outputs[key]}, by_row) == {
            "predictions" if by_row else "outputs": columns[key]}


def flat(tree) -> list:
    return [item for part in tree for item in flat(part)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_say_is_no_answer(value):
    with pytest.raises(ApiError, match="'share' of the answer is not finite") as caught:
        answer({"share": np.array([0, value])}, False)
    assert caught.value.status == 400


def test_an_answer_has_a_longest_length():
    share = np.zeros((2**20 // 24) + 1)
    with pytest.raises(ApiError, match="longer than 1 MiB") as caught:
        answer({"share": share}, False, ServerLimits(answer_mib=1))
    assert caught.value.status == 413
    assert answer({"share": share[:-1]}, False, ServerLimits(answer_mib=1))


@pytest.mark.parametrize("other", [np.zeros(3), np.array(0.0)])
def test_outputs_that_are_no_rows(other):
    with pytest.raises(ApiError, match="column form"):
        answer({"a": np.zeros(2), "b": other}, True)


def test_strings_go_out_as_text_or_as_base64():
    outputs = {"name": np.array([b"ab\0"], object), "raw_bytes": np.array([b"\xff"], object)}
    assert answer(outputs, False) == {"outputs": {"name": ["ab\0"],
                                                  "raw_bytes": [{"b64": "/w=="}]}}
    assert answer(outputs, True) == {"predictions": [{"name": "ab\0",
                                                      "raw_bytes": {"b64": "/w=="}}]}
