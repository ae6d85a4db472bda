"""The peer: nnU-Net's 2-D U-Net with its loss, solver and augmentation, trained by PyTorch.

The network is `PlainConvUNet` of the package dynamic-network-architectures, the augmentation is of
batchgeneratorsv2, both nnU-Net's own; loss, solver and schedule are nnU-Net's by its description
(Isensee et al., 2021): Dice over the mini-batch plus cross-entropy, at every resolution of the
decoder but the two lowest, SGD with Nesterov's momentum of 0.99, decay of 3e-5, gradients clipped
at a norm of 12, a rate of 0.01 that falls to 0 by a power of 0.9; a third of the slices shows a
lesion for certain. It reads the slices that the others read, four a step. The state that validates
best is kept, as with the others (nnU-Net itself takes the last).
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
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

SLICES, RATE, FOREGROUND = 4, 1e-2, 0.33
FEATURES = (32, 64, 128, 256, 512, 512, 512)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ConfigError("the contestant nnunet needs PyTorch and nnU-Net's packages",
                          hint="pip install '.[peer]'") from None
    return torch


def _network(channels: int, classes: int) -> Any:
    torch = _torch()
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = len(FEATURES)
    return PlainConvUNet(
        channels, stages, FEATURES, torch.nn.Conv2d, 3, (1, *[2] * (stages - 1)), 2, classes,
        2, conv_bias=True, norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=True)


def _augmentation(size: tuple[int, int]) -> Any:
    """nnU-Net's training transforms of 2-D patches, in its order and with its probabilities."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    return ComposeTransforms([
        SpatialTransform(size, patch_center_dist_from_border=0, random_crop=False, p_rotation=0.2,
                         rotation=(-math.pi, math.pi), p_scaling=0.2, scaling=(0.7, 1.4),
                         p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False),
        RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
        RandomTransform(GaussianBlurTransform((0.5, 1.0), False, False, 0.5), 0.2),
        RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1),
                        0.15),
        RandomTransform(ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1), 0.15),
        RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5),
                        0.25),
        RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 1, False, 1, 1), 0.1),
        RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 0, False, 1, 1), 0.3),
        MirrorTransform((0, 1)),
    ])


class _Slices:
    """Training slices in memory, float16, and mini-batches of them, each a function of its number.
    """

    def __init__(self, study: PreparedStudy, cases: tuple[str, ...], seed: int):
        self._seed, self._cases = seed, []
        sizes = set()
        for case in cases:
            volume = study.read_volume(case)
            busy = volume.brain.any(axis=(1, 2))
            labels = volume.labels[busy]
            self._cases.append((volume.images[busy].astype(np.float16), labels,
                                np.flatnonzero((labels > 0).any(axis=(1, 2)))))
            sizes.add(labels.shape[1:])
        if len(sizes) > 1:
            raise ConfigError(f"slices have the sizes {sorted(sizes)}",
                              hint="set prepare.slice_size, for a U-Net wants one")
        height, width = sizes.pop()
        # Six halvings; what is added is empty.
        self.size = (-(-height // 64) * 64, -(-width // 64) * 64)
        self._augment = _augmentation(self.size)

    def batch(self, number: int) -> tuple[Any, Any]:
        """Images (slice, channel, height, width) and classes (slice, height, width)."""
        torch = _torch()
        rng = np.random.default_rng((self._seed, number))
        # The transforms draw from both libraries' own generators.
        torch.manual_seed(int(rng.integers(2**31)))
        np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002
        certain = SLICES - round(SLICES * (1 - FOREGROUND))
        found = []
        for place in range(SLICES):
            with_lesion = [one for one in self._cases if len(one[2])]
            if place >= SLICES - certain:
                images, labels, lesions = with_lesion[rng.integers(len(with_lesion))]
                row = int(rng.choice(lesions))
            else:
                images, labels, _ = self._cases[rng.integers(len(self._cases))]
                row = int(rng.integers(len(images)))
            image = _padded(images[row].astype(np.float32).transpose(2, 0, 1), self.size)
            truth = _padded(labels[row][None].astype(np.int16), self.size)
            varied = self._augment(image=torch.from_numpy(image),
                                   segmentation=torch.from_numpy(truth))
            found.append((varied["image"], varied["segmentation"][0].long().clamp(min=0)))
        return torch.stack([one for one, _ in found]), torch.stack([one for _, one in found])


def _padded(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (want - have for want, have in zip(size, array.shape[-2:], strict=True))
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, rows), (0, columns)])


def _loss(outputs: list[Any], truth: Any) -> Any:
    """nnU-Net's sum over the resolutions: weights 1, 1/2, 1/4, ..., the lowest left out."""
    torch = _torch()
    functional = torch.nn.functional
    weights = np.array([0.5**level for level in range(len(outputs))])
    weights[-1] = 0
    total = 0
    for weight, scores in zip(weights / weights.sum(), outputs, strict=True):
        if not weight:
            continue
        small = functional.interpolate(truth[:, None].float(), scores.shape[2:],
                                       mode="nearest-exact")[:, 0].long()
        shares = scores.float().softmax(1)[:, 1:]
        hot = functional.one_hot(small, scores.shape[1]).permute(0, 3, 1, 2)[:, 1:].float()
        axes = (0, 2, 3)
        dice = (2 * (shares * hot).sum(axes) + 1e-5) / torch.clip(
            shares.sum(axes) + hot.sum(axes) + 1e-5, 1e-8)
        total = total + weight * (functional.cross_entropy(scores.float(), small) - dice.mean())
    return total


class PeerScorer:
    """The network as the race reads it: like a `SliceSegmenter`, log-probabilities for scores."""

    #: It sees a slice alone.
    reach = 0
    planes = ("axial",)

    def __init__(self, network: Any, classes: int, precision: str):
        self._network, self.classes, self._precision = network.eval(), classes, precision
        self.background = tf.constant(Decoding.plain(classes, False).background)

    def scores(self, image: Any, domain: Any, read_out: Any = None) -> tf.Tensor:
        torch = _torch()
        pixels = np.asarray(image).transpose(0, 3, 1, 2)
        height, width = pixels.shape[-2:]
        size = (-(-height // 64) * 64, -(-width // 64) * 64)
        with torch.no_grad(), _products(self._precision):
            found = self._network(torch.from_numpy(_padded(pixels, size)))
        found = found[0] if isinstance(found, (list, tuple)) else found
        found = found.float().numpy()[..., :height, :width].transpose(0, 2, 3, 1)
        inside = np.asarray(domain)[..., None]
        return tf.constant(np.where(inside, found, self.background.numpy()).astype(np.float32))


def _products(precision: str) -> Any:
    torch = _torch()
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


class _Training:
    """Network, solver and step of a training, in OUT/peer.pt."""

    def __init__(self, config: Config, study: PreparedStudy, split: Split, steps: int):
        torch = _torch()
        torch.manual_seed(config.training.seed)
        torch.set_num_threads(os.cpu_count() or 1)
        self.classes = len(study.config.study.labels)
        self.precision = config.training.precision.value
        self.network = _network(len(study.config.study.inputs), self.classes)
        self.network = self.network.to(memory_format=torch.channels_last)
        self.solver = torch.optim.SGD(self.network.parameters(), RATE, momentum=0.99, nesterov=True,
                                      weight_decay=3e-5)
        self.slices = _Slices(study, split.train, config.training.seed)
        self.steps, self.done = steps, 0
        self.rows: list[dict[str, float]] = []
        self.best: tuple[float, dict[str, Any] | None] = (-1.0, None)

    def step(self) -> float:
        torch = _torch()
        for group in self.solver.param_groups:
            group["lr"] = RATE * (1 - self.done / self.steps) ** 0.9
        image, truth = self.slices.batch(self.done)
        self.network.train()
        with _products(self.precision):
            outputs = self.network(image.contiguous(memory_format=torch.channels_last))
        loss = _loss(outputs, truth)
        self.solver.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.solver.step()
        self.done += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        _torch().save({"network": self.network.state_dict(), "solver": self.solver.state_dict(),
                       "done": self.done, "rows": self.rows, "best": self.best}, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        state = _torch().load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.solver.load_state_dict(state["solver"])
        self.done, self.rows, self.best = state["done"], state["rows"], tuple(state["best"])


def seconds_a_step(config: Config, study: PreparedStudy, split: Split, steps: int) -> float:
    """CPU-seconds of a step, reading and varying the slices counted in, from the third on."""
    training = _Training(config, study, split, 10**6)
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
    training = _Training(config, study, split, steps)
    if path.is_file():
        training.restore(path)
        reporter.message(f"going on from step {training.done} of {steps}")
    scorer = PeerScorer(training.network, training.classes, training.precision)
    while training.done < steps:
        loss = training.step()
        reporter.progress("training", training.done, steps, f"loss {loss:.4f}")
        if training.done % every == 0 or training.done == steps:
            training.network.eval()
            score = float(_arg_max_dice(scorer, study, split, config).mean())
            training.rows.append({"step": training.done, "loss": loss, "validation/score": score})
            reporter.message(f"step {training.done}/{steps}  validation  {score:.3f}")
            if score > training.best[0]:
                weights = {name: tensor.clone() for name, tensor in
                           training.network.state_dict().items()}
                training.best = (score, weights)
            training.save(path)
        elif training.done % 50 == 0:
            training.save(path)
    write_json(run / "log.json", training.rows)
    if training.best[1] is not None:
        training.network.load_state_dict(training.best[1])
    return PeerScorer(training.network, training.classes, training.precision)


def _arg_max_dice(scorer: PeerScorer, study: PreparedStudy, split: Split, config: Config
                  ) -> np.ndarray:
    from pixelnet_tf.cases.labels import classes_to_values
    from pixelnet_tf.evaluation.tuning import mean_dice

    found = []
    for case in split.validation:
        volume = study.read_volume(case)
        labels = decision.labels_by(
            decision.PLAIN, decision.case_scores(scorer, volume, study.config.study,
                                                 config.prediction), volume, study.config.study)
        truth = volume.plan.to_volume(classes_to_values(
            volume.plan.read_voxels(volume.labels), study.config.study))
        found.append(mean_dice(truth, labels, study.config.study))
    return np.array(found or [0.0])


def curve(run: Path) -> list[tuple[int, float]]:
    """(step, validation Dice) of the log."""
    rows = json.loads((run / "log.json").read_text(encoding="utf-8"))
    return [(int(row["step"]), row["validation/score"]) for row in rows]
