"""Pages of other origins, and names that somebody else points to this server, get 403."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.registry import ModelRegistry
from tests.foreign_page import foreign_page

from .server_process import ServerProcess

PREDICT = "/v1/models/tiny:predict"
BODY = {"inputs": [[[[1, 2, 3]]]]}


@pytest.fixture(scope="module")
def client(small):
    registry = ModelRegistry(small)
    registry.look()
    return TestClient(build_app(registry, hosts=["Model.example"]),
                      base_url="http://127.0.0.1:8501")


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.0.0.1:8501", "localhost", "LOCALHOST:8501", "[::1]:8501", "[::1]",
    "192.168.7.2:80", "model.example", "model.example:443"])
def test_hosts_by_which_the_server_is_called(client, host):
    assert client.post(PREDICT, json=BODY, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:8501", "localhost.evil.example", "127.0.0.1.evil.example",
    "evil.example:127.0.0.1", "model.example.evil.example", "notlocalhost",
    "127.0.0.1@evil.example", "[evil.example]", "", ":8501"])
@pytest.mark.parametrize("page", [PREDICT, "/healthz", "/v1/models"])
def test_another_host_gets_403_on_every_page(client, host, page):
    answer = client.request("POST" if page == PREDICT else "GET", page,
                            json=BODY if page == PREDICT else None, headers={"host": host})
    assert answer.status_code == 403
    assert "--allowed-host" in answer.json()["error"]


@pytest.mark.parametrize(("host", "origin"), [
    ("localhost:8501", "http://localhost:8501"), ("127.0.0.1:8501", "http://127.0.0.1:8501"),
    # Behind a proxy that takes TLS off.
    ("model.example", "https://model.example")])
def test_its_own_origin(client, host, origin):
    answer = client.post(PREDICT, json=BODY, headers={"host": host, "origin": origin})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", [
    "http://evil.example", "https://localhost.evil.example", "null", "", "http://localhost:3000",
    "http://localhost", "http://127.0.0.1:8501", "file://", "localhost:8501",
    "http://localhost:8501.evil.example"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain",
                                  "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_origin_gets_403(client, origin, kind):
    """What a page may send blindly, without asking first: these four content types among them."""
    page = "/v1/segment" if kind.startswith("multipart") else PREDICT
    answer = client.post(page, content=json.dumps(BODY), headers={
        "host": "localhost:8501", "origin": origin, "content-type": kind})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_that_asks_first_is_not_allowed(client):
    answer = client.options(PREDICT, headers={
        "host": "localhost:8501", "origin": "http://evil.example",
        "access-control-request-method": "POST"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome")
                 if (found := shutil.which(name))), None)
#: A page of another origin: each request's outcome as text. A rebound name needs no `no-cors`.
PAGE = """<!doctype html><meta charset="utf-8"><pre id="said">waiting</pre><script>
async function outcome(url, options) {
  try { const answer = await fetch(url, options); return answer.type + " " + answer.status; }
  catch (error) { return "refused"; }
}
(async () => {
  const body = BODY, said = {};
  said.blind = await outcome("SERVERPREDICT", {method: "POST", mode: "no-cors", body});
  said.asking = await outcome("SERVERPREDICT", {
    method: "POST", body, headers: {"Content-Type": "application/json"}});
  said.reading = await outcome("SERVER/v1/models", {});
  document.getElementById("said").textContent = JSON.stringify(said);
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in the PATH")
def test_in_a_real_browser(small, tmp_path):
    """A foreign page, and a page under a name that was pointed to the server's own address."""
    (tmp_path / "models").symlink_to(small)
    with ServerProcess(tmp_path / "models") as server:
        text = (PAGE.replace("SERVER", server.url).replace("PREDICT", PREDICT)
                .replace("BODY", json.dumps(json.dumps(BODY))))
        with foreign_page(text) as address:
            said = browse(address, tmp_path)
        assert '"asking":"refused"' in said, said
        assert '"reading":"refused"' in said, said
        rebound = browse(f"http://rebound.example:{server.port}/v1/models", tmp_path)
        assert "tiny" not in rebound
        requests = [(event["method"], event["path"], event["status"])
                    for event in server.events() if event["event"] == "request"]
    assert ("POST", PREDICT, 403) in requests
    assert ("GET", "/v1/models", 403) in requests
    assert {status for _, _, status in requests} == {403}


def browse(url: str, folder) -> str:
    """The page as the browser shows it; names under .example lead to this machine."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000",
         "--host-resolver-rules=MAP *.example 127.0.0.1", "--dump-dom", url],
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
