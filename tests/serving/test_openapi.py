"""The server's own description, and requests drawn from it."""

from __future__ import annotations

import json
import warnings

import hypothesis
import pytest
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.limits import ServerLimits

LIMITS = ServerLimits(json_mib=1, upload_mib=1, slices=16, side=64, pixels=2**16)


@pytest.fixture(scope="module")
def app(registry):
    return build_app(registry, LIMITS, hosts=["testserver"])


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


def test_the_description_names_models_and_modalities(client):
    tree = client.get("/openapi.json").json()
    assert tree["openapi"].startswith("3.1")
    assert "security" not in tree
    assert tree["paths"]["/v1/models/{model}"]["parameters"][0]["schema"]["enum"] == ["tiny"]
    form = tree["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["flair", "t1ce", "t2"]
    assert "research use only" in tree["info"]["description"]


def test_every_route_is_described(app, client):
    import re
    described = set(client.get("/openapi.json").json()["paths"])
    routes = {re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path) for route in app.routes}
    assert routes == described


def test_every_answer_has_a_stated_status(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in set(operations) & {"get", "post"}:
            answers = operations[method]["responses"]
            assert "200" in answers
            assert all(code == "200" or "Error" in json.dumps(answer)
                       for code, answer in answers.items()), path


numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=4))
values = st.recursive(numbers, lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.sampled_from(["b64", "image", "pixels", "brain", "size_yx", "image_bytes"]),
                    inner, max_size=3)), max_leaves=12)
bodies = st.fixed_dictionaries({}, optional={
    "instances": values, "inputs": values,
    "signature_name": st.one_of(values, st.sampled_from(
        ["serving_default", "segment_raw", "classify_pixels", "segment_encoded"]))})


@hypothesis.given(bodies)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True,
                     suppress_health_check=list(hypothesis.HealthCheck))
def test_no_body_is_answered_by_a_500(client, body):
    answer = client.post("/v1/models/tiny:predict", content=json.dumps(body))
    assert answer.status_code in (200, 400, 413), (body, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]


def test_requests_drawn_from_the_description(app):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="needs pip install '.[test-serving]'")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    wanted = [not_a_server_error, checks.status_code_conformance,
              checks.content_type_conformance, checks.response_schema_conformance]
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.given(operation.as_strategy())
        @hypothesis.settings(max_examples=12, deadline=None, derandomize=True,
                             suppress_health_check=list(hypothesis.HealthCheck))
        def run(case):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = case.call()
            case.validate_response(answer, checks=wanted)
            seen.add(answer.status_code)

        run()
    assert 200 in seen
    assert seen & {400, 404}
    assert not any(code >= 500 for code in seen)
