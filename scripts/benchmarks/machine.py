"""What the machine is, what it can do at best, and how busy it is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable


def load() -> float:
    """Processes that want to run, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


#: What decides the speed of products and convolutions, the widest last.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def instructions() -> str:
    """The instruction sets that the processor has, and the widest that libraries are kept to."""
    from pixelnet_tf.io.processor import cpuinfo
    flags = cpuinfo().get("flags", "").split()
    kept = sorted({os.environ[name] for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
                   if name in os.environ})
    return " ".join(name for name in INSTRUCTIONS if name in flags) + "".join(
        f"; kept to {name}" for name in kept)


def memory_gb() -> tuple[float, float]:
    """This process's memory now and at its peak, GB (Linux)."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[name].split()[0]) * 1024 / 1e9 for name in ("VmRSS", "VmHWM"))


def timed(work: Callable, repeats: int = 5, warm: int = 1) -> tuple[float, float]:
    """(median, smallest) seconds of a piece of work."""
    seconds = []
    for number in range(warm + repeats):
        start = time.perf_counter()
        work()
        if number >= warm:
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    return seconds[len(seconds) // 2], seconds[0]


def describe() -> dict:
    """Processor, cores, memory and versions."""
    from pixelnet_tf.io.processor import cpuinfo
    model = cpuinfo().get("model name", platform.processor())
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024 / 1e9
    import keras
    import SimpleITK
    import tensorflow as tf
    return {"processor": model, "cores": os.cpu_count(), "memory_gb": round(total, 1),
            "instructions": instructions(), "python": platform.python_version(),
            "tensorflow": tf.__version__, "keras": keras.__version__,
            "simpleitk": SimpleITK.Version.VersionString(), "system": platform.platform()}


def peaks(quick: bool) -> dict:
    """Measured GFLOP/s of a large product and of a 3x3 convolution, GB/s of reading and adding."""
    import tensorflow as tf
    size, repeats = (1024, 3) if quick else (4096, 5)
    found = {}
    for precision in ("float32", "bfloat16"):
        a = tf.cast(tf.random.stateless_normal([size, size], [1, 2]), precision)
        best = timed(lambda a=a: tf.matmul(a, a).numpy(), repeats)[1]
        found[f"product_{precision}_gflops"] = round(2 * size**3 / best / 1e9)
        x = tf.cast(tf.random.stateless_normal([1, 112, 112, 256], [1, 2]), precision)
        kernel = tf.cast(tf.random.stateless_normal([3, 3, 256, 256], [3, 4]), precision)
        convolve = tf.function(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"))
        best = timed(lambda c=convolve, x=x, k=kernel: c(x, k).numpy(), 3 * repeats)[1]
        found[f"convolution_{precision}_gflops"] = round(2 * 112 * 112 * 9 * 256**2 / best / 1e9)
    vector = tf.zeros([25088, size])
    # One row against a large matrix: what fc6 at a few cells is bound by.
    row = tf.ones([1, 25088])
    best = timed(lambda: tf.matmul(row, vector).numpy(), repeats)[1]
    found["reading_gb_per_s"] = round(4 * 25088 * size / best / 1e9, 1)
    return found
