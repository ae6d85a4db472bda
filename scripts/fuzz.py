"""Mutated model files, by the ten thousand: each is read or refused, within 1 GB and 5 s.

    python scripts/fuzz.py --seconds 60 [--seed 1989]
    python scripts/fuzz.py --importer 50000 --arrays 2000

Prototxts, caffemodels of three generations, solver files, snapshots, HDF5 models and `.keras` files
are mutated, their bytes and their fields, and read through the importer, the builder of networks
and the loader of models, in processes that are kept. Only success or a documented error with its
exit code may come of it. Prints a table; a mutant that fails is kept with what happened to it in
--keep (default: fuzz_failures/), and the exit code is 1. The same seed and numbers give the same
mutants.

Seconds are those of the processor; memory is the growth of a process, in what it has and in what it
asked for.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import mutations, tiny_network  # noqa: E402
from tests.mutations import Mutation, one_of  # noqa: E402

MAX_SECONDS, MAX_BYTES, MAX_TEXT = 5.0, 1 << 30, 21_000
#: A process that takes so much longer than it may, on a busy machine, hangs.
_PATIENCE_SECONDS = 60.0
#: The system is in no danger where a limit is missed.
_ADDRESS_BYTES = 3 << 30
#: A process that once had so many more addresses would not show that it takes them again.
_RENEWED_BYTES = 256 << 20

Files = dict[str, bytes]


@dataclass(frozen=True)
class Kind:
    """Files that are read together, one of which is mutated.

    Attributes:
        group: `importer` or `arrays` (.keras and HDF5), as the options count them.
        samples: makes the sound files; the first of each is mutated.
        mutate: of which one is drawn.
        read: reads the files of a folder; it takes their names from `samples`.
        error: what it may raise, and the exit code that this has.
        share: how many come before the next kind's turn.
    """

    group: str
    samples: Callable[[], Sequence[Files]]
    mutate: tuple[Mutation, ...]
    read: Callable[[Path], Any]
    error: str
    share: int = 1


class Result(NamedTuple):
    """What came of one mutant; `failure` is empty where it was read or refused as it should be."""

    outcome: str
    seconds: float
    growth: int
    failure: str


# Sound files.


def _golden(name: str) -> bytes:
    return (ROOT / "tests" / "golden" / name).read_bytes()


def _texts() -> list[Files]:
    old = _golden("prototxt/legacy_v1_shortened.prototxt")
    return [{"net.prototxt": text} for text in (
        tiny_network.NET.encode(), tiny_network.V0.encode(), old, _golden("narrow_train.prototxt"),
        _golden("lin_bn_deploy.prototxt"), *_layers())]


def _layers() -> list[bytes]:
    sys.path.insert(0, str(ROOT / "tests" / "caffe"))
    from layer_cases import HEAD, SINGLE_LAYERS

    return [(HEAD + text).encode() for text in SINGLE_LAYERS.values()]


def _saved(*names: str) -> Files:
    """The tiny network in the formats of these names."""
    from prototxt_import import SolverState, load_network, save_caffemodel, save_solverstate

    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "net.prototxt"
        net.write_text(tiny_network.NET)
        found = {}
        for name in names:
            path = Path(folder) / name
            if "caffemodel" in name:
                save_caffemodel(path, tiny_network.with_weights(load_network(net)))
            elif "solverstate" in name:
                histories = (np.ones((3, 4), np.float32), np.ones(3, np.float32))
                save_solverstate(path, SolverState(5, "net.caffemodel", histories, 1))
            found[name] = path.read_bytes()
        return found


def _old_model(text: str | bytes, blobs: Mapping[int, Sequence[Sequence[int]]], v0: bool) -> bytes:
    """A caffemodel of an old generation: weights of these shapes in layers of these numbers."""
    from prototxt_import.schema import new_message
    from prototxt_import.text import parse_text

    net = parse_text(new_message("NetParameter"), text if isinstance(text, str) else text.decode(),
                     "sample")
    for number, shapes in blobs.items():
        layer = net.layers[number].layer if v0 else net.layers[number]
        for shape in shapes:
            blob = layer.blobs.add()
            blob.num, blob.channels, blob.height, blob.width = shape
            blob.data.extend([1.0] * int(np.prod(shape)))
    return net.SerializeToString()


def _models() -> list[Files]:
    v1 = ('layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" '
          "inner_product_param { num_output: 3 } }")
    return [_saved("net.caffemodel"),
            {"net.caffemodel": _old_model(v1, {0: ((1, 1, 3, 4), (1, 1, 1, 3))}, False)},
            {"net.caffemodel": _old_model(tiny_network.V0, {1: ((4, 3, 5, 5),)}, True)}]


def _with_text(name: str) -> list[Files]:
    return [_saved(name, "net.prototxt")]


def _pixelnet() -> list[Files]:
    text, model = _golden("narrow_deploy.prototxt"), _golden("narrow_init.caffemodel")
    return [{"net.prototxt": text, "net.caffemodel": model},
            {"net.caffemodel": model, "net.prototxt": text}]


def _keras() -> list[Files]:
    from pixelnet_tf.config import ModelConfig
    from pixelnet_tf.model.pixelnet import PixelNet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        found = []
        for form in ({"fc7": "none"}, {"batch_norm": True}):
            PixelNet(ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,), **form), 2, 3,
                     seed=0).save(path)
            found.append({"model.keras": path.read_bytes()})
        return found


# Readings.


def _read_net(folder: Path) -> None:
    from prototxt_import import load_network, save_prototxt

    given = {name: folder / f"net.{name}" for name in ("prototxt", "caffemodel")}
    network = load_network(**{name: path for name, path in given.items() if path.exists()})
    str(network)
    network.without_weights  # noqa: B018
    save_prototxt(folder / "out.prototxt", network)


def _read_hdf5(folder: Path) -> None:
    from prototxt_import import hdf5_layer_names, load_network

    hdf5_layer_names(folder / "net.caffemodel.h5")
    load_network(folder / "net.prototxt", folder / "net.caffemodel.h5")


def _read_solver(folder: Path) -> None:
    from prototxt_import import load_solver

    load_solver(folder / "solver.prototxt")


def _read_state(folder: Path) -> None:
    from prototxt_import import load_solverstate

    load_solverstate(next(folder.glob("net.solverstate*")))


def _import(folder: Path) -> None:
    import keras

    from pixelnet_tf.caffe.import_pixelnet import import_pixelnet

    keras.backend.clear_session()
    import_pixelnet(folder / "net.prototxt", folder / "net.caffemodel")


def _build(folder: Path) -> None:
    import keras

    from pixelnet_tf.caffe.build import build_model
    from pixelnet_tf.caffe.reading import read_network

    keras.backend.clear_session()
    build_model(read_network(folder / "net.prototxt"))


def _load(folder: Path) -> None:
    import keras

    from pixelnet_tf.runs.keras_file import load_model

    keras.backend.clear_session()
    load_model(str(folder / "model.keras"))


_TEXT = (mutations.prototxt_field, mutations.prototxt_field, mutations.damage)
_WIRE = (mutations.wire_field, mutations.wire_field, mutations.damage)
_HDF5 = (mutations.hdf5_field, mutations.hdf5_field, mutations.damage, mutations.binary_field)
KINDS = {
    "prototxt": Kind("importer", _texts, _TEXT, _read_net, "CaffeFormatError", 80),
    "caffemodel": Kind("importer", _models, _WIRE, _read_net, "CaffeFormatError", 80),
    "caffemodel with prototxt": Kind("importer", lambda: _with_text("net.caffemodel"), _WIRE,
                                     _read_net, "CaffeFormatError", 40),
    "solver": Kind("importer", lambda: [{"solver.prototxt": tiny_network.SOLVER.encode()}], _TEXT,
                   _read_solver, "CaffeFormatError", 20),
    "solverstate": Kind("importer", lambda: [_saved("net.solverstate")], _WIRE, _read_state,
                        "CaffeFormatError", 20),
    "PixelNet of prototxt and caffemodel": Kind(
        "importer", _pixelnet, (*_TEXT, *_WIRE), _import, "ModelError 4", 3),
    "network of prototxt": Kind("importer", lambda: _texts()[3:], _TEXT, _build, "ModelError 4", 5),
    "caffemodel.h5": Kind("arrays", lambda: _with_text("net.caffemodel.h5"), _HDF5, _read_hdf5,
                          "CaffeFormatError", 4),
    "solverstate.h5": Kind("arrays", lambda: [_saved("net.solverstate.h5")], _HDF5, _read_state,
                           "CaffeFormatError", 2),
    "model.keras": Kind("arrays", _keras, (
        mutations.keras_field, mutations.keras_weights, mutations.keras_weights,
        mutations.damage), _load, "ModelError 4", 4),
}


# Mutants, and the processes that read them.


def mutant(name: str, samples: Sequence[Files], seed: int, number: int) -> Files:
    """The files of one mutant, the same for the same seed."""
    generator = np.random.default_rng([seed, number, *name.encode()])
    files = dict(one_of(generator, samples))
    first = next(iter(files))
    kind = KINDS[name]
    change = one_of(generator, kind.mutate)
    if first.endswith(".prototxt") and change in _WIRE:
        change = _TEXT[0]
    elif first.endswith(".caffemodel") and change in _TEXT:
        change = _WIRE[0]
    files[first] = change(files[first], generator)
    return files


def _memory() -> dict[str, int]:
    """Bytes of this process: `VmSize`, `VmPeak`, `VmRSS` and `VmHWM` among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines
            if line.startswith("Vm")}


def _growth(before: dict[str, int], after: dict[str, int]) -> int:
    """What a process took at most in between, of addresses where there were never so many."""
    addresses = after["VmPeak"] - before["VmSize"] if after["VmPeak"] > before["VmPeak"] else 0
    return max(after["VmHWM"] - before["VmRSS"], addresses)


def judged(kind: Kind, folder: Path) -> Result:
    """Read the files of a folder and judge what comes of it."""
    failure, outcome = "", "accepted"
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM is counted anew
    before = _memory()
    start = time.process_time()
    try:
        kind.read(folder)
    except BaseException as error:
        code = getattr(error, "exit_code", "")
        outcome = f"{type(error).__name__} {code}".strip()
        if outcome != kind.error:
            failure = traceback.format_exc()
        elif len(str(error)) > MAX_TEXT:
            failure = f"its error's text has {len(str(error)):,} characters"
    seconds = time.process_time() - start
    growth = _growth(before, _memory())
    if not failure and seconds > MAX_SECONDS:
        failure = f"it took {seconds:.1f} s of the processor"
    if not failure and growth > MAX_BYTES:
        failure = f"it took {growth >> 20:,} MiB"
    return Result(outcome, seconds, growth, failure)


def _work(connection: Connection, seed: int, base: Path) -> None:
    """A process: reads the mutants whose kind and number it is sent, until it is sent None."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    limited: set[str] = set()
    samples: dict[str, Sequence[Files]] = {}
    while (job := connection.recv()) is not None:
        name, number = job
        kind = KINDS[name]
        if name not in samples:
            samples[name] = kind.samples()
        folder = base / f"{name} {number}".replace(" ", "_")
        _write(folder, mutant(name, samples[name], seed, number))
        if name not in limited:
            limited.add(name)
            _warm_up(kind, samples[name], base / "sound")
            limit = _memory()["VmSize"] + _ADDRESS_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        result = judged(kind, folder)
        if not result.failure:
            shutil.rmtree(folder)
        connection.send((result, folder))


def _warm_up(kind: Kind, samples: Sequence[Files], folder: Path) -> None:
    """Read sound files, which must do, so that what is loaded once is in no mutant's account."""
    for files in samples[:2]:
        _write(folder, files)
        kind.read(folder)
        shutil.rmtree(folder)


def _write(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


@dataclass
class Tally:
    """What came of one kind."""

    outcomes: collections.Counter = field(default_factory=collections.Counter)
    failures: int = 0
    slowest: float = 0.0
    largest: int = 0

    def add(self, result: Result) -> None:
        """Count one mutant."""
        self.outcomes[result.outcome] += 1
        self.failures += bool(result.failure)
        self.slowest = max(self.slowest, result.seconds)
        self.largest = max(self.largest, result.growth)


@dataclass
class _Worker:
    """A process with what it works on, and since when."""

    process: Any
    connection: Connection
    base: Path
    job: tuple[str, int] | None = None
    since: float = 0.0


class Fuzz:
    """A run over jobs, which are kinds and numbers of mutants."""

    def __init__(self, seed: int, keep: Path, workers: int):
        self.seed, self.keep, self.count = seed, keep, workers
        self.tallies: dict[str, Tally] = collections.defaultdict(Tally)
        self._said = time.monotonic()

    def run(self, jobs: Iterator[tuple[str, int]]) -> None:
        """Have the jobs done by processes that are kept, but for those that hang or die."""
        with tempfile.TemporaryDirectory() as folder:
            workers = [self._start(Path(folder) / str(number)) for number in range(self.count)]
            for worker in workers:
                self._next(worker, jobs)
            while busy := [worker for worker in workers if worker.job]:
                ready = wait([worker.connection for worker in busy], timeout=1)
                self._say()
                for index, worker in enumerate(workers):
                    if worker.job and self._done(worker, worker.connection in ready):
                        if not worker.process.is_alive():
                            worker.process.join()
                            workers[index] = worker = self._start(worker.base)
                        self._next(worker, jobs)
            for worker in workers:
                worker.connection.send(None)
                worker.process.join()

    def _say(self) -> None:
        """A line a minute."""
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            done = sum(tally.outcomes.total() for tally in self.tallies.values())
            print(f"{done:,} mutants", file=sys.stderr, flush=True)

    def _start(self, base: Path) -> _Worker:
        here, there = multiprocessing.Pipe()
        # Forked: nothing big is loaded here, and what a test puts into KINDS goes along.
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_work, args=(there, self.seed, base), daemon=True)
        process.start()
        there.close()
        return _Worker(process, here, base)

    def _next(self, worker: _Worker, jobs: Iterator[tuple[str, int]]) -> None:
        worker.job, worker.since = next(jobs, None), time.monotonic()
        if worker.job:
            worker.connection.send(worker.job)

    def _done(self, worker: _Worker, ready: bool) -> bool:
        """Whether a worker's job is over; one that hangs or died is counted and ended."""
        assert worker.job
        name, number = worker.job
        if ready:
            try:
                result, folder = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                result = Result("died", 0, 0, f"the process ended: {worker.process.exitcode}")
        elif time.monotonic() - worker.since > _PATIENCE_SECONDS:
            worker.process.kill()
            worker.process.join()
            result = Result("hung", _PATIENCE_SECONDS, 0, "it hung")
        else:
            return False
        self.tallies[name].add(result)
        if result.failure:
            folder = worker.base / f"{name} {number}".replace(" ", "_")
            kept = self.keep / folder.name
            shutil.rmtree(kept, ignore_errors=True)
            if folder.exists():
                shutil.copytree(folder, kept)
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "failure.txt").write_text(f"seed {self.seed}\n{result.failure}\n")
            print(f"FAILED {name} {number}: {result.failure.splitlines()[-1]:.200}", flush=True)
        if result.growth > _RENEWED_BYTES and worker.process.is_alive():
            worker.connection.send(None)
            worker.process.join()
        shutil.rmtree(worker.base, ignore_errors=True)
        return True

    def table(self) -> str:
        """A row a kind."""
        rows = [("kind", "mutants", "accepted", "refused", "failed", "slowest", "most memory")]
        total: Tally = Tally()
        for name in [each for each in KINDS if each in self.tallies]:
            tally = self.tallies[name]
            rows.append(_row(name, tally))
            total.outcomes += tally.outcomes
            total.failures += tally.failures
            total.slowest = max(total.slowest, tally.slowest)
            total.largest = max(total.largest, tally.largest)
        rows.append(_row("all", total))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in
                                   zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    refused = ", ".join(f"{outcome}: {count:,}" for outcome, count in tally.outcomes.most_common()
                        if outcome != "accepted")
    return (name, f"{tally.outcomes.total():,}", f"{tally.outcomes['accepted']:,}", refused,
            str(tally.failures), f"{tally.slowest:.2f} s", f"{tally.largest >> 20:,} MiB")


def jobs_of(numbers: Mapping[str, int] | None, seconds: float, only: Sequence[str]
            ) -> Iterator[tuple[str, int]]:
    """Kinds in turn with the numbers of their mutants, until enough of each group or for a time."""
    end = time.monotonic() + seconds
    first = True
    given: collections.Counter = collections.Counter()
    of_kind: collections.Counter = collections.Counter()
    while True:
        left = [name for name in only
                if numbers is None or given[KINDS[name].group] < numbers[KINDS[name].group]]
        if not left:
            return
        for name in left:
            # Every kind comes up, however short the time.
            for _ in range(2 if first else KINDS[name].share):
                if numbers is None and not first and time.monotonic() > end:
                    return
                group = KINDS[name].group
                if numbers is None or given[group] < numbers[group]:
                    yield name, of_kind[name]
                    of_kind[name] += 1
                    given[group] += 1
        first = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--importer", type=int, help="mutants of Caffe's files, for no set time")
    parser.add_argument("--arrays", type=int, help="mutants of .keras and HDF5 files, likewise")
    parser.add_argument("--seed", type=int, default=1989)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="kinds (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_failures"))
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    numbers = None
    if options.importer is not None or options.arrays is not None:
        numbers = {"importer": options.importer or 0, "arrays": options.arrays or 0}
    fuzz = Fuzz(options.seed, options.keep, options.workers)
    fuzz.run(jobs_of(numbers, options.seconds, options.only or list(KINDS)))
    print(fuzz.table())
    failed = sum(tally.failures for tally in fuzz.tallies.values())
    print(f"{failed} failed, kept in {options.keep}" if failed else "no mutant failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
