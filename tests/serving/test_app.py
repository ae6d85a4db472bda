"""The server's pages: what is right is answered as locally, what is wrong as a 4xx in words."""

from __future__ import annotations

import base64
import gzip
import json
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.cases.case import Case
from pixelnet_tf.errors import RunError
from pixelnet_tf.inference.volume import segment_volume
from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.json_log import JsonLog
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.registry import ModelRegistry
from pixelnet_tf.volumes.case_volume import prepare_case

from .conftest import slices_with_brain

VALUES = np.array([0, 1, 2, 4], np.uint8)
PREDICT = "/v1/models/tiny:predict"
HOSTS = ["testserver"]
LIMITS = ServerLimits(json_mib=1, upload_mib=1, slices=16, side=64, pixels=2**16)


@pytest.fixture(scope="module")
def client(registry):
    return TestClient(build_app(registry, LIMITS, hosts=HOSTS))


def expected(local, image):
    scores = local.scores(image, (image != 0).any(axis=-1)).numpy()
    return VALUES[scores.argmax(axis=-1)]


def test_health_and_readiness(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_status_as_tensorflow_serving_gives_it(client):
    for page in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
        assert client.get(page).json() == {"model_version_status": [
            {"version": "1", "state": "AVAILABLE",
             "status": {"error_code": "OK", "error_message": ""}}]}
    assert client.get("/v1/models").json() == {"models": [{"name": "tiny", "version": 1}]}


def test_metadata_as_tensorflow_serving_gives_it(client):
    tree = client.get("/v1/models/tiny/versions/1/metadata").json()
    assert tree["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signatures = tree["metadata"]["signature_def"]["signature_def"]
    image = signatures["serving_default"]["inputs"]["image"]
    assert image["dtype"] == "DT_FLOAT"
    assert [d["size"] for d in image["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "3"]
    assert signatures["segment_encoded"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"


def test_serving_json(client, exported):
    assert client.get("/v1/models/tiny/serving.json").json() == json.loads(
        (exported / "tiny" / "1" / "serving.json").read_text())


@pytest.mark.parametrize("page", [PREDICT, "/v1/models/tiny/versions/1:predict"])
def test_row_form(client, local, page):
    image = slices_with_brain(2, 30, 34)
    answer = client.post(page, json={"instances": image.tolist()})
    rows = answer.json()["predictions"]
    np.testing.assert_array_equal([row["labels"] for row in rows], expected(local, image))
    np.testing.assert_allclose(np.sum([row["probabilities"] for row in rows], axis=-1), 1,
                               atol=1e-5)
    assert answer.headers["x-model-version"] == "1"


def test_column_form_and_strings(client, local):
    image = slices_with_brain(2, 30, 34)
    column = client.post(PREDICT, json={"inputs": {"image": image.tolist()}}).json()["outputs"]
    encoded = client.post(PREDICT, json={"signature_name": "segment_encoded", "instances": [
        {"image_bytes": {"b64": base64.b64encode(row.tobytes()).decode()}, "size_yx": [30, 34]}
        for row in image]}).json()["predictions"]
    np.testing.assert_array_equal(column["labels"], expected(local, image))
    np.testing.assert_array_equal(encoded, expected(local, image))


def test_curl_needs_no_content_type(client):
    body = json.dumps({"instances": slices_with_brain(1, 24, 24).tolist()})
    answer = client.post(PREDICT, content=body,
                         headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200


def test_a_volume_comes_back_as_local_prediction_writes_it(client, local, case_files,
                                                           serving_config, tmp_path):
    answer = client.post("/v1/segment", files={
        m: ("../../etc/passwd", path.read_bytes()) for m, path in case_files.items()})
    assert answer.status_code == 200, answer.text
    (tmp_path / "seg.nii.gz").write_bytes(answer.content)
    found, first = nib.load(tmp_path / "seg.nii.gz"), nib.load(case_files["flair"])
    volume = prepare_case(Case("case", case_files), serving_config.study, serving_config.prepare)
    result = segment_volume(local, volume, serving_config.study, serving_config.prediction)
    np.testing.assert_array_equal(np.asarray(found.dataobj), result.labels)
    assert result.labels.any()
    np.testing.assert_array_equal(found.affine, first.affine)
    for code in ("qform_code", "sform_code"):
        assert found.header[code] == first.header[code]
    assert not list(Path(tempfile.gettempdir()).glob(".pixelnet-*/0.nii"))


@pytest.mark.parametrize(("fault", "status"), [
    (OSError(28, "No space left on device", "/tmp/pixelnet-scratch-x/0.nii"), 507),
    (RunError("/tmp/pixelnet-scratch-x/segmentation.nii.gz: cannot be written"), 507),
    (MemoryError(), 413)])
def test_a_server_without_room_says_so(client, case_files, monkeypatch, fault, status):
    def fail(*arguments):
        raise fault

    monkeypatch.setattr("pixelnet_tf.serving.segment_upload.write_labels", fail)
    answer = client.post("/v1/segment", files={
        m: ("x.nii.gz", path.read_bytes()) for m, path in case_files.items()})
    assert answer.status_code == status
    assert "/tmp" not in answer.text


def volume(change=None, shape=(36, 32, 6), affine=None) -> bytes:
    array = np.zeros(shape, np.float32)
    array[4:-4, 4:-4] = np.random.default_rng(0).uniform(50, 90, (shape[0] - 8, shape[1] - 8,
                                                                   shape[2]))
    if change:
        change(array)
    return nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes()


def files(**parts) -> dict:
    whole = {"flair": volume(), "t1ce": volume(), "t2": volume(), **parts}
    return {"files": {k: ("x.nii", v) for k, v in whole.items() if v is not None}}


def put(value):
    def change(array):
        array[10, 10, 3] = value
    return change


def row(image=None, **more) -> dict:
    return {"json": {"instances": np.ones((1, 24, 24, 3)).tolist() if image is None else image,
                     **more}}


ONES = np.ones((1, 24, 24, 3)).tolist()
#: Name -> method, page, what is sent, status, words of the answer.
BAD = {
    "no body": ("POST", PREDICT, {}, 400, "not JSON"),
    "not JSON": ("POST", PREDICT, {"content": b"image"}, 400, "not JSON"),
    "a list": ("POST", PREDICT, {"json": [1]}, 400, "JSON object"),
    "no instances": ("POST", PREDICT, {"json": {}}, 400, "exactly one of"),
    "both forms": ("POST", PREDICT, {"json": {"instances": ONES, "inputs": ONES}}, 400,
                   "exactly one of"),
    "empty": ("POST", PREDICT, row([]), 400, "at least one instance"),
    "empty slice": ("POST", PREDICT, row([[]]), 400, "dimensions"),
    "null": ("POST", PREDICT, row([None]), 400, "null"),
    "wrong rank": ("POST", PREDICT, row(ONES[0]), 400, "3 dimensions"),
    "wrong channel count": ("POST", PREDICT, row(np.ones((1, 24, 24, 4)).tolist()), 400,
                            "[1, 24, 24, 4]"),
    "ragged": ("POST", PREDICT, row([[[[1, 2, 3]], [[1, 2]]]]), 400, "different lengths"),
    "strings": ("POST", PREDICT, row([[[["a", "b", "c"]]]]), 400, "strings"),
    "an object": ("POST", PREDICT, row([{"picture": 1}]), 400, "exactly the keys"),
    "NaN": ("POST", PREDICT, {"content": b'{"instances": [[[[NaN, 1, 1]]]]}'}, 400, "NaN"),
    "infinite": ("POST", PREDICT, row([[[[1e300, 1, 1]]]]), 400, "too large"),
    "so large that the network overflows": ("POST", PREDICT, row(np.full((1, 24, 24, 3), 3e38)
                                            .tolist()), 400, "the network overflows"),
    "NaN in bytes": ("POST", PREDICT, {"json": {"signature_name": "segment_encoded", "inputs": {
        "image_bytes": [{"b64": base64.b64encode(np.full((8, 8, 3), np.nan, "<f4").tobytes())
                         .decode()}], "size_yx": [[8, 8]]}}}, 400, "NaN or infinity"),
    "bytes that do not fill the slice": ("POST", PREDICT, {"json": {
        "signature_name": "segment_encoded",
        "inputs": {"image_bytes": [{"b64": "AAAA"}], "size_yx": [[8, 8]]}}}, 400, "multiple of 4"),
    "a slice of 10^9 pixels": ("POST", PREDICT, {"json": {
        "signature_name": "segment_encoded",
        "inputs": {"image_bytes": [{"b64": "AAAA"}], "size_yx": [[10**9, 1]]}}}, 413,
        "1 to 64 pixels"),
    "a slice of negative size": ("POST", PREDICT, {"json": {
        "signature_name": "segment_encoded",
        "inputs": {"image_bytes": [{"b64": "AAAA"}], "size_yx": [[-1, 8]]}}}, 400, "1 to 64"),
    "unknown signature": ("POST", PREDICT, row(signature_name="classify"), 400,
                          "did you mean 'classify_pixels'"),
    "signature that is no word": ("POST", PREDICT, row(signature_name=[1]), 400, "unknown"),
    "pixel outside": ("POST", PREDICT, {"json": {"signature_name": "classify_pixels", "inputs": {
        "image": ONES, "pixels": [[0, 24, 0]]}}}, 400, "rows of n, y, x inside the image"),
    "pixels of two numbers": ("POST", PREDICT, {"json": {
        "signature_name": "classify_pixels", "inputs": {"image": ONES, "pixels": [[0, 1]]}}}, 400,
        "[1, 2]"),
    "too many slices": ("POST", PREDICT, row(np.ones((17, 2, 2, 3)).tolist()), 413,
                        "at most 16"),
    "too large slices": ("POST", PREDICT, row(np.ones((1, 65, 2, 3)).tolist()), 413, "64 pixels"),
    "too long a body": ("POST", PREDICT, {"content": b" " * (1 << 20) + b"{}"}, 413, "1 MiB"),
    "too long an announced body": ("POST", PREDICT, {
        "content": b"{}", "headers": {"content-length": "99999999999"}}, 413, "1 MiB"),
    "deeply nested": ("POST", PREDICT, {"content": b'{"instances": ' + b"[" * 200_000}, 400, ""),
    "compressed body": ("POST", PREDICT, {
        "content": gzip.compress(b"{}"), "headers": {"content-encoding": "gzip"}}, 415,
        "content encoding"),
    "wrong content type": ("POST", PREDICT, {
        "content": b"<a/>", "headers": {"content-type": "text/xml"}}, 415, "application/json"),
    "form to predict": ("POST", PREDICT, files(), 415, "application/json"),
    "unknown model": ("POST", "/v1/models/other:predict", row(), 404, "this server has"),
    "unknown version": ("POST", "/v1/models/tiny/versions/9:predict", row(), 404,
                        "serves version 1"),
    "version 0": ("GET", "/v1/models/tiny/versions/0", {}, 404, "serves version 1"),
    "version that is no number": ("GET", "/v1/models/tiny/versions/one", {}, 404, "openapi.json"),
    "version with 40 digits": ("GET", "/v1/models/tiny/versions/" + "9" * 40, {}, 404,
                               "openapi.json"),
    "unknown model's metadata": ("GET", "/v1/models/x/metadata", {}, 404, "this server has"),
    "another verb": ("POST", "/v1/models/tiny:classify", row(), 404, "openapi.json"),
    "GET to predict": ("GET", PREDICT, {}, 405, "method"),
    "DELETE": ("DELETE", "/v1/models/tiny", {}, 405, "method"),
    "unknown page": ("GET", "/admin", {}, 404, "openapi.json"),
    "path upwards": ("GET", "/v1/models/../../etc/passwd", {}, 404, ""),
    "encoded path upwards": ("GET", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", {}, 404, ""),
    "encoded separators": ("GET", "/v1/models/tiny%2f1", {}, 404, ""),
    "a zero byte in the path": ("GET", "/v1/models/tiny%00", {}, 404, ""),
    "over-long URL": ("GET", "/v1/models/" + "a" * 3000, {}, 414, "at most 2000"),
    "over-long query": ("GET", "/v1/models?" + "a" * 3000, {}, 414, "at most 2000"),
    "JSON to segment": ("POST", "/v1/segment", row(), 415, "multipart/form-data"),
    "form without boundary": ("POST", "/v1/segment", {
        "content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400,
        "form cannot be read"),
    "broken form": ("POST", "/v1/segment", {
        "content": b"--b\r\nnonsense", "headers": {
            "content-type": "multipart/form-data; boundary=b"}}, 400, ""),
    "empty form": ("POST", "/v1/segment", {
        "content": b"--b--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400, "one NIfTI file for each"),
    "missing modality": ("POST", "/v1/segment", files(t2=None), 400, "one NIfTI file for each"),
    "unknown modality": ("POST", "/v1/segment", files(t1=volume()), 400, "got"),
    "modality as text": ("POST", "/v1/segment", {**files(t2=None), "data": {"t2": "text"}}, 400,
                         "holds text"),
    "modality twice": ("POST", "/v1/segment", {"files": [
        (m, ("x.nii", volume())) for m in ("flair", "t1ce", "t2", "t2")]}, 400, "twice"),
    "segment by an unknown model": ("POST", "/v1/segment?model=x", files(), 404, "this server"),
    "no NIfTI": ("POST", "/v1/segment", files(t2=b"PK\3\4" * 300), 400,
                 "t2: cannot be read as NIfTI"),
    "truncated gzip": ("POST", "/v1/segment", files(t2=gzip.compress(volume())[:-200]), 400,
                       "t2: the file is broken or truncated"),
    "gzip bomb": ("POST", "/v1/segment", files(t2=gzip.compress(volume() + b"\0" * 10**8)), 400,
                  "t2: the file goes on"),
    "10^9 dimensions": ("POST", "/v1/segment", files(
        t2=volume()[:40] + np.array([3, 32000, 32000, 1, 1, 1, 1, 1], "<i2").tobytes()
        + volume()[56:]), 413, "t2: dimensions"),
    "NaN voxels": ("POST", "/v1/segment", files(t1ce=volume(put(np.nan))), 422, "t1ce: 1 voxels"),
    "empty volume": ("POST", "/v1/segment", files(t1ce=volume(lambda a: a.fill(0))), 422,
                     "t1ce: every voxel is 0"),
    "another grid": ("POST", "/v1/segment", files(t2=volume(shape=(36, 32, 7))), 422,
                     "not on the grid"),
    "another place": ("POST", "/v1/segment", files(t2=volume(affine=np.diag([2, 2, 2, 1.0]))), 422,
                      "not on the grid"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(client, name):
    method, page, sent, status, text = BAD[name]
    answer = client.request(method, page, **sent)
    assert answer.status_code == status, answer.text
    tree = answer.json()
    assert list(tree) == ["error"]
    assert text in tree["error"]
    assert tree["error"]
    assert not re.search(r"Traceback|File \"|/tmp/|site-packages|0\.nii", answer.text)


def test_there_are_more_than_forty_bad_requests_and_the_server_lives(client, local):
    assert len(BAD) >= 40
    image = slices_with_brain(1, 30, 34)
    answer = client.post(PREDICT, json={"instances": image.tolist()})
    np.testing.assert_array_equal(answer.json()["predictions"][0]["labels"],
                                  expected(local, image)[0])


@pytest.fixture
def guarded(registry):
    return TestClient(build_app(registry, LIMITS, hosts=HOSTS, token="secret"))


@pytest.mark.parametrize("header", [
    None, "secret", "Bearer", "Bearer wrong", "Bearer secret2", "Basic secret",
    "Bearer sécret".encode()])
def test_without_the_token(guarded, header):
    headers = {} if header is None else {"authorization": header}
    answer = guarded.post(PREDICT, headers=headers, **row())
    assert answer.status_code == 401
    assert "Authorization: Bearer" in answer.json()["error"]
    assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token(guarded):
    assert guarded.post(PREDICT, headers={"authorization": "Bearer secret"},
                        **row()).status_code == 200
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/readyz").status_code == 200


def test_start_up_and_one_line_of_json_for_a_request(exported, tmp_path):
    import time
    with (tmp_path / "log").open("w") as stream:
        registry = ModelRegistry(exported, JsonLog(stream), poll_seconds=0.05)
        with TestClient(build_app(registry, LIMITS, hosts=HOSTS, log=JsonLog(stream))) as client:
            answer = client.get("/nowhere%0A")
            assert client.get("/healthz").status_code == 200
            deadline = time.monotonic() + 120
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    request = next(line for line in lines if line["event"] == "request")
    assert (request["method"], request["status"]) == ("GET", 404)
    assert {"event": "model_loaded", "model": "tiny", "version": 1}.items() <= next(
        line for line in lines if line["event"] == "model_loaded").items()
    assert request["id"] == answer.headers["x-request-id"]


def test_work_for_a_client_that_is_gone_never_begins(registry):
    """Neither a slice nor a large body that waits; what runs already is nobody's any more."""
    import asyncio
    import threading

    app = build_app(registry, ServerLimits(concurrency=1, json_mib=1, side=64), hosts=HOSTS)
    door, begun = threading.Event(), []

    async def ask(going: asyncio.Event):
        body = [json.dumps(row()["json"]).encode()]

        async def receive():
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await going.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                begun.append(message["status"])

        await app({"type": "http", "method": "POST", "path": PREDICT, "query_string": b"",
                   "headers": [(b"host", b"localhost")], "scheme": "http",
                   "http_version": "1.1", "root_path": ""}, receive, send)

    async def scenario():
        real = registry.get("tiny").run
        calls = []

        def run(*arguments):
            calls.append(1)
            door.wait(30)
            return real(*arguments)

        registry.get("tiny").run = run
        try:
            stays, goes = asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(ask(stays))
            while not calls:
                await asyncio.sleep(0.01)
            others = [asyncio.create_task(ask(goes)) for _ in range(3)]
            await asyncio.sleep(0.05)
            goes.set()
            await asyncio.gather(*others)
            assert begun == [400] * 3
            door.set()
            await first
            assert begun[3:] == [200]
            assert len(calls) == 1
        finally:
            del registry.get("tiny").run

    asyncio.run(scenario())


def test_the_server_removes_what_a_killed_one_left_when_it_starts(tmp_path, small, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / ".pixelnet-scratch-left"
    left.mkdir()
    (left / "0.nii").write_bytes(b"a patient")
    events = []
    with TestClient(build_app(ModelRegistry(small),
                              log=lambda event, **fields: events.append((event, fields)))):
        assert list(tmp_path.iterdir()) == []
    assert events[0] == ("leftovers_removed", {"folders": 1})
