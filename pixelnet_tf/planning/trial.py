"""A short trial of a network on this machine: time and memory of its steps and of its slices.

It runs in a process of its own (`try_out`), so that the memory is the network's and not that of
what the program did before, and so that a network that is too large ends that process alone.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pixelnet_tf.config import AUTO, Config, config_from_json, config_to_json
from pixelnet_tf.io.plain import build

#: A trial that takes longer is ended: even one step is too slow for this machine.
_LONGEST_SECONDS = 180.0
#: Multiplications of a step beyond which a trial takes fewer slices and reckons up.
_MOST_WORK = 4e11
#: Steps are timed for so long, and at most so many.
_STEP_SECONDS, _STEPS = 2.5, 20
#: Work that takes the cores longer than this the first time is not done again.
_LONG_SECONDS = 20.0


@dataclass(frozen=True)
class TrialResult:
    """What a trial found.

    Attributes:
        device: "CPU" or "GPU".
        step_seconds, step_cpu_seconds: time of a solver step, and of the cores together.
        training_bytes, predicting_bytes: largest memory of either.
        slice_seconds, slice_cpu_seconds: the same of predicting a slice.
    """

    device: str
    step_seconds: float
    step_cpu_seconds: float
    training_bytes: int
    slice_seconds: float
    slice_cpu_seconds: float
    predicting_bytes: int


def try_out(config: Config, height: int, width: int) -> TrialResult | str:
    """Try a network on slices of a size; returns what was found, or why nothing was.

    It takes some 15 seconds, most of which TensorFlow takes to be loaded.
    """
    task = {"config": config_to_json(config), "height": height, "width": width}
    code = "from pixelnet_tf.planning.trial import answer; answer()"
    found = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]),
                                          os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run([sys.executable, "-c", code], input=json.dumps(task), text=True,
                              capture_output=True, timeout=_LONGEST_SECONDS,
                              env={**os.environ, "PYTHONPATH": found}, check=False)
    except subprocess.TimeoutExpired:
        return f"a trial took more than {_LONGEST_SECONDS:g} s"
    try:
        return build(TrialResult, json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        if done.returncode in (-9, 137):
            return "memory did not suffice for a trial"
        lines = done.stderr.strip().splitlines()
        return f"a trial failed: {lines[-1] if lines else f'exit code {done.returncode}'}"


def answer() -> None:
    """Do the trial that standard input asks for, and write what was found to standard output."""
    task = json.load(sys.stdin)
    found = _trial(config_from_json(task["config"]), task["height"], task["width"])
    sys.stdout.write(f"\n{json.dumps(asdict(found))}\n")


def _trial(config: Config, height: int, width: int) -> TrialResult:
    import numpy as np
    import tensorflow as tf

    from pixelnet_tf.dataset.augment import augment
    from pixelnet_tf.dataset.sampler import sample_pixels
    from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
    from pixelnet_tf.model.architecture import Architecture
    from pixelnet_tf.model.pixelnet import PixelNet
    from pixelnet_tf.model.precision import auto_precision
    from pixelnet_tf.training.loss import make_loss
    from pixelnet_tf.training.rate_trial import with_rate
    from pixelnet_tf.training.state import TrainingState
    from pixelnet_tf.training.step import lattice_of, loss_and_gradients

    config = config.with_precision(auto_precision(config.model))
    training, sampling = config.training, config.sampling
    if training.solver.base_lr == AUTO:
        # Any number takes as long.
        training = with_rate(training, 1e-3)
    channels, classes = len(config.study.modalities), len(config.study.labels)
    work = 3 * Architecture.of(config.model, classes).slice_work(channels, height, width,
                                                                 sampling.pixels)
    slices = max(1, min(training.batch_slices, int(_MOST_WORK / work)))
    # The times of a step do not hang on what its images show; lesions of every class are there.
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y / height - 0.5) * 2.3, (x / width - 0.5) * 2.6)
    brain = radius < 1
    labels = np.zeros((height, width), np.int32)
    for number in range(1, classes):
        labels[radius < 0.4 * (classes - number) / classes] = number
    image = np.random.default_rng(0).normal(size=(height, width, channels)).astype(np.float32)
    image[~brain] = 0
    slice_ = {"image": tf.constant(image), "labels": tf.constant(labels),
              "brain": tf.constant(brain)}
    model = PixelNet(config.model, channels, len(config.score_names), seed=0)
    state = TrainingState(model, training, model.weighted, steps=10**6)
    loss_of = make_loss(training.loss, training.class_weights, config.scored_regions)
    tensors = [variable.value for variable in state.trained]

    # As in a slab: each slice, and those beside it.
    beside = config.model.context_slices // 2
    neighbours = np.clip(np.arange(slices)[:, None] + np.arange(-beside, beside + 1), 0, slices - 1)

    @tf.function(autograph=False)
    def drawn(seed: tf.Tensor) -> dict[str, tf.Tensor]:
        one = augment(slice_, sampling, seed)
        pixels, chosen = sample_pixels(one["labels"], one["brain"], seed, classes=classes,
                                       config=sampling)
        return {"image": one["image"], "pixels": pixels, "classes": chosen}

    @tf.function(autograph=False)
    def step(number: tf.Tensor) -> tf.Tensor:
        each = [drawn(tf.stack([number, tf.constant(i)])) for i in range(slices)]
        batch = {"image": tf.stack([one["image"] for one in each]),
                 "classes": tf.concat([one["classes"] for one in each], 0),
                 "pixels": tf.concat([tf.cast(tf.pad(one["pixels"], [[0, 0], [1, 0]],
                                                     constant_values=i), tf.float32)
                                      for i, one in enumerate(each)], 0)}
        if config.model.context_slices > 1:
            batch["neighbours"] = tf.constant(neighbours, tf.int32)
        loss, gradients = loss_and_gradients(
            model, batch, tf.stack([number, number]), variables=tensors, fast=training.fast,
            precision=tf.as_dtype(training.precision), lattice=lattice_of(sampling),
            loss_of=loss_of, regions=config.scored_regions)
        state.optimizer.apply(gradients, state.trained)
        state.average()
        return loss

    step_seconds, step_cpu = _timed(lambda number: float(step(tf.constant(number))))
    training_bytes = _largest_memory()
    share = training.step_slices / slices

    _forget_memory()
    prediction = config.prediction
    segmenter = SliceSegmenter(model, None, prediction.mode, prediction.precision)
    domain = brain if prediction.inside_brain(config.study) else np.ones_like(brain)
    images, domains = tf.constant(image[None]), tf.constant(domain[None])
    slice_seconds, slice_cpu = _timed(lambda _: segmenter.scores(images, domains).numpy())
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if device == "CPU":
        # Where other programs are at work, the clock says too much.
        step_seconds, slice_seconds = min(step_seconds, step_cpu), min(slice_seconds, slice_cpu)
    return TrialResult(device, step_seconds * share, step_cpu * share, training_bytes,
                       slice_seconds, slice_cpu, _largest_memory())


def _timed(work: Callable[[int], object]) -> tuple[float, float]:
    """Seconds by the clock and of all cores of one piece of work, once it is warm."""
    begin, cores = time.perf_counter(), time.process_time()
    work(0)
    if time.process_time() - cores > _LONG_SECONDS:
        # TensorFlow's preparation, some five seconds, is then a small part of it.
        return time.perf_counter() - begin, time.process_time() - cores
    times = []
    begin = time.perf_counter()
    for number in range(1, _STEPS + 1):
        clock, cores = time.perf_counter(), time.process_time()
        work(number)
        times.append((time.perf_counter() - clock, time.process_time() - cores))
        if time.perf_counter() - begin > _STEP_SECONDS:
            break
    # Other programs only add to it.
    return min(clock for clock, _ in times), min(cores for _, cores in times)


def _largest_memory() -> int:
    """Bytes: the most since the process began, or since `_forget_memory` where the system can."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _forget_memory() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return
