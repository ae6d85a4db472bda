"""A server of its own process: load, a new version under load, SIGTERM in mid-load, the verb."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pixelnet_tf.cli import main
from pixelnet_tf.inference.predict import CaseSource, predict_cases
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.serving import client as client_module

from .conftest import CASE, slices_with_brain
from .server_process import ServerProcess

pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
PREDICT = "/v1/models/tiny:predict"
VALUES = np.array([0, 1, 2, 4], np.uint8)


@pytest.fixture(scope="module")
def requests_and_labels(local):
    """Bodies of different slices, each with the labels that local prediction gives."""
    made = []
    for seed, (height, width) in enumerate([(32, 32), (30, 34), (27, 25), (40, 24)]):
        image = slices_with_brain(1, height, width, seed)
        scores = local.scores(image, (image != 0).any(axis=-1)).numpy()
        body = json.dumps({"inputs": {"image": image.tolist()}}).encode()
        made.append((body, VALUES[scores.argmax(axis=-1)]))
    return made


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    models = tmp_path_factory.mktemp("served") / "models"
    shutil.copytree(exported, models)
    with ServerProcess(models) as server:
        server.models = models
        yield server


class Asker:
    """Sends requests, checks the answers, and counts them."""

    def __init__(self, server, requests_and_labels):
        self.server, self.pairs, self.answered = server, requests_and_labels, []

    def __call__(self, number: int) -> str:
        """The version that answered."""
        body, labels = self.pairs[number % len(self.pairs)]
        status, headers, answer = self.server.request("POST", PREDICT, body)
        assert status == 200, answer
        np.testing.assert_array_equal(json.loads(answer)["outputs"]["labels"], labels)
        self.answered.append(number)
        return headers["x-model-version"]


def verb(*arguments) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


def test_predict_by_a_server_writes_the_local_file(server, run, study, tmp_path,
                                                   serving_config):
    assert verb("predict", "--server", server.url, "--data", study,
                "--out", tmp_path / "served") == 0
    predict_cases([TrainedNetwork(run.model(), np.zeros(4, np.float32))],
                  CaseSource.open(str(study), serving_config, None), serving_config,
                  tmp_path / "local")
    name = f"{CASE}.nii.gz"
    assert (tmp_path / "served" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_probabilities_by_a_server(server, local, study, tmp_path, serving_config):
    assert verb("predict", "--server", server.url, "--data", study, "--probabilities",
                "--out", tmp_path / "served") == 0
    import nibabel as nib

    from pixelnet_tf.inference.volume import segment_volume
    volume = CaseSource.open(str(study), serving_config, None).read(CASE)
    expected = segment_volume(local, volume, serving_config.study, serving_config.prediction,
                              probabilities=True)
    found = nib.load(tmp_path / "served" / "probabilities" / f"{CASE}.nii.gz")
    np.testing.assert_allclose(np.asarray(found.dataobj), expected.probabilities, atol=1e-6)


@pytest.mark.parametrize(("arguments", "code"), [
    (("--mode", "adaptive"), 2), (("--split", "test"), 2), (("--model", "x"), 2),
    (("--set", "prediction.prior=fitted"), 2), (("--case", "nobody"), 3)])
def test_what_a_server_cannot_do(server, study, tmp_path, arguments, code):
    assert verb("predict", "--server", server.url, "--data", study, "--out", tmp_path / "out",
                *arguments) == code
    assert not (tmp_path / "out").exists()


def test_a_server_that_goes_in_mid_case(study, tmp_path, exported, monkeypatch, capsys):
    """The first batch is answered, then the server is gone: exit code 5, no half-written file."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    about = (exported / "tiny" / "1" / "serving.json").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(about)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            height, width = body["inputs"]["size_yx"][0]
            batch = len(body["inputs"]["image_bytes"])
            self.answer(json.dumps({"outputs": np.zeros((batch, height, width), int).tolist()})
                        .encode())
            served.append(batch)
            threading.Thread(target=server.shutdown).start()

        def answer(self, data):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    served = []
    server = HTTPServer(("127.0.0.1", 0), Handler)

    def serve():
        server.serve_forever()
        server.server_close()

    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setattr(client_module, "BACK_OFF_SECONDS", (0.1, 0.2))
    url = f"http://127.0.0.1:{server.server_port}/v1/models/tiny"
    assert verb("predict", "--server", url, "--data", study, "--out", tmp_path / "out") == 5
    assert "no answer after 3 tries" in capsys.readouterr().err
    assert served == [3]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.jsonl", "prediction.json"]


def test_a_server_ends_soon_whoever_is_silent(small, exported, tmp_path):
    """Stalled headers and bodies, an answer that is not taken, a version that is being loaded."""
    shutil.copytree(small, tmp_path / "models")
    with ServerProcess(tmp_path / "models") as server:
        shutil.copytree(exported / "tiny" / "1", tmp_path / "models" / "tiny" / "2")
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n".encode()
        page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        clients = []
        for sent in (b"", b"GET / HT", page, head + b"Content-Length: 9\r\n\r\n{", page * 2000):
            clients.append(socket.create_connection(("127.0.0.1", server.port)))
            clients[-1].setblocking(False)
            clients[-1].send(sent)
        time.sleep(0.3)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        # Silent clients have a second, a version that is being loaded another.
        assert time.monotonic() - begun < 5
        assert server.events()[-1]["event"] == "stopped"
        for client in clients:
            client.close()


def test_what_is_no_http_is_answered_in_json(server):
    status, _, answer = server.request("GET", "/" + "a" * 100_000)
    assert status in (400, 414)
    assert json.loads(answer)["error"]
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        head, _, body = raw.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert "send HTTP/1.1" in json.loads(body)["error"]


def test_load_a_new_version_and_an_end_in_mid_load(server, requests_and_labels):
    """200 requests of 8 clients, none lost and none wrong; comes last, it ends the server."""
    ask, models = Asker(server, requests_and_labels), server.models
    before_all = len([e for e in server.events() if e["event"] == "request"])
    with ThreadPoolExecutor(8) as clients:
        first = list(clients.map(ask, range(50)))
        before_mib = server.memory_mib()
        # After a quarter of them a new version is dropped in.
        shutil.copytree(models / "tiny" / "1", models / "tiny" / ".2.tmp")
        (models / "tiny" / ".2.tmp").rename(models / "tiny" / "2")
        second = list(clients.map(ask, range(150)))
    assert set(first) == {"1"}
    assert set(second) <= {"1", "2"}
    deadline = time.monotonic() + 30
    while ask(0) != "2":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # Room for the second version and the kernels' work space.
    assert server.memory_mib() < before_mib + 150

    # SIGTERM while requests are under way: each is answered, or was never taken.
    refused, taken = [], threading.Semaphore(0)

    def until_refused():
        try:
            while True:
                ask(0)
                taken.release()
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
            # A broken pipe is a reset that came while the request was being sent.
            refused.append(True)

    threads = [threading.Thread(target=until_refused) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(16):
        assert taken.acquire(timeout=60)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert server.process.wait(60) == 0
    # A thread that met a wrong answer, or a broken one, is missing here.
    assert len(refused) == 8
    events = server.events()
    assert events[-1]["event"] == "stopped"
    requests = [e for e in events if e["event"] == "request"][before_all:]
    assert {e["status"] for e in requests} == {200}
    # Whatever the server took, a client has received.
    assert len(requests) == len(ask.answered)
