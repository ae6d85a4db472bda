"""The client against a server that misbehaves, and against the real application."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pixelnet_tf.errors import ConfigError, DataError, ModelError, RunError
from pixelnet_tf.serving import client as client_module
from pixelnet_tf.serving.client import ServedModel
from tests.listening import Listening

IMAGES = np.zeros((2, 4, 5, 3), np.float32)
VALUES = (0, 1, 2, 4)
LABELS = {"outputs": np.ones((2, 4, 5), int).tolist()}


@pytest.fixture
def scripted(monkeypatch):
    """A server that gives the listed answers in turn; returns (URL, answers, requests)."""
    monkeypatch.setattr(client_module, "BACK_OFF_SECONDS", (0.01, 0.02))
    answers, requests = [], []

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self):
            length = int(self.headers.get("content-length", 0))
            requests.append((self.path, self.rfile.read(length), dict(self.headers)))
            status, body = answers.pop(0)
            if status is None:  # The connection breaks.
                self.connection.close()
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body)
                data = b""
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_one

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers, requests
    server.shutdown()
    server.server_close()


def test_slices_go_out_exactly_and_labels_come_back(scripted):
    url, answers, requests = scripted
    images = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    answers.append((200, LABELS))
    labels, shares = ServedModel(f"{url}/v1/models/m", token="t").segment_slices(images, VALUES)
    assert labels.dtype == np.uint8
    assert labels.shape == (2, 4, 5)
    assert shares is None
    path, body, headers = requests[0]
    assert path == "/v1/models/m:predict"
    assert headers["Authorization"] == "Bearer t"
    sent = json.loads(body)["inputs"]
    rows = [np.frombuffer(base64.b64decode(row["b64"]), "<f4") for row in sent["image_bytes"]]
    np.testing.assert_array_equal(np.reshape(rows, images.shape), images)
    assert sent["size_yx"] == [[4, 5], [4, 5]]


def test_the_domain_goes_out_with_the_slices(scripted):
    url, answers, requests = scripted
    domain = np.random.default_rng(0).random((2, 4, 5)) < 0.5
    model = ServedModel(f"{url}/v1/models/m")
    answers.append((200, LABELS))
    model.segment_slices(IMAGES, VALUES, domain)
    shares = np.full((2, 4, 5, 4), 0.25)
    answers.append((200, {"outputs": {"labels": LABELS["outputs"],
                                      "probabilities": shares.tolist()}}))
    np.testing.assert_array_equal(model.segment_slices(IMAGES, VALUES, domain, True)[1], shares)
    encoded, plain = (json.loads(body) for _, body, _ in requests)
    assert encoded["signature_name"] == "segment_domain_encoded"
    rows = [np.frombuffer(base64.b64decode(row["b64"]), "u1")
            for row in encoded["inputs"]["domain_bytes"]]
    np.testing.assert_array_equal(np.reshape(rows, domain.shape), domain)
    assert plain["signature_name"] == "segment_domain"
    np.testing.assert_array_equal(plain["inputs"]["domain"], domain)


def test_a_busy_or_broken_server_is_asked_again(scripted):
    url, answers, requests = scripted
    answers += [(503, {"error": "busy"}), (None, b""), (200, LABELS)]
    ears = Listening()
    ServedModel(f"{url}/v1/models/m", reporter=ears).segment_slices(IMAGES, VALUES)
    assert len(requests) == 3
    assert "busy; next try in 0.01 s" in ears.said[0]


def test_a_server_that_stays_away(scripted):
    url, answers, _ = scripted
    answers += [(503, {"error": "busy"})] * 3
    with pytest.raises(RunError, match=r"no answer after 3 tries \(503, busy\)") as caught:
        ServedModel(f"{url}/v1/models/m").segment_slices(IMAGES, VALUES)
    assert caught.value.exit_code == 5
    with pytest.raises(RunError, match="no answer after 3 tries"):
        ServedModel("http://127.0.0.1:1")


@pytest.mark.parametrize(("status", "body", "error", "text"), [
    (400, {"error": "image must be"}, DataError, "image must be"),
    (401, {"error": "send a token"}, ConfigError, "set PIXELNET_TOKEN"),
    (404, {"error": "no model"}, ModelError, "no model"),
    (500, b"<html>", RunError, "500"),
    (200, b"<html>", RunError, "not JSON"),
    (200, {"predictions": []}, RunError, "no `outputs`"),
    (200, {"outputs": [[1]]}, ModelError, "answered"),
    (200, {"outputs": "x"}, ModelError, "has no labels"),
])
def test_refusals_are_not_repeated(scripted, status, body, error, text):
    url, answers, requests = scripted
    answers.append((status, body))
    with pytest.raises(error, match=text):
        ServedModel(f"{url}/v1/models/m").segment_slices(IMAGES, VALUES)
    assert len(requests) == 1


def test_the_only_model_is_found(scripted):
    url, answers, _ = scripted
    answers.append((200, {"models": [{"name": "tiny", "version": 4}]}))
    assert ServedModel(url).url == f"{url}/v1/models/tiny"
    answers.append((200, {"models": [{"name": "a"}, {"name": "b"}]}))
    with pytest.raises(ConfigError, match="say which"):
        ServedModel(url)
    answers.append((404, {"error": "Malformed request: GET /v1/models"}))
    with pytest.raises(ConfigError, match="give the model's own URL"):
        ServedModel(url)


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://x", "http://x/v1/models/a:predict",
                                 "file:///etc/passwd", "http://x/y"])
def test_no_such_url(url):
    with pytest.raises(ConfigError, match="--server takes"):
        ServedModel(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("token", ["secret", None])
def test_redirects_are_not_followed(scripted, status, token):
    """The token goes to the server that was named and to no other."""
    url, answers, requests = scripted
    for ask in (lambda: ServedModel(url, token=token),
                lambda: ServedModel(f"{url}/v1/models/m", token=token).about(),
                lambda: ServedModel(f"{url}/v1/models/m", token=token).segment_slices(IMAGES,
                                                                                      VALUES)):
        answers.append((status, f"{url}/elsewhere"))
        with pytest.raises(ConfigError, match="redirects are not followed"):
            ask()
    assert len(requests) == 3
    assert not any(path == "/elsewhere" for path, _, _ in requests)


def outputs(labels=None, probabilities=None):
    shares = np.full((2, 4, 5, 4), 0.25).tolist() if probabilities is None else probabilities
    return {"labels": LABELS["outputs"] if labels is None else labels, "probabilities": shares}


def with_one(value, shape=(2, 4, 5)):
    array = np.ones(shape).astype(int).tolist()
    array[0][1][2] = value if len(shape) == 3 else [value] * shape[3]
    return array


@pytest.mark.parametrize(("answer", "text"), [
    (outputs(with_one(300)), "labels that the study has not: \\[300\\]"),
    (outputs(with_one(3)), "the study has not: \\[3\\]; it has \\[0, 1, 2, 4\\]"),
    (outputs(with_one(-1)), "the study has not"),
    (outputs(with_one(1.5)), "the study has not"),
    (outputs(with_one(10**30)), "no labels"),
    (outputs(with_one(None)), "no labels"),
    (outputs(with_one("1")), "no labels"),
    (outputs(with_one([1])), "no labels"),
    (outputs(np.ones((2, 4)).tolist()), "answered labels"),
    (outputs(probabilities=with_one(float("nan"), (2, 4, 5, 4))), "between 0 and 1"),
    (outputs(probabilities=with_one(1.5, (2, 4, 5, 4))), "between 0 and 1"),
    (outputs(probabilities=np.ones((2, 4, 5, 3)).tolist()), "answered probabilities"),
    (outputs(probabilities=[]), "answered probabilities"),
    ([1], "no labels"),
])
def test_what_a_hostile_server_answers_is_no_segmentation(scripted, answer, text):
    url, answers, _ = scripted
    answers.append((200, {"outputs": answer}))
    with pytest.raises(ModelError, match=text):
        ServedModel(f"{url}/v1/models/m").segment_slices(IMAGES, VALUES, probabilities=True)


@pytest.mark.parametrize(("body", "text"), [
    (b"[" * 200_000, "not JSON"), (b"\xff\xfe", "not JSON"), (b" " * (5 << 20), "longer than")])
def test_an_answer_that_would_harm_the_client_is_left(scripted, body, text):
    url, answers, _ = scripted
    answers.append((200, body))
    with pytest.raises(RunError, match=text):
        ServedModel(f"{url}/v1/models/m").about()
