"""The training step, plain, fast and in bfloat16, and the pipeline that feeds it."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import floor
from benchmarks.machine import memory_gb, timed
from benchmarks.study import (
    Options,
    best_configuration,
    brain_box,
    configuration,
    prepared_study,
)

#: What a step of the preset `best` can learn from: the paper's sample, the preset's own draw, every
#: pixel of a lattice.
DRAWS = {"sampled": ("sampling.strategy=balanced", "sampling.pixels=2000"), "drawn": (),
         "all": ("sampling.strategy=all", "sampling.lattice=2")}


def _batch(options: Options, pixels: int = 2000):
    """The first mini-batch of one slice with a lesion."""
    from dataclasses import replace
    return _first_batch(options, replace(configuration(options).sampling, lesion_free_slices=0.0,
                                         pixels=pixels), 1)


def _first_batch(options: Options, sampling, slices: int):
    from pixelnet_tf.dataset.pipeline import training_batches
    from pixelnet_tf.dataset.schedule import SliceSchedule
    study = prepared_study(options)
    schedule = SliceSchedule(study, study.cases, sampling, seed=1)
    return next(iter(training_batches(study, schedule, sampling, batch_slices=slices, seed=1)))


def _model(options: Options, dropout: float = 0.5, classes: int = 4):
    from dataclasses import replace

    from pixelnet_tf.model.pixelnet import PixelNet
    config = replace(configuration(options).model, dropout=dropout)
    return PixelNet(config, 3, classes, seed=1)


def step_function(model, fast: bool, precision: str):
    """A function from a mini-batch and a seed to the loss, after one step of the solver."""
    import tensorflow as tf

    from pixelnet_tf.config import SolverConfig
    from pixelnet_tf.training.solver import solver_from_config
    from pixelnet_tf.training.step import loss_and_gradients
    variables = model.trainable_variables
    optimizer = solver_from_config(SolverConfig(base_lr=1e-5), 1000, model.multipliers)
    optimizer.build(variables)

    @tf.function
    def step(batch, seed):
        loss, gradients = loss_and_gradients(
            model, batch, seed, variables=[v.value for v in variables], fast=fast,
            precision=tf.as_dtype(precision))
        optimizer.apply(gradients, variables)
        return loss

    return step


def step(options: Options, fast: bool, precision: str) -> dict:
    """Seconds of a solver step of one slice and 2000 pixels, and the process's peak memory."""
    import tensorflow as tf
    batch, model = _batch(options), _model(options)
    function = step_function(model, fast, precision)
    built, seed = memory_gb()[1], tf.constant([1, 2])
    median, smallest = timed(lambda: float(function(batch, seed)), 3 if options.quick else 7, 2)
    box = brain_box(batch["image"][0].numpy())
    return {"seconds": median, "smallest_seconds": smallest, "peak_gb": memory_gb()[1],
            "peak_gb_built": built, "box": box}


def best_step(options: Options, draw: str) -> dict:
    """Seconds of a step of the preset `best` (two slices) for one of `DRAWS`, the pixels that it
    takes, and the process's peak memory."""
    import tensorflow as tf

    from pixelnet_tf.io.processor import bfloat16_instructions
    from pixelnet_tf.model.pixelnet import PixelNet
    from pixelnet_tf.training.state import TrainingState
    from pixelnet_tf.training.step import make_step
    precision = "bfloat16" if bfloat16_instructions() else "float32"
    config = best_configuration(options, "sampling.lesion_free_slices=0",
                                f"training.precision={precision}", *DRAWS[draw])
    batch = _first_batch(options, config.sampling, config.training.batch_slices)
    model = PixelNet(config.model, 3, len(config.study.labels), seed=1)
    state = TrainingState(model, config.training, (), config.training.steps)
    function = make_step(state, config.sampling)
    median, smallest = timed(lambda: float(function([batch], tf.constant(1))),
                             3 if options.quick else 7, 2)
    return {"seconds": median, "smallest_seconds": smallest, "peak_gb": memory_gb()[1],
            "pixels": len(batch["pixels"]), "precision": precision}


def gradients(options: Options) -> dict:
    """Differences of the fast step's gradients from the plain one's over each layer's largest,
    dropout off; and of the worst layer, how many columns (units) exceed 1e-4."""
    import tensorflow as tf

    from pixelnet_tf.training.step import loss_and_gradients
    batch, model = _batch(options), _model(options, dropout=0.0)
    variables = [v.value for v in model.trainable_variables]

    def run(fast):
        function = tf.function(lambda: loss_and_gradients(
            model, batch, tf.constant([1, 2]), variables=variables, fast=fast))
        return [tf.convert_to_tensor(g).numpy() for g in function()[1]]

    worst = {"difference": -1.0}
    for variable, mine, theirs in zip(model.trainable_variables, run(True), run(False),
                                      strict=True):
        # Random layers this deep attenuate a signal; each is compared with its own largest. A ReLU
        # whose input is so close to zero that the order of a sum decides its sign moves one column.
        columns = np.abs(mine - theirs).reshape(-1, theirs.shape[-1]).max(axis=0)
        columns /= np.abs(theirs).max()
        if columns.max() > worst["difference"]:
            worst = {"difference": float(columns.max()), "layer": variable.path,
                     "columns": len(columns), "columns_over": int((columns > 1e-4).sum()),
                     "rest": float(columns[columns <= 1e-4].max(initial=0.0))}
    return worst


def sampler(options: Options) -> dict:
    """Slices a second that the sampler, and the whole pipeline, can give."""
    import tensorflow as tf

    from pixelnet_tf.dataset.pipeline import training_batches
    from pixelnet_tf.dataset.sampler import sample_pixels
    from pixelnet_tf.dataset.schedule import SliceSchedule
    study, config = prepared_study(options), configuration(options)
    schedule = SliceSchedule(study, study.cases, config.sampling, seed=1)
    volume = study.read_volume(study.cases[0])
    row = int(volume.labels.astype(bool).sum(axis=(1, 2)).argmax())
    labels = tf.constant(volume.labels[row], tf.int32)
    brain = tf.constant(volume.brain[row])
    draw = tf.function(lambda seed: sample_pixels(labels, brain, seed, classes=4,
                                                  config=config.sampling))
    alone, _ = timed(lambda: draw(tf.constant([1, 2]))[0].numpy(), 50, 5)
    count = 64 if options.quick else 256
    batches = iter(training_batches(study, schedule, config.sampling, batch_slices=1, seed=1))
    for _ in range(8):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return {"sampler_seconds": alone,
            "pipeline_seconds": (time.perf_counter() - wall) / count,
            "pipeline_cpu_seconds": (time.process_time() - cpu) / count}


def growth(options: Options) -> dict:
    """Seconds of the fast step for more pixels and more classes."""
    import tensorflow as tf
    found, repeats = {"pixels": {}, "classes": {}}, 2 if options.quick else 3
    model = _model(options)
    function = step_function(model, True, "float32")
    for pixels in (500, 8000) if options.quick else (500, 1000, 2000, 4000, 8000):
        batch = _batch(options, pixels)
        found["pixels"][str(pixels)] = timed(
            lambda f=function, b=batch: float(f(b, tf.constant([1, 2]))), repeats)[0]
    batch = _batch(options)
    del model, function
    for classes in (2, 8) if options.quick else (2, 4, 8):
        function = step_function(_model(options, classes=classes), True, "float32")
        own = {**batch, "classes": tf.minimum(batch["classes"], classes - 1)}
        found["classes"][str(classes)] = timed(
            lambda f=function, b=own: float(f(b, tf.constant([1, 2]))), repeats)[0]
        del function
    return found


def floors(rates: dict, box, pixels: int = 2000, side: int = 240) -> dict:
    """Seconds of a step at the machine's measured peaks."""
    found = {}
    for name, fast, precision in (("plain", False, "float32"), ("fast", True, "float32"),
                                  ("fast_bfloat16", True, "bfloat16")):
        peak = floor.Rates(rates[f"product_{precision}_gflops"] * 5e8,
                           rates[f"convolution_{precision}_gflops"] * 5e8,
                           rates["reading_gb_per_s"] * 1e9)
        trunk = (floor.trunk_fast(side, side, tuple(box), known=False) if fast
                 else floor.trunk_plain(side, side))
        head = pixels * (floor.head_listed() if fast else floor.head_plain())
        found[name] = floor.step_seconds(trunk, head, peak, fast)
    return found
