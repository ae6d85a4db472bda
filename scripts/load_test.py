"""Load a server of an exported model and print latencies and memory.

Starts `pixelnet-tf serve` on a copy of the models, sends requests from several clients in rounds,
drops a new version in during the second round, compares every answer with TensorFlow's own in this
process, and ends the server by SIGTERM in mid-load.

    python scripts/load_test.py MODELS [--requests 200] [--clients 8] [--rounds 4] [--side 240]

MODELS is the --out folder of `pixelnet-tf export` with one model. Exit code 1 when an answer is
lost or wrong.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


class Load:
    """Requests of different slices, with the labels that this process computes for them."""

    def __init__(self, model: Path, side: int, port: int, name: str):
        from pixelnet_tf.serving.loaded_model import LoadedModel
        from pixelnet_tf.serving.warmup import warmup_image

        loaded = LoadedModel(model, name, int(model.name))
        channels = loaded.signatures["serving_default"].inputs["image"].shape[-1]
        slices = warmup_image(8, side, channels)
        self._pairs = []
        for row in slices:
            body = {"signature_name": "segment_encoded", "inputs": {
                "image_bytes": [{"b64": base64.b64encode(row.tobytes()).decode()}],
                "size_yx": [[side, side]]}}
            labels = loaded.run("serving_default", {"image": row[None]})["labels"]
            self._pairs.append((json.dumps(body).encode(), labels))
        self._port, self._path = port, f"/v1/models/{name}:predict"
        self.wrong, self.versions = 0, {}

    def pair(self, number: int) -> tuple[bytes, np.ndarray]:
        """A body and the labels that must be answered."""
        return self._pairs[number % len(self._pairs)]

    def ask(self, number: int) -> float:
        """Seconds of one request; raises OSError where no answer comes."""
        body, labels = self.pair(number)
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        seconds = time.monotonic() - start
        right = answer.status == 200 and np.array_equal(json.loads(text)["outputs"], labels)
        self.wrong += not right
        version = answer.getheader("X-Model-Version")
        self.versions[version] = self.versions.get(version, 0) + 1
        return seconds


def memory_mib(process: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def wait_for(log: Path, event: str, seconds: float = 300) -> dict:
    """The first line of an event in the server's log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}") and f'"event": "{event}"' in line:
                return json.loads(line)
        time.sleep(0.1)
    raise SystemExit(f"no {event!r} in the server's log:\n{log.read_text()[-2000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    for name, value in (("requests", 200), ("clients", 8), ("rounds", 4), ("side", 240)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> int:
    from pixelnet_tf.serving.export import versions_in

    source = next(path for path in sorted(options.models.iterdir()) if versions_in(path))
    newest = source / str(versions_in(source)[-1])
    base = folder / "models" / source.name
    shutil.copytree(newest, base / "1")
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "pixelnet_tf", "serve", "--model", str(folder / "models"),
             "--port", "0", "--poll-seconds", "0.5"], stderr=stream,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    try:
        port = wait_for(log, "listening")["port"]
        load = Load(base / "1", options.side, port, source.name)
        wait_for(log, "model_loaded")
        lost = sum(round_of(load, options, process.pid, number, base)
                   for number in range(options.rounds))
        answered = end_in_mid_load(load, options, process)
        code = process.wait(300)
    finally:
        process.kill()
    print(f"SIGTERM in mid-load: {answered} further requests answered, exit code {code}")
    print(f"answers by version: {load.versions}; lost {lost}, wrong {load.wrong}")
    return int(bool(lost or load.wrong or code))


def round_of(load: Load, options: argparse.Namespace, pid: int, number: int, base: Path) -> int:
    """One round; prints a line and returns how many requests were lost."""
    lost, seconds = 0, []
    with ThreadPoolExecutor(options.clients) as clients:
        coming = [clients.submit(load.ask, n) for n in range(options.requests)]
        if number == 1:
            shutil.copytree(base / "1", base / ".2.tmp")
            (base / ".2.tmp").rename(base / "2")
        for future in coming:
            try:
                seconds.append(future.result())
            except (OSError, http.client.HTTPException):
                lost += 1
    p50, p95 = np.percentile(seconds, [50, 95])
    print(f"round {number + 1}: {len(seconds)} answers, p50 {1000 * p50:.0f} ms, "
          f"p95 {1000 * p95:.0f} ms, memory {memory_mib(pid):.0f} MiB", flush=True)
    return lost


def end_in_mid_load(load: Load, options: argparse.Namespace, process: subprocess.Popen) -> int:
    """Send SIGTERM while every client is busy; returns how many requests were still answered."""
    answered, under_way = [], threading.Semaphore(0)

    def until_refused() -> None:
        try:
            while True:
                under_way.release()
                answered.append(load.ask(len(answered)))
        except OSError:
            return

    clients = [threading.Thread(target=until_refused) for _ in range(options.clients)]
    for client in clients:
        client.start()
    for _ in range(2 * options.clients):
        under_way.acquire()
    process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    return len(answered)


if __name__ == "__main__":
    sys.exit(main())
