"""Time the viewer's page beside bare NiiVue in one headless Chromium, and print a table.

A case of 240 x 240 x 155 voxels with a reference and a prediction: seconds from the address to
the first picture, and milliseconds of a frame while slices are scrolled through in three planes,
for the page of `pixelnet-tf view` and for NiiVue with an image and one layer and nothing around
it. Each frame is waited for until its pixels can be read. Seconds of the processor, of browser and
server together, do not depend on what else the machine does.

    python scripts/benchmark_viewer.py [--frames 40] [--rounds 3]

Needs chromium, and npm for the bare page (`npm ci` in scripts/viewer is run where it has not been).
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
SHAPE = (240, 240, 155)
SIZE = (1280, 800)
#: A frame: the step, then the pixels that it drew.
FRAMES = """((count, step) => {
  const gl = document.querySelector("canvas").getContext("webgl2");
  const pixel = new Uint8Array(4), times = [];
  for (let number = 0; number < count; number += 1) {
    const start = performance.now();
    step(number % 20 < 10 ? 1 : -1);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    times.push(performance.now() - start);
  }
  return times;
})"""
PAGE_STEP = """(by) => document.querySelector("canvas").dispatchEvent(new KeyboardEvent("keydown",
  { key: by > 0 ? "PageUp" : "PageDown", bubbles: true }))"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def write_case(folder: Path) -> list[str]:
    """A study of one case and its prediction; returns the settings that they are shown by."""
    random = np.random.default_rng(0)
    places = np.meshgrid(*((np.arange(n) - n / 2) / n for n in SHAPE), indexing="ij", sparse=True)
    radius = sum(place**2 for place in places)
    image = np.where(radius < 0.18, random.normal(300, 40, SHAPE), 0).astype(np.int16)
    lesion = (radius < 0.02).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for place, array in (("study/case/case_flair.nii.gz", image),
                         ("study/case/case_seg.nii.gz", lesion),
                         ("predictions/case.nii.gz", np.roll(lesion, 9, axis=0))):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
    return ["study.labels={0: background, 1: lesion}", "study.regions={lesion: [1]}",
            "study.modalities=[flair]", "evaluation.protocol=isles"]


def bundle_bare_page(folder: Path) -> None:
    """NiiVue's own code alone, as npm has it."""
    viewer = ROOT / "scripts" / "viewer"
    if not (viewer / "node_modules" / "esbuild").is_dir():
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=viewer,
                       check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["node_modules/.bin/esbuild", "bare.js", "--bundle", "--minify",
                    "--alias:zarrita=./src/no_zarr.js", f"--outfile={folder / 'bare.js'}",
                    "--log-level=error"], cwd=viewer, check=True)
    (folder / "index.html").write_text(
        "<!doctype html><style>body { margin: 0 } canvas { display: block }</style>"
        '<div><canvas></canvas></div><script src="bare.js"></script>')


def processor_seconds(browser_pid: int) -> float:
    """Seconds that the browser's processes that live, and this one, have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == browser_pid:  # Its session.
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + time.process_time()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from pixelnet_tf.api.viewing import View
    from tests.browser import CHROMIUM, Browser
    from tests.viewer.conftest import Served

    if CHROMIUM is None or shutil.which("npm") is None:
        parser.error("needs chromium and npm in the PATH")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = write_case(folder)
        source = View(folder / "predictions", references=folder / "study",
                      overrides=settings).source
        bare = folder / "bare"
        bare.mkdir()
        (bare / "image.nii").write_bytes(source.layer(0, "image-0"))
        (bare / "labels.nii").write_bytes(source.layer(0, "prediction"))
        bundle_bare_page(bare)
        files = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(
            _Quiet, directory=str(bare)))
        threading.Thread(target=files.serve_forever, daemon=True).start()
        served = Served(source)
        seconds: dict[str, list[float]] = {"page": [], "bare": []}
        frames: dict[str, list[float]] = {"page": [], "bare": []}
        used: dict[str, list[float]] = {"page": [], "bare": []}
        (folder / "browser").mkdir()
        with Browser(folder / "browser", *SIZE) as browser:
            for _ in range(arguments.rounds):
                before = processor_seconds(browser.pid)
                start = time.monotonic()
                browser.open(f"{served.url}#view=planes")
                browser.wait("document.body && document.body.dataset.ready === '1'")
                browser.run(f"({FRAMES})(1, {PAGE_STEP})")
                seconds["page"].append(time.monotonic() - start)
                used["page"].append(processor_seconds(browser.pid) - before)
                size = browser.run("[document.querySelector('canvas').clientWidth, "
                                   "document.querySelector('canvas').clientHeight]")
                frames["page"] += browser.run(f"({FRAMES})({arguments.frames}, {PAGE_STEP})")
                before = processor_seconds(browser.pid)
                start = time.monotonic()
                browser.open(f"http://127.0.0.1:{files.server_port}/")
                browser.wait("typeof begin === 'function'")
                browser.run(f"Object.assign(document.querySelector('div').style, "
                            f"{{width: '{size[0]}px', height: '{size[1]}px'}})")
                browser.run("begin()")
                browser.run(f"({FRAMES})(1, step)")
                seconds["bare"].append(time.monotonic() - start)
                used["bare"].append(processor_seconds(browser.pid) - before)
                frames["bare"] += browser.run(f"({FRAMES})({arguments.frames}, step)")
        served.stop()
        files.shutdown()
    print(f"a case of {' x '.join(map(str, SHAPE))}, a canvas of {size[0]} x {size[1]} pixels")
    print(f"{'':22}{'view':>10}{'bare':>10}{'ratio':>8}")
    for title, times, unit in (("first picture", seconds, "s"), ("processor for it", used, "s"),
                               ("a frame, median", frames, "ms")):
        page, plain = (statistics.median(times[name]) for name in ("page", "bare"))
        print(f"{title + ', ' + unit:22}{page:10.2f}{plain:10.2f}{page / plain:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
