"""Every figure of speed and memory of docs/benchmarks.md, by one command.

    python scripts/benchmark.py --out DIR [--quick] [--only NAME ...] [--peer]

Ratios are of two things measured in one run; the machine's load and its measured peak rates stand
beside them. Each part runs in a process of its own, so that its peak memory is its own. The first
run prepares the cases and trains a full-width head for some minutes; --work keeps both. Writes
DIR/benchmark.json (parts that were measured before stay in it) and DIR/benchmark.md. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmarks import (
    context,
    inference,
    machine,
    peer,
    preparing,
    starting,
    study,
    table,
    training,
)

#: Name -> what it measures, in the order in which the parts run.
PARTS = {
    "machine": lambda options: {**machine.describe(), **machine.peaks(options.quick)},
    "prepare": preparing.prepare,
    "prepare_side_by_side": preparing.side_by_side,
    "train": lambda options: {"run": study.trained_run(options).path},
    "start": starting.start,
    "reference": lambda options: inference.segment(options, "reference", "float32"),
    "exact": lambda options: inference.segment(options, "exact", "float32"),
    "adaptive": lambda options: inference.segment(options, "adaptive", "float32"),
    "adaptive_bfloat16": lambda options: inference.segment(options, "adaptive", "bfloat16"),
    "answers": inference.answers,
    "agreement": inference.agreement,
    "agreement_stroke": lambda options: inference.agreement(replace(options, study="stroke")),
    "step_plain": lambda options: training.step(options, False, "float32"),
    "step_fast": lambda options: training.step(options, True, "float32"),
    "step_fast_bfloat16": lambda options: training.step(options, True, "bfloat16"),
    **{f"best_step_{draw}": partial(training.best_step, draw=draw) for draw in training.DRAWS},
    "gradients": training.gradients,
    "sampler": training.sampler,
    "context_exact": lambda options: context.volume(options, "exact"),
    "context_adaptive": lambda options: context.volume(options, "adaptive"),
    "context_step": context.step,
    "growth_step": training.growth,
    "growth_volumes": inference.volumes,
}
#: The same of what --peer adds.
PEER = {f"peer_{precision}": partial(peer.race, precision=precision)
        for precision in ("float32", "bfloat16")}


def measure(name: str, arguments: list[str]) -> dict:
    """Run one part in a fresh process; returns what it found, with load and seconds."""
    print(f"== {name}", flush=True)
    load, start = machine.load(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        subprocess.run([sys.executable, __file__, *arguments, "--part", name, "--result",
                        str(result)], check=True,
                       env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        found = json.loads(result.read_text(encoding="utf-8"))
    print(json.dumps(found), flush=True)
    return {**found, "load_before": load, "load_after": machine.load(),
            "part_seconds": round(time.monotonic() - start, 1)}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    parser.add_argument("--work", type=Path, help="prepared study and trained run; default: OUT")
    parser.add_argument("--data", type=Path, help="cases in BraTS layout; default: the TCIA cases "
                        "of ../shared, or a phantom of their size")
    parser.add_argument("--quick", action="store_true", help="fewer slices and repeats")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", default=[],
                        help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--steps", type=int, help="training steps of the head (default 200)")
    parser.add_argument("--study", choices=("brats", "stroke"), default="brats",
                        help="whose cases are segmented")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="override the configuration")
    parser.add_argument("--peer", action="store_true", help="the adaptive mode against nnU-Net's "
                        "U-Net in PyTorch (pip install '.[peer]'), alone or with --only")
    parser.add_argument("--cores", type=int, help="cores that everything is bound to (default all)")
    parser.add_argument("--contestant", choices=peer.FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=[*PARTS, *PEER], help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    work = given.work or given.out
    work.mkdir(parents=True, exist_ok=True)
    options = study.Options(work, given.data, given.quick,
                            given.steps or (20 if given.quick else 200), tuple(given.overrides),
                            given.study)
    if given.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:given.cores])
    if given.contestant:
        peer.contest(options, given)
        return 0
    if given.part in PEER:
        found = PEER[given.part](options, arguments=sys.argv[1:])
    elif given.part:
        found = PARTS[given.part](options)
    if given.part:
        given.result.write_text(json.dumps(found, default=float), encoding="utf-8")
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "benchmark.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    from pixelnet_tf.io.processor import bfloat16_instructions
    names = given.only or ([] if given.peer else [
        name for name in PARTS if name != "agreement_stroke" or study.stroke_cases(given.data)])
    if given.peer:
        names += [name for name in PEER if name != "peer_bfloat16" or bfloat16_instructions()]
    for name in names:
        found[name] = measure(name, sys.argv[1:])
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if not given.overrides and "machine" in found and {*found} & {"exact", "adaptive", "step_fast"}:
        found["floors"] = {"volume": inference.floors(options, found["machine"])}
        if "step_fast" in found:
            found["floors"]["step"] = training.floors(found["machine"], found["step_fast"]["box"])
    path.write_text(json.dumps(found, indent=1, default=float), encoding="utf-8")
    text = table.render(found)
    (given.out / "benchmark.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
