"""Write the training step and the exact scores as StableHLO, for a runtime without TensorFlow.

    python scripts/export_hlo.py OUT [--config brats2017] [--set KEY=VALUE] [--size 240 240]
    python scripts/export_hlo.py OUT --check    # compile both here and compare with TensorFlow

OUT/step.stablehlo varies and samples a mini-batch of resident slices, computes and differentiates
the network and applies the solver; OUT/scores.stablehlo gives the scores of every pixel of a
mini-batch. OUT/programs.json tells shape and type of every argument, in order, and which of them
the results replace. Weights are random and written nowhere: to time a program they do, and to train
with it scripts/race/away.py packs a start. `time_hlo.py` times both by JAX.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import Config, Precision, load_config
from pixelnet_tf.dataset.resident import ResidentSlices, resident_batch
from pixelnet_tf.inference.compiled import scores_program, whole_scores
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.io.files import begin_folder, write_json
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.compiled import compiled_step, plain_training, training_program
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import make_step


def new_state(config: Config) -> TrainingState:
    """A training that begins with random weights, in the form that compiles."""
    model = PixelNet(config.model, len(config.study.modalities), len(config.study.labels),
                     seed=config.training.seed)
    return TrainingState(model, config.training, model.weighted, config.training.steps or 1000)


def noise(config: Config, count: int, height: int, width: int) -> ResidentSlices:
    """Slices of noise within an ellipse, with lesions of every class."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    brain = np.broadcast_to(rows**2 + columns**2 < 0.7, (count, height, width))
    images = rng.normal(0, 1, (*brain.shape, len(config.study.modalities))) * brain[..., None]
    labels = rng.integers(0, len(config.study.labels), brain.shape) * brain
    return ResidentSlices(images.astype(np.float32), labels.astype(np.int32), brain.copy(),
                          np.arange(count, dtype=np.int32), np.int32(count))


def told(arrays: Any) -> list[list[Any]]:
    return [[list(array.shape), array.dtype.name] for array in arrays]


def export(config: Config, out: Path, slices: ResidentSlices) -> None:
    """Write both programs and what they take."""
    begin_folder(out)
    state, (height, width) = new_state(config), slices.labels.shape[1:]
    size = config.training.batch_slices
    step = training_program(state, config.sampling, slices)
    model = state.model
    scores = scores_program(model, size, height, width, config.prediction.precision.value)
    (out / "step.stablehlo").write_bytes(step.module)
    (out / "scores.stablehlo").write_bytes(scores.module)
    variables = state.variables
    batch = np.zeros((size, height, width, model.channels), np.float32)
    fixed = [*slices, np.zeros(size, np.int32), np.int32(0)]
    write_json(out / "programs.json", {
        "step": {"arguments": told([*fixed, *(variables[number] for number in step.inputs)]),
                 "replaces": [len(fixed) + step.inputs.index(number) for number in step.outputs]},
        "scores": {"arguments": told([batch, *(model.variables[number].value
                                              for number in scores.inputs)]), "replaces": []}})


def check(config: Config, slices: ResidentSlices) -> None:
    """Compile both here, run them, and compare; raises AssertionError where they differ."""
    own, compiled = new_state(config), new_state(config)
    places, number = tf.range(config.training.batch_slices), tf.constant(1)
    batch = resident_batch(ResidentSlices(*map(tf.constant, slices)), places, tf.constant(0),
                           config.sampling, own.model.classes, config.training.seed)
    loss = float(make_step(own, config.sampling)([batch], number))
    found = float(compiled_step(compiled, config.sampling, slices)(*slices, places, number))
    np.testing.assert_allclose(found, loss, rtol=1e-4)
    moved = [float(np.abs(one.numpy() - other.numpy()).max() / max(1e-6, np.abs(one).max()))
             for one, other in zip(own.variables, compiled.variables, strict=True)
             if one.dtype.is_floating]
    print(f"step: loss {found:.6f} compiled, {loss:.6f} by TensorFlow; variables differ by "
          f"{max(moved):.1e} of the largest at most")
    image = batch["image"]
    scores = tf.function(lambda given: whole_scores(own.model, given), jit_compile=True,
                         autograph=False)(image)
    reference = DenseScorer(own.model).reference(image)
    gap = float(np.abs(scores - reference).max() / np.abs(reference).max())
    assert gap < 1e-4, gap
    print(f"scores: differ by {gap:.1e} of the largest from the plain hypercolumn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="brats2017")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 240))
    parser.add_argument("--slices", type=int, default=8, help="resident slices")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    config = load_config(given.config, given.overrides)
    config = replace(config, training=plain_training(config.training))
    if config.prediction.precision == Precision.AUTO:
        # What this machine would choose says nothing of the one that runs the program.
        config = replace(config, prediction=replace(config.prediction,
                                                    precision=Precision.FLOAT32))
    slices = noise(config, given.slices, *given.size)
    if given.check:
        check(config, slices)
    export(config, given.out, slices)
    print(json.dumps({path.name: path.stat().st_size for path in sorted(given.out.iterdir())}))


if __name__ == "__main__":
    main()
