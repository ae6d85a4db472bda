"""What the processor can do and how much memory is there, as the system tells it; loads no
TensorFlow."""

from __future__ import annotations

import os
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


def cores() -> int:
    """Processor cores that this process may use."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1)


#: What `limit_cores` said; None: nothing.
_share: int | None = None


def limit_cores(count: int) -> None:
    """Say that this process is one of several that share the machine, and how many cores it is
    to keep busy: at least one."""
    global _share
    _share = max(1, count)


def own_cores() -> int:
    """Cores that this process is to keep busy: its share, or all that it may use."""
    return min(_share or cores(), cores())


def memory() -> int:
    """Bytes of memory, or as many as a container may use; 0 where neither is known."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    limit = _number("/sys/fs/cgroup/memory.max")
    return whole if limit is None else min(whole, limit)


def free_memory() -> int:
    """Bytes that programs may still take, of the machine or of a container; 0 where that is not
    known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    words = fields.get("MemAvailable", "").split()
    free = int(words[0]) * 1024 if words else 0
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is None or used is None:
        return free
    return min(free, max(1, limit - used))


def _number(path: str) -> int | None:
    """The number that a file of the system holds; None where it holds another word or is not
    there."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
