"""`pixelnet-tf experiment`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    PATH,
    config_options,
    dry_run_option,
    read_config,
    scheduler_option,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import check_network_named


@verb("experiment")
@config_options
@click.option("--data", required=True, metavar="PREPARED",
              help="Folder that `pixelnet-tf prepare` wrote; with split.folds its folds are used.")
@click.option("--references", required=True, type=PATH, metavar="STUDY|DIR",
              help="The study with its segmentations.")
@click.option("--out", required=True, type=PATH, metavar="DIR",
              help="Receives runs, predictions, scores and tables.")
@scheduler_option
@dry_run_option
def command(config_path: str | None, overrides: tuple[str, ...], print_config: bool, data: str,
            references: Path, out: Path, scheduler: str | None, dry_run: bool) -> None:
    """Class-balanced against uniform sampling: the paper's Tables 2 and 4 on your study.

    Trains both from the same configuration and seed over the folds, predicts the test cases with
    the sampled and with the corrected prior, scores them and writes the tables as text, Markdown,
    CSV and LaTeX. With --scheduler a worker does a fold of a sampling. A second call goes on where
    the first one stopped.
    """
    config = read_config(config_path, overrides, print_config)
    from pixelnet_tf.api.cluster import open_workers
    from pixelnet_tf.api.study import make_experiment

    with TerminalReporter() as reporter:
        experiment = make_experiment(data, references, config, out, reporter=reporter)
        check_network_named(config_path, overrides)
        click.echo(experiment.describe())
        if dry_run:
            experiment.check()
            click.echo("dry run: nothing was trained")
            return
        with open_workers(scheduler, reporter=reporter) if scheduler else nullcontext() as workers:
            experiment.run(workers)
    click.echo(experiment.tables(), nl=False)
    click.echo(f"written: {out}/tables.txt, .md, .csv, .tex")
