"""The adaptive mode against the peer, nnU-Net's 2-D U-Net in PyTorch, in turns over one volume.

The U-Net sees the volume's slices with brain, filled up to a multiple of 64 pixels, one at a time
(eight together take longer), in channels-last layout, as PyTorch runs it by itself (eager) and
compiled by `torch.compile`. Its weights are random: the time does not depend on them. Each
contestant is a process of its own on the same cores, loaded and warmed up; while one works the
other waits. Neither reads the case from disk nor writes the labels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.inference import busy_slices, only_slices, segmenter
from benchmarks.study import Options, trained_run, volume_to_segment

#: Times that each contestant segments the volume, in turns.
ROUNDS = 3
FORMS = ("pixelnet", "unet")
#: Scores a pixel of the U-Net.
CLASSES = 4


def _slices_file(options: Options) -> Path:
    return options.folder / "peer_slices.npy"


def race(options: Options, precision: str, arguments: list[str]) -> dict:
    """Seconds of the volume by each contestant: medians, ranges, processor seconds and ratios."""
    run, volume = trained_run(options), volume_to_segment(options)
    # TensorFlow and torch.compile's compiler cannot live in one process: the U-Net's reads these.
    busy = busy_slices(volume, run.config())
    np.save(_slices_file(options), volume.images[busy].transpose(0, 3, 1, 2))
    works = {form: _Contestant(form, precision, arguments) for form in FORMS}
    seconds: dict[str, list[dict]] = {}
    try:
        for worker in works.values():
            worker.answer()
        for _ in range(ROUNDS):
            for form in FORMS:
                for name, found in works[form].ask().items():
                    seconds.setdefault(name, []).append(found)
    finally:
        for worker in works.values():
            worker.end()
    found = {"precision": precision, "instructions": machine.instructions(),
             "cores": len(os.sched_getaffinity(0)), "rounds": len(seconds["pixelnet"])}
    for name, rounds in seconds.items():
        wall = [one["seconds"] for one in rounds]
        found[name] = {"seconds": statistics.median(wall), "range": [min(wall), max(wall)],
                       "cpu_seconds": statistics.median(one["cpu_seconds"] for one in rounds)}
    best = min((name for name in seconds if name != "pixelnet"),
               key=lambda name: found[name]["seconds"])
    for key in ("seconds", "cpu_seconds"):
        found[f"ratio_{key}"] = found["pixelnet"][key] / found[best][key]
    return {**found, "best_unet": best, "slices": len(busy)}


class _Contestant:
    """A process that segments the volume whenever it is asked."""

    def __init__(self, form: str, precision: str, arguments: list[str]):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve().parents[1] / "benchmark.py"), *arguments,
             "--contestant", form, "--precision", precision], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})

    def answer(self) -> dict:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("a contestant of the peer part has ended; its message stands above")

    def ask(self) -> dict:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self._process.communicate()


def contest(options: Options, given: argparse.Namespace) -> None:
    """Be a contestant: work once for each line that comes in."""
    forms = (_pixelnet if given.contestant == "pixelnet" else _unet)(options, given.precision)
    print(json.dumps({"ready": sorted(forms)}), flush=True)
    for _ in sys.stdin:
        found = {}
        for name, work in forms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            slices = work()
            found[name] = {"seconds": time.perf_counter() - wall,
                           "cpu_seconds": time.process_time() - cpu, "slices": slices}
        print(json.dumps(found), flush=True)


def _pixelnet(options: Options, precision: str) -> dict[str, Callable[[], int]]:
    from pixelnet_tf.inference.volume import finish_volume, score_voxels
    run, volume = trained_run(options), volume_to_segment(options)
    config = run.config()
    busy, own = busy_slices(volume, config), segmenter(run, "adaptive", precision)
    score_voxels(own, only_slices(volume, busy[len(busy) // 2:][:4]), config.study,
                 config.prediction)

    def work() -> int:
        scores = score_voxels(own, volume, config.study, config.prediction)
        finish_volume(scores, volume, config.study, config.prediction.postprocess)
        return len(busy)

    return {"pixelnet": work}


def _unet(options: Options, precision: str) -> dict[str, Callable[[], int]]:
    try:
        import torch
        from race import unet
    except ImportError:
        raise SystemExit("--peer needs PyTorch and nnU-Net's networks: pip install '.[peer]'"
                         ) from None
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images = np.load(_slices_file(options))
    size = tuple(-(-length // 64) * 64 for length in images.shape[2:])
    tensor = torch.from_numpy(unet.padded(images, size)).to(memory_format=torch.channels_last)
    network = unet.network(images.shape[1], CLASSES).eval().to(
        memory_format=torch.channels_last)
    network.decoder.deep_supervision = False

    def work(form, count: int) -> int:
        labels = np.empty((count, *size), np.uint8)
        with torch.no_grad(), unet.products(precision):
            for number in range(count):
                labels[number] = form(tensor[number:number + 1]).argmax(1)[0].numpy()
        return len(labels)

    found = {}
    for name, form in (("unet eager", network), ("unet compiled", torch.compile(network))):
        work(form, 2)
        found[name] = partial(work, form, len(tensor))
    return found
