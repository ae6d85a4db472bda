"""What this machine has, as far as a plan hangs on it; loads no TensorFlow."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from pixelnet_tf.io.processor import bfloat16_instructions, cores, cpuinfo, memory


@dataclass(frozen=True)
class Hardware:
    """A machine.

    Attributes:
        processor: its name.
        cores: processor cores that this program may use.
        memory_gb: memory in all, in units of 1e9 bytes; 0 where it is not known.
        bfloat16: the instructions by which the processor multiplies bfloat16; empty: it has none.
        gpu: whether a graphics card of NVIDIA is there.
    """

    processor: str
    cores: int
    memory_gb: float
    bfloat16: str
    gpu: bool

    @classmethod
    def here(cls) -> Hardware:
        """This machine."""
        named = cpuinfo()
        return cls(named.get("model name") or platform.processor() or platform.machine(),
                   cores(), memory() / 1e9, bfloat16_instructions(),
                   Path("/dev/nvidia0").exists())

    def __str__(self) -> str:
        return (f"{self.cores} cores of {self.processor}"
                + (f", {self.memory_gb:.0f} GB of memory" if self.memory_gb else "")
                + (", a graphics card" if self.gpu else ""))
