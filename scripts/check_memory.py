"""Memory of a training over its steps: it has to stay flat.

    python scripts/check_memory.py PREPARED [--config phantom] [--steps 500] [--set KEY=VALUE ...]

Trains in a temporary folder and prints the resident memory of the process at every tenth of the
steps. Exit code 1 where it grew by more than --limit-mb between the third and the last tenth (the
first ones fill caches and compile).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def resident_mb() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(prepared: str, config_path: str, steps: int, overrides: list[str]) -> list[tuple]:
    """Train and return (step, MiB) at each tenth of the steps."""
    from pixelnet_tf.config import load_config
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.reporting import LogReporter
    from pixelnet_tf.training.loop import Trainer

    config = load_config(config_path, [*overrides, f"training.steps={steps}"])
    study = PreparedStudy.open(prepared)
    found = []

    class Note(LogReporter):
        def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
            if task == "training" and done % (steps // 10) == 0:
                found.append((done, resident_mb()))

    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, study, study.split, os.path.join(folder, "run"),
                reporter=Note()).run()
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", metavar="PREPARED")
    parser.add_argument("--config", default="phantom")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit-mb", type=float, default=30.0)
    options = parser.parse_args()
    rows = measure(options.prepared, options.config, options.steps, options.overrides)
    for step, memory_mb in rows:
        print(f"step {step:6d}  {memory_mb:8.1f} MiB")
    growth_mb = rows[-1][1] - rows[2][1]
    print(f"growth from step {rows[2][0]} to {rows[-1][0]}: {growth_mb:+.1f} MiB "
          f"(limit {options.limit_mb:g})")
    return int(growth_mb > options.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
