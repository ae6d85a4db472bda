"""Time the programs of `export_hlo.py` by JAX, on whatever device it finds; no TensorFlow needed.

    python scripts/time_hlo.py OUT [--steps 50] [--only step|scores]

Prints a table: milliseconds a run, slices a second, the device's peak memory of this process, so
that --only tells a program's own. Arguments are random. The step is the whole one without the
reading of files.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "race"))


def argument(shape: list[int], kind: str, rng: np.random.Generator) -> np.ndarray:
    """Small random weights, integers that are valid places, true masks."""
    if kind == "bool":
        return np.ones(shape, bool)
    if kind.startswith(("int", "uint")):
        return np.ones(shape, kind)
    return (rng.normal(0, 0.02, shape)).astype(kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", choices=("step", "scores"))
    given = parser.parse_args()
    from train_away import Runtime

    runtime, rng = Runtime(), np.random.default_rng(0)
    told = json.loads((given.folder / "programs.json").read_text(encoding="utf-8"))
    print(f"{runtime.describe()}\n\n| program | ms a run | slices a second | peak, GiB | "
          "compiled in |")
    print("|---|---|---|---|---|")
    for name, program in told.items():
        if given.only not in (None, name):
            continue
        begun = time.time()
        loaded = runtime.compile((given.folder / f"{name}.stablehlo").read_bytes())
        compiled = time.time() - begun
        values: list[Any] = [runtime.put(argument(*each, rng)) for each in program["arguments"]]
        size = program["arguments"][5 if name == "step" else 0][0][0]
        for step in range(given.steps + 3):
            if step == 3:
                runtime.wait(values)
                begun = time.time()
            found = runtime.run(loaded, values)
            for place, array in zip(program["replaces"], found[1:], strict=False):
                values[place] = array
        runtime.wait(found)
        each = (time.time() - begun) / given.steps
        print(f"| {name} | {each * 1e3:.2f} | {size / each:.1f} | "
              f"{runtime.peak_gib():.2f} | {compiled:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
