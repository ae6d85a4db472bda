"""The peer: nnU-Net's 2-D U-Net with its loss, solver and augmentation, trained by PyTorch.

The network is `PlainConvUNet` of the package dynamic-network-architectures, the augmentation is of
batchgeneratorsv2, both nnU-Net's own; loss, solver and schedule are nnU-Net's by its description
(Isensee et al., 2021): Dice over the mini-batch plus cross-entropy, at every resolution of the
decoder but the two lowest, SGD with Nesterov's momentum of 0.99, decay of 3e-5, gradients clipped
at a norm of 12, a rate of 0.01 that falls to 0 by a power of 0.9; one of the four slices of a
step shows a lesion for certain. It reads the slices that the others read. The state that validates
best is kept, as with the others (nnU-Net itself takes the last).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.io.files import write_json
from pixelnet_tf.reporting import Reporter

from . import decision


def _unet() -> ModuleType:
    """The module of the network, which loads PyTorch."""
    try:
        from . import unet
    except ImportError:
        raise ConfigError("the contestant nnunet needs PyTorch and nnU-Net's packages",
                          hint="pip install '.[peer]'") from None
    return unet


class PeerScorer:
    """The network as the race reads it: like a `SliceSegmenter`, log-probabilities for scores."""

    #: It sees a slice alone.
    reach = 0
    planes = ("axial",)
    every = 1

    def __init__(self, network: Any, classes: int, precision: str):
        self._network, self.classes, self._precision = network.eval(), classes, precision
        self.background = tf.constant(Decoding.plain(classes, False).background)

    def scores(self, image: Any, domain: Any, read_out: Any = None) -> tf.Tensor:
        import torch

        from . import unet

        pixels = np.asarray(image).transpose(0, 3, 1, 2)
        height, width = pixels.shape[-2:]
        size = (-(-height // 64) * 64, -(-width // 64) * 64)
        with torch.no_grad(), unet.products(self._precision):
            found = self._network(torch.from_numpy(unet.padded(pixels, size)))
        found = found[0] if isinstance(found, (list, tuple)) else found
        found = found.float().numpy()[..., :height, :width].transpose(0, 2, 3, 1)
        inside = np.asarray(domain)[..., None]
        return tf.constant(np.where(inside, found, self.background.numpy()).astype(np.float32))


def slices_of(study: PreparedStudy, cases: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the U-Net trains on, case by case: images float16 and classes of slices with any brain.

    Raises `ConfigError` where slices have different sizes.
    """
    found = []
    for case in cases:
        volume = study.read_volume(case)
        busy = volume.brain.any(axis=(1, 2))
        found.append((volume.images[busy].astype(np.float16), volume.labels[busy]))
    sizes = sorted({labels.shape[1:] for _, labels in found})
    if len(sizes) > 1:
        raise ConfigError(f"slices have the sizes {sizes}",
                          hint="set prepare.slice_size, for a U-Net wants one")
    return found


def _training(config: Config, study: PreparedStudy, split: Split, steps: int) -> Any:
    unet = _unet()
    unet.torch.set_num_threads(os.cpu_count() or 1)
    return unet.Training(slices_of(study, split.train), len(study.config.study.labels), steps,
                         config.training.seed, config.training.precision.value)


def seconds_a_step(config: Config, study: PreparedStudy, split: Split, steps: int) -> float:
    """CPU-seconds of a step, reading and varying the slices counted in, from the third on."""
    training = _training(config, study, split, 10**6)
    for number in range(1, steps + 3):
        if number == 3:
            start = time.process_time()
        training.step()
    return (time.process_time() - start) / steps


def train(config: Config, study: PreparedStudy, split: Split, run: Path, steps: int,
          every: int, reporter: Reporter) -> PeerScorer:
    """Train, or go on, for the given steps, validating after `every` of them."""
    path = run / "peer.pt"
    run.mkdir(parents=True, exist_ok=True)
    training = _training(config, study, split, steps)
    if path.is_file():
        asked = training.restore(path)
        if asked not in (None, training.asked):
            raise ConfigError(f"is of a training of {asked}, not of {training.asked}", file=path,
                              hint="begin a new folder")
        reporter.message(f"going on from step {training.done} of {steps}")
    scorer = PeerScorer(training.network, training.classes, training.precision)
    while training.done < steps:
        loss = float(training.step())
        reporter.progress("training", training.done, steps, f"loss {loss:.4f}")
        due = training.done % every == 0 or training.done == steps
        if due and split.validation:
            training.network.eval()
            score = float(decision.dice_table(scorer, study, split.validation, config.prediction,
                                              [decision.PLAIN]).mean())
            training.rows.append({"step": training.done, "loss": loss, "validation/score": score})
            reporter.message(f"step {training.done}/{steps}  validation  {score:.3f}")
            if score > training.best[0]:
                weights = {name: tensor.clone() for name, tensor in
                           training.network.state_dict().items()}
                training.best = (score, weights)
        if due or training.done % 50 == 0:
            training.save(path)
    write_json(run / "log.json", training.rows)
    if training.best[1] is not None:
        training.network.load_state_dict(training.best[1])
    return PeerScorer(training.network, training.classes, training.precision)


def take_over(config: Config, study: PreparedStudy, split: Split, run: Path, steps: int,
              weights: dict[str, np.ndarray], losses: np.ndarray) -> None:
    """Write the run of a training that ended on another machine, without its solver's state."""
    training = _training(config, study, split, steps)
    with _unet().torch.no_grad():
        for name, parameter in training.network.named_parameters():
            parameter.copy_(_unet().torch.from_numpy(weights[name]))
    training.done = steps
    training.rows = [{"step": steps, "loss": float(losses[-1])}]
    run.mkdir(parents=True, exist_ok=True)
    training.save(run / "peer.pt")


def curve(run: Path) -> list[tuple[int, float]]:
    """(step, validation Dice) of the log."""
    rows = json.loads((run / "log.json").read_text(encoding="utf-8"))
    return [(int(row["step"]), row["validation/score"]) for row in rows
            if "validation/score" in row]
