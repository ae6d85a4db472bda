"""Tables and pictures of a race: scores by `evaluate`, set side by side by `compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pixelnet_tf as px
from pixelnet_tf.api.reports import compare
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.canvas import SERIES, new_figure, write_png
from pixelnet_tf.evaluation.case_images import image_of
from pixelnet_tf.evaluation.label_files import read_labels
from pixelnet_tf.evaluation.overlay import overlay_figure
from pixelnet_tf.evaluation.tables import Table, render_all
from pixelnet_tf.io.files import write_text

from .jobs import FORMS, is_done, job_folder
from .plan import Job, Race

TITLES = {"argmax": "The arg max as it is",
          "decided": "Cut and clean-up chosen on the validation cases"}
#: Cases that are pictured for each contestant beside the first.
PICTURES = 2


def finished(out: Path, race: Race, times: int) -> list[Job]:
    """Jobs of one budget whose fold every contestant has ended."""
    folds = [fold for fold in range(len(race.splits))
             if all(is_done(out, Job(name, fold, times)) for name in race.bases)]
    return list(race.jobs(times, folds)) if folds else []


def references(race: Race) -> dict[str, Path | None]:
    """The segmentation of every case of the race's studies.

    Raises:
        ConfigError: a test case is in none of them.
    """
    config = race.config(next(iter(race.bases)))
    truth = {case.name: case.segmentation for folder in race.references
             for case in px.Study.open(folder, config).cases}
    for case in (case for split in race.splits for case in split.test):
        if case not in truth:
            raise ConfigError(f"no study of --references has the test case {case!r}", value=case,
                              hint="name the folders of all test cases, --references each")
    return truth


def write_results(out: Path, race: Race, times: int = 1) -> Path | None:
    """Score what is finished and write OUT/results[-xN].md with its figures; None for nothing."""
    jobs = finished(out, race, times)
    if not jobs:
        return None
    end = "" if times == 1 else f"-x{times}"
    prepared = PreparedStudy.open(race.data)
    config = race.config(next(iter(race.bases)))
    study, truth = prepared.config.study, references(race)
    reports = {job: json.loads((job_folder(out, job) / "job.json").read_text(encoding="utf-8"))
               for job in jobs}
    tables, scored = [], {}
    for form in FORMS:
        folders = []
        for name in race.bases:
            files = {path.name.removesuffix(".nii.gz"): path for job in jobs
                     if job.contestant == name
                     for path in sorted((job_folder(out, job) / form).glob("*.nii.gz"))}
            scores = px.evaluate(files, {case: truth[case] for case in files}, config=config)
            folders.append(out / "scores" / f"{name}-{form}{end}")
            scores.save(folders[-1])
            scored[name, form] = scores.evaluation
        tables.append(f"### {TITLES[form]}\n\n" + compare(
            folders, list(race.bases), per_case=True, form="markdown"))
    validated = any(report["curve"] for report in reports.values())
    if validated:
        _curves(out / f"curves{end}.png", race, reports)
    pictures = _pictures(out / f"pictures{end}", race, jobs, out, scored, prepared, truth, study)
    folds = sorted({job.fold for job in jobs})
    text = "\n\n".join([
        f"# {len(folds)} of {len(race.splits)} folds, " + (
            f"{times * race.minutes:g} CPU-minutes a contestant" if race.minutes
            else "steps as given"),
        f"Prepared study `{race.data}`, seed {race.seed}, {race.precision}; steps measured on "
        f"{race.machine}." if race.minutes else f"Seed {race.seed}, {race.precision}.",
        render_all([_costs(race, reports)], "markdown"), *tables,
        *([f"![Validation over time](curves{end}.png)"] if validated else []),
        *(f"![{path.stem}]({path.relative_to(out)})" for path in pictures)])
    path = out / f"results{end}.md"
    write_text(path, text + "\n")
    return path


def _costs(race: Race, reports: dict[Job, dict]) -> Table:
    rows = []
    for name in race.bases:
        own = [report for job, report in reports.items() if job.contestant == name]

        def mean(key: str, own: Sequence[dict] = own) -> str:
            values = [report[key] for report in own if report[key] is not None]
            return f"{np.mean(values):.3f}" if values else "-"

        rows.append((name, str(own[0]["steps"]),
                     f"{race.seconds[name]:.2f}" if name in race.seconds else "-",
                     mean("validation_argmax"), mean("validation_decided"),
                     mean("validation_left_out"), mean("seconds_a_volume"), mean("peak_gb"),
                     "; ".join(report["decided"] for report in own)))
    return Table("Contestants", (
        "Contestant", "Steps", "CPU-s a step", "Validation Dice, arg max", "decided",
        "decided by the other cases", "Seconds a volume", "Peak GB", "Decided, fold by fold"),
        tuple(rows))


def _curves(path: Path, race: Race, reports: dict[Job, dict]) -> None:
    """Validation Dice over CPU-minutes (steps where none were measured), a line a fold."""
    figure = new_figure(7, 4)
    ax = figure.subplots()
    for number, name in enumerate(race.bases):
        minutes = race.seconds.get(name, 60.0) / 60
        for place, report in enumerate(report for job, report in reports.items()
                                       if job.contestant == name):
            ax.plot([step * minutes for step, _ in report["curve"]],
                    [score for _, score in report["curve"]], "o-", markersize=3, alpha=0.8,
                    color=SERIES[number % len(SERIES)], label=name if not place else None)
    ax.set_xlabel("CPU-minutes of training" if race.seconds else "step")
    ax.set_ylabel("Dice of the validation cases")
    ax.set_ylim(0, 1)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    write_png(figure, path)


def _pictures(folder: Path, race: Race, jobs: Sequence[Job], out: Path, scored: dict,
              prepared: PreparedStudy, truth: dict, study: StudyConfig) -> list[Path]:
    """The cases in which the first contestant and another one differ most, both drawn."""
    first, *others = race.bases
    region = next(iter(scored[first, FORMS[1]].regions))
    dice = {name: scored[name, FORMS[1]].values(region, "Dice") for name in race.bases}
    written = []
    for other in others:
        gaps = {case: value - dice[other][case] for case, value in dice[first].items()
                if case in dice[other]}
        for case in sorted(gaps, key=lambda name: -abs(gaps[name]))[:PICTURES]:
            volume = prepared.read_volume(case)
            true, geometry = read_labels(truth[case], study, case, reference=True)
            for name in (first, other):
                path = next(job_folder(out, job) / FORMS[1] / f"{case}.nii.gz" for job in jobs
                            if job.contestant == name
                            and (job_folder(out, job) / FORMS[1] / f"{case}.nii.gz").is_file())
                found, _ = read_labels(path, study, case)
                target = folder / f"{other}_{case}_{name}.png"
                write_png(overlay_figure(image_of(volume), true, found, geometry, study,
                                         f"{case}: {name}", {region: dice[name][case]}), target)
                written.append(target)
    return written
