"""nnU-Net's 2-D U-Net and its training on slices in memory; it knows PyTorch and nothing of ours.

`peer.py` says whose is what. Every mini-batch is a function of its number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

SLICES, RATE, FOREGROUND = 4, 1e-2, 0.33
FEATURES = (32, 64, 128, 256, 512, 512, 512)
#: Images (slice, height, width, channel) float16 of a case, and their classes.
Case = tuple[np.ndarray, np.ndarray]


def network(channels: int, classes: int) -> Any:
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


class Slices:
    """Training slices in memory, and mini-batches of them.

    Args:
        cases: of each case the slices with any brain.
    """

    def __init__(self, cases: Sequence[Case], seed: int):
        self._seed = seed
        self._cases = [(images, labels, np.flatnonzero((labels > 0).any(axis=(1, 2))))
                       for images, labels in cases]
        height, width = cases[0][1].shape[1:]
        # Six halvings; what is added is empty.
        self.size = (-(-height // 64) * 64, -(-width // 64) * 64)
        self._augment = _augmentation(self.size)

    def batch(self, number: int) -> tuple[Any, Any]:
        """Images (slice, channel, height, width) and classes (slice, height, width)."""
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
            image = padded(images[row].astype(np.float32).transpose(2, 0, 1), self.size)
            truth = padded(labels[row][None].astype(np.int16), self.size)
            varied = self._augment(image=torch.from_numpy(image),
                                   segmentation=torch.from_numpy(truth))
            found.append((varied["image"], varied["segmentation"][0].long().clamp(min=0)))
        return torch.stack([one for one, _ in found]), torch.stack([one for _, one in found])


def padded(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (want - have for want, have in zip(size, array.shape[-2:], strict=True))
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, rows), (0, columns)])


def _loss(outputs: list[Any], truth: Any) -> Any:
    """nnU-Net's sum over the resolutions: weights 1, 1/2, 1/4, ..., the lowest left out."""
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


def products(precision: str, device: str = "cpu") -> Any:
    """The number type of what is computed within."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


class Training:
    """Network, solver and step of a training, kept in a file.

    Args:
        cases: as `Slices` takes them. steps: of the whole training. device: cpu or cuda.
    """

    def __init__(self, cases: Sequence[Case], classes: int, steps: int, seed: int, precision: str,
                 device: str = "cpu"):
        torch.manual_seed(seed)
        self.classes, self.precision, self.device = classes, precision, device
        #: What a state to go on from must have been asked for, too.
        self.asked = {"steps": steps, "seed": seed, "precision": precision}
        self.network = network(cases[0][0].shape[-1], classes)
        self.network = self.network.to(device, memory_format=torch.channels_last)
        self.solver = torch.optim.SGD(self.network.parameters(), RATE, momentum=0.99, nesterov=True,
                                      weight_decay=3e-5)
        self.slices = Slices(cases, seed)
        self.steps, self.done = steps, 0
        self.rows: list[dict[str, float]] = []
        self.best: tuple[float, dict[str, Any] | None] = (-1.0, None)

    def step(self, batch: tuple[Any, Any] | None = None) -> Any:
        """One step, on the batch of its number, which may be given; returns the loss ()."""
        for group in self.solver.param_groups:
            group["lr"] = RATE * (1 - self.done / self.steps) ** 0.9
        image, truth = self.slices.batch(self.done) if batch is None else batch
        image = image.to(self.device, memory_format=torch.channels_last)
        self.network.train()
        with products(self.precision, self.device):
            outputs = self.network(image)
        loss = _loss(outputs, truth.to(self.device))
        self.solver.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.solver.step()
        self.done += 1
        return loss.detach()

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        torch.save({"network": self.network.state_dict(), "solver": self.solver.state_dict(),
                    "done": self.done, "rows": self.rows, "best": self.best,
                    "asked": self.asked}, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def restore(self, path: Path) -> dict[str, Any] | None:
        """Go on from a file; returns what that training was asked for, where it says so."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.solver.load_state_dict(state["solver"])
        self.done, self.rows, self.best = state["done"], state["rows"], tuple(state["best"])
        return state.get("asked")
