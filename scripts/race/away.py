"""Trainings of a race on another machine, one without TensorFlow or this package, and back again.

`pack` writes the slices of all folds once, the start weights, and each job's program: for this
package's contestants the training step as StableHLO (`pixelnet_tf.training.compiled`), to be run by
JAX; the peer's is PyTorch. `scripts/race/train_away.py` trains there. `unpack` makes the run of a
job of what came back, as if it had been trained here: its last state, since nobody validated on the
way. Images travel in steps of 1/128 of a standard deviation, kernels come back in bfloat16, in
which the race multiplies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.dataset.pipeline import parse_record
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.resident import ResidentSlices
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.io.files import begin_folder, write_json
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.training.compiled import plain_training, training_program
from pixelnet_tf.training.loop import Trainer

from .jobs import job_folder
from .ours import run_config
from .plan import PEER, Job, Race

#: Levels of a standard deviation.
LEVELS = 128


def pack(race: Race, jobs: Sequence[Job], folder: Path, reporter: Reporter) -> None:
    """Write what the jobs need into a folder."""
    study = PreparedStudy.open(race.data)
    if (folder / "pool.npz").exists():
        raise ConfigError("holds jobs that were packed before, which share their start weights",
                          file=folder, hint="pack into a new folder")
    begin_folder(folder)
    cases = sorted({case for split in race.splits for case in split.train})
    rows = _write_slices(study, cases, folder)
    pool = _Pool()
    for job in jobs:
        told: dict[str, Any] = {"job": job.name, "steps": race.steps_of(job), "seed": race.seed,
                                "precision": race.precision,
                                "classes": len(study.config.study.labels),
                                "cases": list(race.splits[job.fold].train)}
        if job.contestant != PEER:
            told |= _pixelnet(race, job, study, rows, pool, folder, reporter)
        write_json(folder / f"{_file(job)}.json", told)
        reporter.message(f"{job.name}: packed")
    np.savez(folder / "pool.npz", *pool.arrays)


def _file(job: Job) -> str:
    return job.name.replace("/", "-")


def _write_slices(study: PreparedStudy, cases: Sequence[str], folder: Path) -> np.ndarray:
    """Write every slice with any brain; returns their index rows, (slice,) int64."""
    index = study.index
    rows = index.rows_of(cases)
    rows = np.sort(rows[index.brain_fraction[rows] > 0])
    channels = len(study.config.study.modalities)
    records = [parse_record(tf.constant(study.read_record_bytes(row)), channels) for row in rows]
    images = np.stack([record["image"].numpy() for record in records])
    levels = np.round(images * LEVELS).astype(np.int16)
    # What was not zero, and so inside the head, stays so.
    levels[(levels == 0) & (images != 0)] = 1
    # Planes of bytes, of one channel after the other, compress best.
    levels = np.moveaxis(levels, -1, 1)
    names = list(study.cases)
    np.savez(folder / "slices.npz", low=(levels & 0xff).astype(np.uint8),
             high=(levels >> 8).astype(np.int8), levels=LEVELS,
             labels=np.stack([record["labels"].numpy() for record in records]).astype(np.uint8),
             brain=np.packbits(np.stack([record["brain"].numpy() for record in records]), axis=-1),
             cases=np.array([names[number] for number in index.case[rows]]))
    return rows


class _Pool:
    """Arrays, each kept once; one that is another's multiple is kept as its factor."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def put(self, array: np.ndarray) -> list[Any]:
        """How to make the array again: ["zeros", shape, type] or ["pool", number, factor]."""
        if not array.any():
            return ["zeros", list(array.shape), array.dtype.name]
        place = int(np.argmax(np.abs(array)))
        for number, known in enumerate(self.arrays):
            if known.shape == array.shape and known.flat[place]:
                factor = float(array.flat[place]) / float(known.flat[place])
                if np.allclose(known * np.float32(factor), array, rtol=1e-5, atol=0):
                    return ["pool", number, factor]
        self.arrays.append(array)
        return ["pool", len(self.arrays) - 1, 1.0]


def _trainer(run: Path, race: Race, job: Job, study: PreparedStudy, reporter: Reporter) -> Trainer:
    # Nobody validates on the way; but the job that goes on with the run wants its own settings.
    config = run_config(race.config(job.contestant), race.steps_of(job), race.validate_every(job))
    return Trainer(config, study, race.splits[job.fold], str(run), reporter=reporter)


def _pixelnet(race: Race, job: Job, study: PreparedStudy, rows: np.ndarray, pool: _Pool,
              folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Write a job's program and what it draws; returns what is told of them.

    Raises `ConfigError` for a network of several planes: the slices of one travel.
    """
    if len(race.config(job.contestant).model.planes) > 1:
        raise ConfigError(f"{job.name} trains on several planes, and the slices of one are packed",
                          value=job.name, hint="run that job here, by --job")
    trainer = _trainer(folder / "started" / _file(job), race, job, study, reporter)
    schedule, size = trainer.schedule, trainer.config.training.batch_slices
    trainer.config = replace(trainer.config, training=plain_training(trainer.config.training))
    state, _, _ = trainer.begin()
    height, width = (int(getattr(study.index, side)[rows[0]]) for side in ("height", "width"))
    shape = (len(rows), height, width)
    donors = np.searchsorted(rows, schedule.with_lesion)
    program = training_program(state, trainer.config.sampling, ResidentSlices(
        tf.TensorSpec((*shape, len(study.config.study.modalities)), tf.float32),
        tf.TensorSpec(shape, tf.int32), tf.TensorSpec(shape, tf.bool),
        tf.TensorSpec([len(rows)], tf.int32), tf.TensorSpec([], tf.int32)))
    name = f"step-{hashlib.sha256(program.module).hexdigest()[:12]}.stablehlo"
    (folder / name).write_bytes(program.module)
    places = np.searchsorted(rows, [schedule.row(position) for position in
                                    range(trainer.plan.steps * size)])
    np.savez_compressed(folder / f"{_file(job)}.npz", donors=donors.astype(np.int32),
                        places=places.reshape(-1, size).astype(np.int32))
    values = state.variables
    weights = len(state.result.variables)
    return {"program": name, "inputs": [pool.put(values[number].numpy())
                                        for number in program.inputs],
            "outputs": [program.inputs.index(number) for number in program.outputs],
            "back": [number for number in program.outputs if number < weights],
            "back_places": [program.inputs.index(number) for number in program.outputs
                            if number < weights]}


def unpack_all(out: Path, race: Race, jobs: Sequence[Job], folder: Path, reporter: Reporter
               ) -> None:
    """Make the runs of all jobs that came back and have none yet."""
    for job in jobs:
        file, run = folder / "done" / f"{_file(job)}.npz", job_folder(out, job) / "run"
        if file.is_file() and not any((run / name).is_file() for name in ("model.keras",
                                                                          "peer.pt")):
            unpack(out, race, job, file, reporter)
            reporter.message(f"{job.name}: taken over")


def unpack(out: Path, race: Race, job: Job, file: Path, reporter: Reporter) -> None:
    """Make the run of a job of the file that `train_away.py` wrote.

    Raises `DataError` for a file of another job, or of fewer steps.
    """
    with np.load(file) as packed:
        told = json.loads(str(packed["told"]))
        arrays = [_whole(packed, number) for number in range(told["arrays"])]
        losses = packed["losses"]
    steps = race.steps_of(job)
    if told["job"] != job.name or len(losses) != steps:
        raise DataError(f"holds {len(losses)} steps of {told['job']}, not {steps} of {job.name}",
                        file=file, hint="train that job to its end")
    run = job_folder(out, job) / "run"
    begin_folder(job_folder(out, job))
    if job.contestant == PEER:
        from . import peer

        peer.take_over(race.config(PEER), PreparedStudy.open(race.data), race.splits[job.fold], run,
                       steps, dict(zip(told["names"], arrays, strict=True)), losses)
        return
    trainer = _trainer(run, race, job, PreparedStudy.open(race.data), reporter)
    state, _, _ = trainer.begin()
    for number, array in zip(told["back"], arrays, strict=True):
        state.variables[number].assign(array)
    trainer.run_folder.save_model(state.result)
    (run / "log.jsonl").write_text("".join(
        json.dumps({"step": step, "loss": float(losses[step - 1])}) + "\n"
        for step in range(20, steps + 1, 20)), encoding="utf-8")


def _whole(packed: Any, number: int) -> np.ndarray:
    """An array that came back: float32, or the two bytes of each bfloat16."""
    if f"v{number}" in packed:
        return packed[f"v{number}"]
    bits = packed[f"h{number}"].astype(np.uint32) << 24 | packed[f"l{number}"].astype(
        np.uint32) << 16
    return bits.view(np.float32)
