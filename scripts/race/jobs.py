"""Jobs of a race: train, decide on the validation cases, segment the test cases."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np

from pixelnet_tf.config import config_to_dict
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.io.files import begin_folder, write_json, write_text
from pixelnet_tf.io.locks import exclusive
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.volumes.nifti import write_labels

from . import decision, ours
from .plan import PEER, Job, Race, machine, race_config

#: How predictions are made of scores: the arg max as it is, and the decided cut and clean-up.
FORMS = ("argmax", "decided")
#: Times that a contestant's step is measured.
ROUNDS = 2


def contestant(name: str) -> ModuleType:
    """The module that trains a contestant."""
    if name != PEER:
        return ours
    from . import peer

    return peer


def measure(out: Path, race: Race, reporter: Reporter, steps: int) -> Race:
    """CPU-seconds a step of every contestant, in turns, and the steps of the budget.

    Each time in a process of its own: in one, what a contestant's threads still did counted as the
    next one's. What else a machine does only adds, so that the smaller figure is taken.
    """
    load, seconds = os.getloadavg()[0], dict.fromkeys(race.bases, math.inf)
    if load > 0.5:
        reporter.warning(f"the machine is not quiet (load {load:.1f}), which makes a step dearer "
                         "for some contestants than for others")
    for _ in range(ROUNDS):
        for name in race.bases:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
                seconds[name] = min(seconds[name], one.submit(_seconds, race, name, steps).result())
    for name, each in seconds.items():
        reporter.message(f"{name}: {each:.2f} CPU-seconds a step, "
                         f"{int(60 * race.minutes / each)} steps")
    budget = {name: max(1, int(60 * race.minutes / each)) for name, each in seconds.items()}
    return Race(**{**race.__dict__, "seconds": seconds, "steps": budget, "machine": machine()})


def _seconds(race: Race, name: str, steps: int) -> float:
    return contestant(name).seconds_a_step(race.config(name), PreparedStudy.open(race.data),
                                           race.splits[0], steps)


def job_folder(out: Path, job: Job) -> Path:
    """Where a job writes."""
    return out / "jobs" / job.contestant / f"fold{job.name.rpartition('/')[2]}"


def is_done(out: Path, job: Job) -> bool:
    """Whether a job has ended."""
    return (job_folder(out, job) / "job.json").is_file()


def run_job(out: Path, job: Job, reporter: Reporter) -> dict:
    """Do a job, or what is left of it; returns what job.json holds.

    The test cases are opened last, when everything is decided.
    """
    race = Race.read(out)
    race.check(job)
    folder = job_folder(out, job)
    if is_done(out, job):
        return json.loads((folder / "job.json").read_text(encoding="utf-8"))
    study, split = PreparedStudy.open(race.data), race.splits[job.fold]
    config, module = race.config(job.contestant), contestant(job.contestant)
    prediction, labels = config.prediction, study.config.study
    steps = race.steps_of(job)
    with exclusive(str(folder), "head_to_head", reporter) as lock:
        begin_folder(folder)
        started = time.process_time()
        scorer = module.train(config, study, split, folder / "run", steps,
                              race.validate_every(job), reporter)
        spent = time.process_time() - started
        choices = decision.choices(labels)
        place, table = 0, np.zeros((0, len(choices)))
        if split.validation:
            table = decision.dice_table(scorer, study, split.validation, prediction,
                                        choices)
            place = decision.best_choice(table)
        left_out = decision.left_out_dice(table)
        for form in FORMS:
            (folder / form).mkdir(exist_ok=True)
        seconds = 0.0
        for number, case in enumerate(split.test, start=1):
            volume = study.read_volume(case)
            begun = time.perf_counter()
            scores = decision.case_scores(scorer, volume, labels, prediction)
            seconds += time.perf_counter() - begun
            for form, choice in zip(FORMS, (decision.PLAIN, choices[place]), strict=True):
                write_labels(folder / form / f"{case}.nii.gz", decision.labels_by(
                    choice, scores, volume, labels), volume.geometry)
            reporter.progress("segmenting", number, len(split.test), case)
        lock.check()
        found = {
            "job": job.name, "steps": steps, "curve": module.curve(folder / "run"),
            "train_cpu_seconds_of_this_call": round(spent, 1), "decided": str(choices[place]),
            "validation_argmax": _mean(table, 0), "validation_decided": _mean(table, place),
            "validation_left_out": float(left_out.mean()) if len(left_out) else None,
            **{f"validation_{key}_cases": dict(zip(split.validation, map(float, dice),
                                                   strict=True))
               for key, dice in (("argmax", table[:, 0]), ("decided", table[:, place]),
                                 ("left_out", left_out))},
            # Every case's Dice by every choice, by which another rule can be judged without scores.
            "validation_tried": {str(choice): list(map(float, dice)) for choice, dice in
                                 zip(choices, table.T, strict=True)},
            "seconds_a_volume": seconds / max(1, len(split.test)),
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "machine": machine()}
        write_json(folder / "job.json", found)
    return found


def _mean(table: np.ndarray, place: int) -> float | None:
    return float(table[:, place].mean()) if len(table) else None


def describe(out: Path, race: Race, jobs: Sequence[Job]) -> str:
    """The jobs, their steps, and which are done."""
    lines = []
    for job in jobs:
        lines.append(f"{'done' if is_done(out, job) else 'open':5} {job.name:24} "
                     f"{race.steps_of(job)} steps")
    return "\n".join(lines)


def write_settings(out: Path, race: Race) -> None:
    """Every contestant's whole configuration, beside race.json."""
    import yaml

    for name, base in race.bases.items():
        if base:
            tree = config_to_dict(race_config(base, race.settings[name], race.precision, race.seed))
            write_text(out / f"{name}.yaml", yaml.safe_dump(tree, sort_keys=False,
                                                            default_flow_style=None))
