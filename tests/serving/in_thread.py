"""The server's application on a free port, in a thread of the test's own process."""

from __future__ import annotations

import threading
import time
import urllib.request
import uuid
from pathlib import Path

import uvicorn

from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.registry import ModelRegistry


class ServerThread:
    """Starts on entering; models are those that a registry has loaded.

    Attributes:
        url: its address, which ends with a slash.
        requests: (path, status) of every request so far.
    """

    def __init__(self, registry: ModelRegistry, **options):
        self.requests: list[tuple[str, int]] = []
        app = build_app(registry, log=self._log, **options)
        # A registry's own thread can be started once; this one is loaded.
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error",
                                                     lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> ServerThread:
        self._thread.start()
        end = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _log(self, event: str, **fields) -> None:
        self.requests.append((fields["path"], fields["status"]))

    def segment(self, case_files: dict[str, Path], prior: str) -> bytes:
        """What `/v1/segment` answers to a program."""
        boundary = uuid.uuid4().hex
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"'
            "\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
            for name, path in case_files.items()) + f"--{boundary}--\r\n".encode()
        request = urllib.request.Request(f"{self.url}v1/segment?prior={prior}", body, {
            "Content-Type": f"multipart/form-data; boundary={boundary}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()
