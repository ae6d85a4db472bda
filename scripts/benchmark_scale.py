"""What more workers gain: `prepare` and `predict` by Dask, one worker against two, a core each.

    python scripts/benchmark_scale.py [--out FILE.json] [--cases 8] [--repeats 3] [--size 96 96 48]

The yardstick is what two plain loops of Python gain in the same run, in processes of their own: a
shared machine rarely lends two cores whole. Printed beside it: what the engine costs a case, and a
schedule of 1,251 cases on 8 nodes, drawn from the seconds that were measured. Workers are warm:
TensorFlow is loaded, the network is made. On Linux each is bound to its core, as N4 takes two
threads wherever it runs, so that a single worker would have both cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelnet_tf.dataset.cluster import Cluster

#: Of the narrow network: a case takes about as long as its preparation.
NETWORK = ["model.widths=[8, 16, 24, 32, 32]", "model.head_widths=[32]", "model.border=32",
           "training.steps=2", "training.batch_slices=2", "sampling.pixels=100",
           "split.test=1", "split.validation=1", "prepare.bias_field.iterations=[10, 10]"]
LOOPS = 20_000_000
#: One thread for whatever computes, in this process and in the workers; read when they are loaded.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS",
           "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def bind(engine: Cluster) -> None:
    """Give each worker of an engine one core."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    for number, pid in enumerate(engine._client.run(os.getpid).values()):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cores[number % len(cores)]})


def spin(_: int) -> float:
    """Seconds of a plain loop."""
    start, total = time.perf_counter(), 0
    for number in range(LOOPS):
        total += number & 7
    return time.perf_counter() - start


def loops(pool: multiprocessing.pool.Pool, workers: int) -> float:
    """Seconds until so many processes have done a loop each, at once."""
    start = time.perf_counter()
    pool.map(spin, range(workers), chunksize=1)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Named:
    """A case of no work."""

    name: str


def nothing(case: Named) -> str:
    """What a worker does of no work."""
    return case.name


def measure(work: Callable[[int, Path], None], folder: Path, repeats: int,
            pool: multiprocessing.pool.Pool) -> dict:
    """The gain of two workers over one beside that of two loops, in turn, so that a busy machine
    meets all of them alike."""
    rows = []
    for number in range(repeats):
        row = {}
        for workers in (1, 2):
            row[f"loop{workers}"] = loops(pool, workers)
            out = folder / f"out{number}_{workers}"
            start = time.perf_counter()
            work(workers, out)
            row[f"work{workers}"] = time.perf_counter() - start
            row[f"loop{workers}"] = (row[f"loop{workers}"] + loops(pool, workers)) / 2
            shutil.rmtree(out)
        row["gain"] = row["work1"] / row["work2"]
        row["loops_gain"] = 2 * row["loop1"] / row["loop2"]
        row["ratio"] = row["gain"] / row["loops_gain"]
        rows.append(row)
        print("   ", {name: round(value, 3) for name, value in row.items()}, flush=True)
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {**middle, "rows": rows}


def schedule(seconds: list[float], cases: int, workers: int, client: float, seed: int = 0
             ) -> tuple[float, float]:
    """(hours, part of the ideal) of so many cases whose seconds are drawn from those measured.

    A worker that is free gets the next case; the program that sends them takes `client` seconds of
    each, one after the other.
    """
    draw = random.Random(seed)
    free = [0.0] * workers
    work = sent = 0.0
    for _ in range(cases):
        at = max(heapq.heappop(free), sent)
        sent = at + client
        one = draw.choice(seconds)
        work += one
        heapq.heappush(free, sent + one)
    return max(free) / 3600, work / workers / max(free)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures here, too, as JSON")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 48))
    given = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, "1"), TF_CPP_MIN_LOG_LEVEL="3")
    from pixelnet_tf.reporting import load_tensorflow_quietly
    load_tensorflow_quietly()
    import pixelnet_tf as px
    from pixelnet_tf.dataset.cluster import open_cluster
    from pixelnet_tf.dataset.encode import encode_case
    from pixelnet_tf.dataset.workers import run_cases

    found: dict = {"cases": given.cases, "size": given.size, "load": os.getloadavg()[0]}
    logging.getLogger("pixelnet_tf").setLevel(logging.ERROR)
    context = multiprocessing.get_context("spawn")
    with (tempfile.TemporaryDirectory() as made, context.Pool(2) as pool,
          open_cluster("local:1") as one, open_cluster("local:2") as two):
        folder, crew = Path(made), {1: one, 2: two}
        for engine in crew.values():
            bind(engine)
        px.write_phantom(folder / "study", given.cases, size=tuple(given.size))
        study = px.Study.open(folder / "study", "phantom", NETWORK)
        prepared = study.prepare(folder / "prepared", workers=two)
        run = px.train(prepared, study.config, folder / "run")
        model = px.Segmenter.from_run(run.path)
        for workers in (1, 2):
            study.prepare(folder / f"warm{workers}", workers=crew[workers])
            model.predict_study(folder / "prepared", folder / f"warm_p{workers}",
                                workers=crew[workers])
        loops(pool, 2)
        print(f"prepare, {given.cases} cases", flush=True)
        found["prepare"] = measure(
            lambda workers, out: study.prepare(out, workers=crew[workers]), folder,
            given.repeats, pool)
        print(f"predict, {given.cases} cases", flush=True)
        found["predict"] = measure(
            lambda workers, out: model.predict_study(folder / "prepared", out,
                                                     workers=crew[workers]),
            folder, given.repeats, pool)
        start = time.perf_counter()
        sum(1 for _ in run_cases(nothing, [Named(str(number)) for number in range(300)], (), one))
        found["engine_ms"] = 1000 * (time.perf_counter() - start) / 300
        seconds = []
        for case in study.cases:
            start = time.perf_counter()
            encode_case(case, study.config.study, study.config.prepare)
            seconds.append(time.perf_counter() - start)
    found["encode_seconds"] = statistics.mean(seconds)
    # All that is not the case itself: files, locks, checks, digests, and the engine.
    found["prepare_other_seconds"] = (found["prepare"]["work1"] / given.cases
                                      - found["encode_seconds"])
    # The spread of the cases here, about the 20 s that a BraTS case of four modalities takes on a
    # core (docs/benchmarks.md).
    scaled = [20 * one / found["encode_seconds"] for one in seconds]
    found["schedule"] = {}
    for per_node in (1, 8, 16):
        hours, part = schedule(scaled, 1251, 8 * per_node, found["engine_ms"] / 1000)
        found["schedule"][f"8 nodes x {per_node}"] = {"hours": hours, "part_of_ideal": part}
    for name in ("prepare", "predict"):
        middle = found[name]
        print(f"{name}: two workers {middle['gain']:.2f} times as fast as one, two loops "
              f"{middle['loops_gain']:.2f}: {middle['ratio']:.2f} of it")
    print(f"engine: {found['engine_ms']:.1f} ms a case; prepare beside the case itself "
          f"{found['prepare_other_seconds']:.3f} s of {found['encode_seconds']:.2f} s")
    for name, row in found["schedule"].items():
        print(f"1,251 cases of 20 s on {name} workers: {row['hours']:.2f} h, "
              f"{row['part_of_ideal']:.3f} of the ideal")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
