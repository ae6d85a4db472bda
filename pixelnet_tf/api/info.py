"""What this installation and this machine are: for a bug report, and before a long training."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import time
from dataclasses import dataclass, field
from typing import Any

from pixelnet_tf import __version__
from pixelnet_tf.io.processor import cpuinfo, free_memory

#: Instruction sets that TensorFlow's products hang on.
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
                 "amx_bf16", "amx_int8")
_PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "nibabel", "SimpleITK", "protobuf")
#: Extras that are for the work on this project, and the one that names others.
_NO_PARTS = {"test", "test-serving", "docs", "oracle", "benchmark", "peer", "all"}
#: A requirement as a package's metadata hold it: `tensorflow[and-cuda]>=2.18; extra == "gpu"`.
_REQUIREMENT = re.compile(r"""(?P<package>[\w.-]+)\s*(?:\[(?P<with_extras>[^]]*)\])?[^;]*"""
                          r"""(?:;.*\bextra == ["'](?P<extra>[^"']+))?""")
#: A convolution of VGG-16's third block on two slices of 112 x 112 pixels.
_SIDE, _CHANNELS = 112, 256
#: How long each number type is measured.
_SECONDS = 1.0


@dataclass(frozen=True)
class Info:
    """Versions, devices and speeds.

    Attributes
    ----------
    versions
        Package -> version; empty where it is not installed.
    processor, cores, instructions
        The processor's name, the cores that this program may use, and its instruction sets.
    memory_free, memory
        Bytes; 0 where they are not known.
    gpus
        Name and compute capability of each, as a line.
    bfloat16
        What multiplies bfloat16 here; empty: nothing does.
    auto
        What `precision: auto` stands for, of the full network.
    tf32
        Whether TensorFlow lets a GPU round the factors of float32 products to TF32.
    gflops
        Number type -> measured speed of a convolution, in 1e9 multiplications and additions a
        second; empty where nothing was measured.
    extras
        Extra -> whether all packages that it brings are there.
    """

    versions: dict[str, str]
    processor: str
    cores: int
    instructions: tuple[str, ...]
    memory_free: int
    memory: int
    gpus: tuple[str, ...]
    bfloat16: str
    auto: str
    tf32: bool
    gflops: dict[str, float] = field(default_factory=dict)
    extras: dict[str, bool] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """All of it, a line each."""
        found = [f"{name} {version or 'is not installed'}"
                 for name, version in self.versions.items()]
        found.append(f"processor: {self.cores} cores of {self.processor}")
        found.append(f"instruction sets: {', '.join(self.instructions) or 'not known'}")
        if self.memory:
            found.append(f"memory: {self.memory_free / 1e9:.1f} GB free of "
                         f"{self.memory / 1e9:.1f} GB")
        found += [f"GPU: {gpu}" for gpu in self.gpus] or ["GPU: none that TensorFlow sees"]
        if self.gpus:
            found.append("float32 products on a GPU: " + (
                "their factors are rounded to TF32; NVIDIA_TF32_OVERRIDE=0 forbids it" if self.tf32
                else "in float32"))
        found.append(f"bfloat16: multiplied by {self.bfloat16}" if self.bfloat16 else
                     "bfloat16: nothing here multiplies it; it is slower than float32")
        found.append(f"precision auto: {self.auto} (the full network; one whose layers have fewer "
                     "than 128 channels takes float32)")
        found += [f"a convolution in {name}: {speed:.0f} GFLOP/s"
                  for name, speed in self.gflops.items()]
        there, absent = ([name for name, there in self.extras.items() if there is is_there]
                         for is_there in (True, False))
        found.append(f"extras: {', '.join(there) or 'none'}"
                     + (f"; not there: {', '.join(absent)}" if absent else ""))
        return found


def machine_info(measure: bool = True) -> Info:
    """What this installation and this machine are.

    Parameters
    ----------
    measure
        Whether the speed of a convolution is measured, which takes some seconds.

    Examples
    --------
    >>> from pixelnet_tf.api.info import machine_info
    >>> info = machine_info(measure=False)
    >>> info.auto in ("float32", "bfloat16"), info.gflops
    (True, {})
    """
    import tensorflow as tf

    from pixelnet_tf.config import ModelConfig
    from pixelnet_tf.model.precision import auto_precision, bfloat16_by
    from pixelnet_tf.planning.hardware import Hardware

    hardware, flags = Hardware.here(), cpuinfo().get("flags", "").split()
    return Info(
        {"pixelnet-tf": __version__, "Python": platform.python_version(),
         **{name: _version(name) for name in _PACKAGES}},
        hardware.processor, hardware.cores,
        tuple(name for name in _INSTRUCTIONS if name in flags), free_memory(),
        int(hardware.memory_gb * 1e9),
        tuple(_gpu(tf, device) for device in tf.config.list_physical_devices("GPU")),
        bfloat16_by(), auto_precision(ModelConfig()).value,
        tf.config.experimental.tensor_float_32_execution_enabled(),
        {name: _gflops(tf, name) for name in ("float32", "bfloat16")} if measure else {},
        {extra: there for extra, there in _extras("pixelnet-tf").items()
         if extra not in _NO_PARTS})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _extras(package: str) -> dict[str, bool]:
    """Extra of an installed package -> whether what it brings is installed; empty without it."""
    try:
        requirements = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, bool] = {}
    for text in requirements:
        match = _REQUIREMENT.match(text)
        if match is None or match["extra"] is None:
            continue
        there = bool(_version(match["package"])) and all(
            _extras(match["package"]).get(extra.strip(), False)
            for extra in filter(None, (match["with_extras"] or "").split(",")))
        found[match["extra"]] = found.get(match["extra"], True) and there
    return found


def _gpu(tf: Any, device: Any) -> str:
    about = tf.config.experimental.get_device_details(device)
    capability = ".".join(map(str, about.get("compute_capability", ())))
    return (f"{about.get('device_name', device.name)}"
            + (f", compute capability {capability}" if capability else ""))


def _gflops(tf: Any, kind: str) -> float:
    """Speed of a convolution in a number type, in 1e9 multiplications and additions a second."""
    images = tf.ones([2, _SIDE, _SIDE, _CHANNELS], kind)
    kernel = tf.ones([3, 3, _CHANNELS, _CHANNELS], kind)
    # A sum comes back, so that the time is that of the work and not of a queue.
    convolution = tf.function(lambda images, kernel: tf.reduce_sum(
        tf.nn.conv2d(images, kernel, 1, "SAME")[:, 0, 0]), autograph=False)
    float(convolution(images, kernel))
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        float(convolution(images, kernel))
        best = min(best, time.perf_counter() - start)
    return 2 * 2 * _SIDE**2 * 9 * _CHANNELS**2 / best / 1e9
