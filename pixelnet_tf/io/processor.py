"""What the processor can do, as the system tells it; loads no TensorFlow."""

from __future__ import annotations

from functools import cache
from pathlib import Path

#: What /proc/cpuinfo calls the instructions that multiply bfloat16 numbers.
_BFLOAT16 = ("amx_bf16", "avx512_bf16")


@cache
def cpuinfo() -> dict[str, str]:
    """The fields of /proc/cpuinfo, those of its last processor; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in fields}


def bfloat16_instructions(flags: str | None = None) -> str:
    """The instructions by which the processor multiplies bfloat16; empty: it has none.

    flags: names of instruction sets, as /proc/cpuinfo lists them; None: this processor's.
    """
    known = (cpuinfo().get("flags", "") if flags is None else flags).split()
    return next((name for name in _BFLOAT16 if name in known), "")
