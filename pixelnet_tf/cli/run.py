"""`pixelnet-tf run`: the whole job by one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pixelnet_tf.cli.options import (
    PATH,
    config_options,
    dry_run_option,
    plan_options,
    print_and_leave,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter


@verb("run")
@click.argument("study", type=PATH)
@click.argument("out", type=PATH)
@plan_options
@click.option("--split", "split_file", metavar="FILE", help="A split of your own, as `prepare "
              "--split` takes it.")
@click.option("--folds", type=click.IntRange(min=2), metavar="N", help="Cut the cases that are not "
              "set aside into N folds and train a network for each: the cases are scored by the "
              "network that has not seen them, and the average of all segments the test cases; "
              "the same as --set split.folds=N.")
@dry_run_option
@config_options
def command(study: Path, out: Path, split_file: str | None, folds: int | None,
            dry_run: bool, config_path: str | None, overrides: tuple[str, ...], print_config: bool,
            **options: Any) -> None:
    """From the folder STUDY to scores of its test cases, all in the folder OUT.

    Plans (or takes --config), prepares, trains, lets the validation cases decide, segments the test
    cases, scores them and writes a report: OUT/plan.yaml, prepared, run, predictions, scores,
    report.html. Each part is done once: a second call goes on where the first one stopped.

    Example: pixelnet-tf run STUDY OUT
    """
    from pixelnet_tf.api.job import Job

    if split_file is not None:
        overrides = (*overrides, f"split.file={json.dumps(split_file)}")
    with TerminalReporter() as reporter:
        job = Job(study, out, config=config_path, overrides=overrides, folds=folds,
                  reporter=reporter, **options)
        print_and_leave(job.config, print_config)
        for line in job.told:
            click.echo(line)
        if dry_run:
            job.check()
            click.echo(f"dry run: nothing was written; left to do in {out}: "
                       f"{', '.join(job.left())}")
            return
        scores = job.run()
    if job.out_of_fold is not None:
        click.echo("scores of the cases that each network has not seen:")
        click.echo(job.out_of_fold.table())
        if scores is not None:
            click.echo("scores of the test cases:")
    if scores is not None:
        click.echo(scores.table())
    for path in job.folder.parts():
        click.echo(f"written: {path}")
