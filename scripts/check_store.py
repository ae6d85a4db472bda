#!/usr/bin/env python3
"""The main job with everything but the raw study in S3, against moto's server, killed and cut off
on the way, beside the same job on a disk.

    python scripts/check_store.py OUT [--store fsspec|tensorflow] [--python PYTHON] [--short]

`prepare`, `train` (killed with SIGKILL in mid-training, then --resume; then the server is stopped
and comes back), `predict`, `evaluate`. The weights must equal those on the disk bit for bit, and
the predictions byte for byte. Then: no such bucket, wrong credentials. Ends with exit code 1 where
something is otherwise. --python runs the verbs in another environment (scripts/test_io.sh).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
import h5py
import numpy as np

SETTINGS = [f"--set={setting}" for setting in (
    "prepare.bias_field.enabled=false", "split.test=1", "split.validation=0",
    "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
    "sampling.pixels=60", "training.batch_slices=2", "training.checkpoint_every=20")]
BUCKET = "check-store"


class Server:
    """moto's S3, as a process that can be stopped and started; it forgets what it held."""

    def __init__(self, log: Path):
        self.port, self._log, self._process = _free_port(), log, None
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _client():
    return boto3.client("s3")


def _objects() -> dict[str, bytes]:
    client = _client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {each["Key"]: client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
            for page in pages for each in page.get("Contents", [])}


def _weights(model: bytes) -> dict[str, bytes]:
    import io
    import zipfile

    found: dict[str, bytes] = {}

    def take(name: str, each: object) -> None:
        if isinstance(each, h5py.Dataset):
            found[name] = np.array(each).tobytes()

    with h5py.File(io.BytesIO(zipfile.ZipFile(io.BytesIO(model)).read("model.weights.h5"))) as file:
        file.visititems(take)
    return found


class Job:
    """The verbs, on a disk or in the bucket."""

    def __init__(self, python: str, out: Path, store: str, base: str, log: Path):
        self.base, self._python, self._out, self._log = base, python, out, log
        self._env = {**os.environ, "PIXELNET_STORE": store, "PIXELNET_CACHE": str(out / "cache"),
                     "TF_CPP_MIN_LOG_LEVEL": "2"}

    def start(self, verb: str, *arguments: object, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self._python, "-m", "pixelnet_tf", verb, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**self._env, **env})

    def run(self, verb: str, *arguments: object, code: int = 0, **env: str) -> str:
        begun = time.monotonic()
        process = self.start(verb, *arguments, **env)
        text = process.communicate()[0]
        with open(self._log, "a", encoding="utf-8") as log:
            log.write(f"$ {verb} {self.base}\n{text}\n")
        seconds = time.monotonic() - begun
        print(f"  {verb:9} {seconds:6.1f} s  code {process.returncode}", flush=True)
        if process.returncode != code:
            sys.exit(f"{text}\nFAILED: {verb} ended with code {process.returncode}, not {code}")
        return text

    def prepare(self) -> None:
        self.run("prepare", "--config", "phantom", *SETTINGS, "--data", self._out / "study",
                 "--out", f"{self.base}/prepared", "--workers", 1)

    def train_arguments(self, steps: int) -> list[str]:
        return ["--config", "phantom", *SETTINGS, f"--set=training.steps={steps}", "--data",
                f"{self.base}/prepared", "--out", f"{self.base}/run", "--resume"]

    def rest(self) -> None:
        self.run("predict", "--model", f"{self.base}/run", "--data", f"{self.base}/prepared",
                 "--out", f"{self.base}/predictions")
        self.run("evaluate", "--predictions", f"{self.base}/predictions", "--references",
                 self._out / "study", "--out", f"{self.base}/scores")


def _wait_for(condition, process: subprocess.Popen, what: str) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"FAILED: the training ended (code {process.poll()}) before {what}:\n"
                     f"{process.communicate()[0]}")
        time.sleep(0.05)


def _saved_step() -> int:
    try:
        body = _client().get_object(Bucket=BUCKET, Key="job/run/checkpoints/state.json")["Body"]
        return json.loads(body.read())["last"]["step"]
    except Exception:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", default="fsspec", choices=["fsspec", "tensorflow"])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--short", action="store_true", help="without what is cut off and refused")
    given = parser.parse_args()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    begun, steps = time.monotonic(), 120
    server = Server(out / "server.log")
    os.environ.update(AWS_ENDPOINT_URL=server.url, AWS_ACCESS_KEY_ID="test",
                      AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1",
                      AWS_REGION="us-east-1")
    try:
        _client().create_bucket(Bucket=BUCKET)
        disk = Job(given.python, out, given.store, str(out / "disk"), out / "log.txt")
        disk.run("phantom", out / "study", "--cases", 4, "--seed", 1, "--size", 30, 28, 16)
        print("on a disk")
        disk.prepare()
        disk.run("train", *disk.train_arguments(steps))
        disk.rest()

        print(f"in S3, through {given.store}")
        job = Job(given.python, out, given.store, f"s3://{BUCKET}/job", out / "log.txt")
        job.prepare()
        process = job.start("train", *job.train_arguments(steps))
        _wait_for(lambda: _saved_step() >= 40, process, "step 40 was saved")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"  killed with SIGKILL; the store has step {_saved_step()} of {steps}")
        if not given.short:
            process = job.start("train", *job.train_arguments(steps))
            before = _saved_step()
            _wait_for(lambda: _saved_step() > before, process, "it went on")
            process.send_signal(signal.SIGSTOP)
            kept = _objects()
            server.stop()
            process.send_signal(signal.SIGCONT)
            stopped = time.monotonic()
            text = process.communicate()[0]
            line = [each for each in text.splitlines() if each.startswith("error: ")][-1:]
            print(f"  the server stopped: code {process.returncode} after "
                  f"{time.monotonic() - stopped:.1f} s\n  {line[0] if line else text}")
            if process.returncode != 5 or "does not answer" not in text:
                sys.exit("FAILED: not code 5")
            server.start()
            client = _client()
            client.create_bucket(Bucket=BUCKET)
            for name, data in kept.items():
                client.put_object(Bucket=BUCKET, Key=name, Body=data)
            print(f"  the server is back; the store has step {_saved_step()} of {steps}")
        # An empty cache, as another machine has it.
        shutil.rmtree(out / "cache", ignore_errors=True)
        text = job.run("train", *job.train_arguments(steps))
        found = re.search(r"going on from step (\d+)", text)
        print(f"  went on from step {found[1] if found else '?'}")
        job.rest()
        there = _objects()
        if _weights(there["job/run/model.keras"]) != _weights(
                (out / "disk/run/model.keras").read_bytes()):
            sys.exit("FAILED: other weights than on the disk")
        for path in sorted((out / "disk/predictions").glob("*.nii.gz")):
            if there[f"job/predictions/{path.name}"] != path.read_bytes():
                sys.exit(f"FAILED: {path.name} is another than on the disk")
        if there["job/scores/cases.csv"] != (out / "disk/scores/cases.csv").read_bytes():
            sys.exit("FAILED: other scores than on the disk")
        job.run("check", f"s3://{BUCKET}/job/run")
        if not given.short:
            for what, url, env in (
                    ("no such bucket", "s3://nobody-has-it/x", {}),
                    ("credentials", f"s3://{BUCKET}/job/prepared",
                     {"AWS_ACCESS_KEY_ID": "AKIAWRONG"})):
                if env:
                    urllib.request.urlopen(urllib.request.Request(
                        f"{server.url}/moto-api/reset-auth", b"0",
                        {"Content-Type": "text/plain"}), timeout=30)
                text = job.run("train", "--config", "phantom", "--data", url, "--out",
                               out / "nothing", code=2, **env)
                print(f"  {what}: {text.strip().splitlines()[-1]}")
    finally:
        server.stop()
    print(f"the same weights, predictions and scores as on a disk, through {given.store}; "
          f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
