"""What a training will take of this machine, told before its first step.

An estimate from the number of multiplications and a moment's measurement of how fast this machine
multiplies; `pixelnet-tf plan` tries the network itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import tensorflow as tf

from pixelnet_tf.config import Precision, SamplingConfig, SolverType, Strategy, TrainingConfig
from pixelnet_tf.model.architecture import Architecture

#: Bytes that Python and TensorFlow take by themselves.
_PROGRAM = 600e6
#: Numbers that are held for each one of a map: itself, its gradient, and copies on the way.
_COPIES = 3
#: A step takes longer than its products alone by this factor: dropout, gathering, the solver.
_BESIDE = 1.4
#: The measured product: side of the images, their channels.
_SIDE, _CHANNELS = 96, 64


@dataclass(frozen=True)
class Needs:
    """What a training will take.

    Attributes:
        parameters: weights of the network.
        device: "CPU" or "GPU".
        memory_bytes: about the most memory.
        step_seconds: about the time of a step.
    """

    parameters: int
    device: str
    memory_bytes: float
    step_seconds: float

    def line(self, steps: int) -> str:
        """One sentence, for a training of so many steps."""
        return (f"{self.parameters / 1e6:.3g} million weights on the {self.device}, about "
                f"{self.memory_bytes / 1e9:.2g} GB of memory and "
                f"{_words(steps * self.step_seconds)} ({self.step_seconds:.2g} s a step), without "
                "the validations")


def needs_of(network: Architecture, training: TrainingConfig, sampling: SamplingConfig,
             channels: int, height: int, width: int) -> Needs:
    """Estimate what a training takes on slices of a size."""
    pixels, scored = sampling.pixels, 0
    if sampling.strategy == Strategy.ALL:
        pixels = height * width // sampling.lattice**2
    elif sampling.hard_pixels:
        # The candidates are scored once before, without a gradient.
        scored = sampling.drawn_pixels
    # Slices that lie side by side share those beside them.
    run = min(sampling.slab_slices, training.batch_slices)
    passes = (run + len(network.offsets) - 1) / run

    def slice_work(pixels: int) -> float:
        return network.slice_work(channels, height, width, pixels, passes)

    # Both passes back; those of frozen layers are left out, which is the first blocks' part alone.
    work = training.step_slices * (3 * slice_work(pixels) + slice_work(scored) - slice_work(0))
    parameters = network.parameters(channels)
    kept = {SolverType.ADAM: 2, SolverType.ADAMW: 2, SolverType.ADADELTA: 2}.get(
        training.solver.type, 1)
    weights = 4.0 * parameters * (2 + kept + bool(training.average_weights))
    maps = training.batch_slices * network.slice_numbers(height, width, max(pixels, scored),
                                                         passes)
    kind = "float32" if training.precision == Precision.AUTO else training.precision
    seconds = work * _BESIDE / _products_a_second(tf.as_dtype(kind))
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return Needs(parameters, device, _PROGRAM + weights + 4.0 * _COPIES * maps, seconds)


def _products_a_second(precision: tf.DType) -> float:
    """Multiplications of a convolution that this machine does in a second."""
    images = tf.ones([2, _SIDE, _SIDE, _CHANNELS], precision)
    kernel = tf.ones([3, 3, _CHANNELS, _CHANNELS], precision)
    work = 2 * _SIDE**2 * 9 * _CHANNELS**2
    best = float("inf")
    for _ in range(4):
        begin = time.perf_counter()
        tf.nn.conv2d(images, kernel, 1, "SAME").numpy()
        best = min(best, time.perf_counter() - begin)
    return work / best


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
