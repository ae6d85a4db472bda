"""The server of models on a free port, in a thread of the test's own process."""

from __future__ import annotations

import urllib.request
import uuid
from functools import partial
from pathlib import Path

from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.registry import ModelRegistry
from tests.app_in_thread import AppInThread


class ServerThread(AppInThread):
    """The server of the models that a registry has loaded."""

    def __init__(self, registry: ModelRegistry, **options):
        # A registry's own thread can be started once; this one is loaded.
        super().__init__(partial(build_app, registry, **options), lifespan="off")

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
