"""A real `pixelnet-tf serve` process for tests, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path


class ServerProcess:
    """Starts the server on a free port, waits until it is ready, and stops it on leaving."""

    def __init__(self, models: Path, *options: str):
        self._log_path = models.parent / "server.log"
        self._log = self._log_path.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pixelnet_tf", "serve", "--model", str(models), "--port", "0",
             "--poll-seconds", "0.2", *options], stderr=self._log, stdout=self._log,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
        self.port = self._wait_for("listening", "port")
        self._wait_for("model_loaded", "version")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self) -> list[dict]:
        """The lines of the log so far; other programs' lines are left out."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def request(self, method: str, path: str, body: bytes = b"", timeout: float = 60
                ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def _wait_for(self, event: str, key: str, seconds: float = 120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [line for line in self.events() if line["event"] == event]
            if found:
                return found[0][key]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(self._log_path.read_text(errors="replace")[-3000:])
