"""`pixelnet-tf prepare`: a study on disk to slices for training and prediction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from pixelnet_tf.cli.options import (
    PATH,
    cases_options,
    config_options,
    dry_run_option,
    read_config,
    series_option,
    verb,
    with_series,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import StudyConfig

if TYPE_CHECKING:
    from pixelnet_tf.api.study import PrepareSummary


@verb("prepare")
@click.option("--data", type=PATH, metavar="STUDY", help="Folder with the cases of the study.")
@click.option("--out", metavar="PREPARED", help="Folder to write to, or its URL in an object "
              "store.")
@click.option("--workers", type=click.IntRange(min=0), default=None,
              help="How many cases are in work at once; 0 takes as many as there are processor "
              "cores "
              "[default: prepare.workers].")
@click.option("--skip-bad-cases", is_flag=True,
              help="Leave cases out that cannot be used, with a warning that left_out.json keeps.")
@click.option("--no-segmentation", is_flag=True,
              help="Prepare cases for prediction only; segmentations are not looked for.")
@click.option("--split", "split_file", metavar="FILE",
              help="Take the split from this file instead of drawing it: JSON or YAML with the "
              "cases of train, validation and test, nnU-Net's splits_final.json, a list of folds, "
              "or a list of the test cases; the same as --set split.file=FILE.")
@click.option("--redraw-split", is_flag=True,
              help="Draw the split anew, or take it anew from its file, after cases were added "
              "or removed.")
@cases_options
@click.option("--finish", is_flag=True,
              help="Prepare nothing: join the parts that calls with --part have prepared, and "
              "refuse where a case is missing.")
@series_option
@dry_run_option
@config_options
def command(data: Path | None, out: str | None, workers: int | None, skip_bad_cases: bool,
            no_segmentation: bool, split_file: str | None, redraw_split: bool,
            part: str | None, scheduler: str | None, finish: bool, series: tuple[str, ...],
            dry_run: bool, config_path: str | None, overrides: tuple[str, ...], print_config: bool
            ) -> None:
    """Correct, normalise and slice a study into shards.

    Every case is read and checked before any work. Then each one goes through N4 bias field
    correction, z-score and axial slicing, and the cases are parted into training, validation and
    test. A second run does only what is missing or changed.

    Example: pixelnet-tf prepare --config brats2017 --data BraTS17 --out prepared
    """
    if split_file is not None:
        # JSON's strings are YAML's, whatever stands in a path.
        overrides = (*overrides, f"split.file={json.dumps(split_file)}")
    config = read_config(config_path, with_series(overrides, series), print_config)
    if data is None or out is None:
        raise click.UsageError(f"Missing option '{'--data' if data is None else '--out'}'.")
    if (part is not None) + (scheduler is not None) + finish > 1:
        raise click.UsageError("give one of --part, --scheduler and --finish")
    from pixelnet_tf import Study
    from pixelnet_tf.api.cluster import part_of, workers_of

    with TerminalReporter() as reporter:
        chosen = None if finish or scheduler else part_of(part, reporter)
        if chosen is not None and redraw_split:
            raise click.UsageError("parts draw no split: give --redraw-split to the call with "
                                   "--finish")
        with workers_of(scheduler, workers, reporter) as engine:
            summary = Study.open(data, config, reporter=reporter).update(
                out, workers=engine, skip_bad_cases=skip_bad_cases,
                require_segmentation=not no_segmentation, redraw_split=redraw_split, part=chosen,
                finish=finish, dry_run=dry_run, reporter=reporter)
    Console().print(_table(summary, config.study))
    if chosen is not None and not dry_run:
        click.echo(f"part {chosen} is prepared; after all parts, the same call with --finish "
                   "instead of --part joins them")
        return
    click.echo(f"nothing was written (--dry-run); {len(summary.prepared)} cases would be prepared"
               if dry_run else f"prepared study: {os.fspath(out)}")


def _table(summary: PrepareSummary, study: StudyConfig) -> Table:
    split, index = summary.split, summary.index
    table = Table(show_header=False, title=f"study {study.name}")
    whole = len(summary.prepared) + len(summary.kept) if split is None else len(split.cases)
    table.add_row("cases", f"{whole}: {len(summary.prepared)} prepared, "
                           f"{len(summary.kept)} kept from before, "
                           f"{len({p.case for p in summary.left_out})} left out")
    if split is None:
        return table
    table.add_row("split", f"{len(split.train)} training, {len(split.validation)} validation, "
                           f"{len(split.test)} test"
                           + (f", {len(split.folds)} folds" if split.folds else ""))
    if index is None:
        return table
    sizes = sorted({f"{h}x{w}" for h, w in zip(index.height, index.width, strict=True)})
    axial = index.rows_of(index.cases)
    table.add_row("slices", f"{len(index)} of {', '.join(sizes[:3])}"
                            f"{' ...' if len(sizes) > 3 else ''} pixels, "
                            f"{len(study.modalities)} channels "
                            f"({', '.join(study.modalities)})")
    if len(axial) < len(index):
        table.add_row("of which axial", str(len(axial)))
    counts = index.class_counts[axial].sum(axis=0)
    if counts.any():
        lesion = int((index.class_counts[axial, 1:].sum(axis=1) > 0).sum())
        table.add_row("slices with lesion", f"{lesion} ({lesion / len(axial):.1%})")
        table.add_row("pixels of each class", "\n".join(
            f"{name}: {count / counts.sum():.3%}"
            for name, count in zip(study.class_names, counts, strict=True)))
    else:
        table.add_row("pixels of each class", "no segmentations")
    return table
