"""Chromium, driven by its own protocol over two pipes: nothing else has to be installed."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome")
                 if (found := shutil.which(name))), None)
#: Long enough for a loaded machine that draws WebGL by its processor.
PATIENCE = 120.0


_CONTROLS = ("application", "button", "checkbox", "columnheader", "combobox", "link", "progressbar",
             "slider", "spinbutton", "textbox")


class Browser:
    """A headless Chromium with one tab; names under .example lead to this machine.

    Args:
        folder: of its profile; nothing of it is there afterwards that was not before.
        width, height: of the page, in pixels.
    """

    def __init__(self, folder: Path, width: int = 1280, height: int = 800):
        # It reads what it is told from 3 and answers on 4.
        told, self._tell = os.pipe()
        self._answers, answer = os.pipe()
        self._errors = (folder / "chromium.log").open("wb")
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                   "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-extensions", "--hide-scrollbars",
                   "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
                   "--force-device-scale-factor=1", "--force-color-profile=srgb",
                   "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}",
                   "--host-resolver-rules=MAP *.example 127.0.0.1",
                   f"--window-size={width},{height}", "about:blank"]

        def hand_on() -> None:
            # By way of high numbers: one of the two may be 3 or 4 already.
            os.dup2(told, 103)
            os.dup2(answer, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        self._process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=hand_on,
                                         stdout=self._errors, stderr=self._errors,
                                         start_new_session=True)
        self.pid = self._process.pid
        os.close(told)
        os.close(answer)
        self._numbers, self._read, self._session = itertools.count(1), b"", None
        #: Events of the protocol, as they came.
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"],
                                  flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.call(f"{part}.enable")
        self.resize(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._tell)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._answers)
        self._errors.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self._next(end)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)
        raise AssertionError(f"{method} is not answered")

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser is silent"
            block = os.read(self._answers, 1 << 20)
            assert block, "the browser is gone: " + Path(self._errors.name).read_text(
                errors="replace")[-2000:]
            self._read += block
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page says that it has drawn."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                          awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"{script} never holds; the page says "
                             f"{self.run('document.body.innerText')!r} and {self.complaints()}")

    def complaints(self) -> list[str]:
        """What the console holds: errors of scripts and of the page's policy."""
        self.run("0")
        found = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"].get("exception", {}).get(
                    "description", "an exception")))
        return found

    def controls(self) -> dict[str, list[str]]:
        """Role -> names, as a screen reader hears them, of everything in the page that is set,
        pressed or drawn on."""
        found: dict[str, list[str]] = {}
        for node in self.call("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value", "")
            if not node.get("ignored") and role in _CONTROLS:
                found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        return found

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def press(self, key: str) -> None:
        """Press a key, as a reader would."""
        text = key if len(key) == 1 else ""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def drop(self, *paths: Path) -> None:
        """Let files or folders fall on the middle of the page."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        x, y = self.run("[innerWidth / 2, innerHeight / 2]")
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def downloads_to(self, folder: Path) -> None:
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """The page as it is seen, (height, width, 3) uint8."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def canvas(self) -> np.ndarray:
        """The pixels of the page's canvas as they are seen, (height, width, 3) uint8."""
        left, top, width, height = self.run(
            "(({left, top, width, height}) => [left, top, width, height])"
            "(document.querySelector('canvas').getBoundingClientRect())")
        whole = self.screenshot()
        return whole[round(top):round(top + height), round(left):round(left + width)]
