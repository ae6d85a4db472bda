"""The table of ablations: validation Dice of every arm beside that of the first."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path

import numpy as np

from pixelnet_tf.evaluation.comparison import gain_of
from pixelnet_tf.evaluation.tables import Table, render_all
from pixelnet_tf.io.files import write_text

from .jobs import is_done, job_folder
from .plan import Job, Race


def write_table(out: Path, race: Race, times: int = 1) -> Path | None:
    """Write OUT/ablations[-xN].md of the arms whose folds are all done; None for none."""
    arms = [name for name in race.bases
            if all(is_done(out, Job(name, fold, times)) for fold in range(len(race.splits)))]
    if next(iter(race.bases)) not in arms:
        return None
    # What all have is the preset's own.
    columns = zip(*(race.settings[name] for name in race.bases), strict=False)
    same = len(list(takewhile(lambda each: len({*each}) == 1, columns)))
    rows, base = [], {}
    for name in arms:
        reports = [json.loads((job_folder(out, Job(name, fold, times)) / "job.json").read_text(
            encoding="utf-8")) for fold in range(len(race.splits))]
        cells = [str(reports[0]["steps"])]
        for key in ("argmax", "left_out"):
            # A case that validates several folds is one case all the same.
            found: dict[str, list[float]] = {}
            for report in reports:
                for case, value in report[f"validation_{key}_cases"].items():
                    found.setdefault(case, []).append(value)
            dice = np.array([np.mean(values) for values in found.values()])
            base.setdefault(key, dice)
            cells += [f"{dice.mean():.3f}", "" if name == arms[0] else
                      _difference(dice, base[key])]
        settings = ", ".join(race.settings[name][same:]) or "-"
        rows.append((name, settings, *cells))
    table = Table(
        f"Dice of {len(base['argmax'])} validation cases", (
            "Arm", "Changed", "Steps", "Arg max", "against the first", "Cut by the other cases",
            "against the first"), tuple(rows),
        ("Differences: mean over the cases with its 95% bootstrap interval.",))
    path = out / f"ablations{'' if times == 1 else f'-x{times}'}.md"
    text = render_all([table], "markdown")
    write_text(path, text + "\n")
    return path


def _difference(dice: np.ndarray, base: np.ndarray) -> str:
    gain = gain_of(dice, base)
    interval = "" if gain.low is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"{gain.mean:+.3f}{interval}"
