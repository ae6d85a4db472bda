"""`pixelnet-tf report`: one HTML file with curves, scores and pictures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    OUT_FILE,
    PATH,
    config_options,
    dry_run_option,
    print_and_leave,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter


@verb()
@click.argument("run_dir", type=PATH, metavar="RUN")
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="Folder that `predict` wrote.")
@click.option("--scores", "scores_dir", required=True, type=PATH, metavar="DIR",
              help="Folder that `evaluate --out` wrote for these predictions.")
@click.option("--references", "references_dir", type=PATH, metavar="STUDY|DIR",
              help="What they were scored against; default: as recorded with the scores.")
@click.option("--data", "data_dir", type=PATH, metavar="STUDY|PREPARED",
              help="Where the pictures under the overlays come from; default: the references, "
              "where they are a study.")
@click.option("--out", required=True, type=OUT_FILE, metavar="FILE", help="The HTML file.")
@click.option("--overlays", type=click.IntRange(min=0), default=3, show_default=True,
              help="How many of the worst and of the best cases are pictured.")
@click.option("--no-viewers", "viewers", is_flag=True, default=True, flag_value=False,
              help="Leave out the viewers of the worst, the median and the best case, which take "
              "some 4 MB.")
@dry_run_option
@config_options
def command(run_dir: Path, predictions_dir: Path, scores_dir: Path, references_dir: Path | None,
            data_dir: Path | None, out: Path, overlays: int, viewers: bool,
            dry_run: bool,
            config_path: str | None, overrides: tuple[str, ...], print_config: bool) -> None:
    """Write one HTML file about RUN that needs no network and no server.

    It holds the configuration, the data with class frequencies, training curves, score tables, box
    plots, the worst and best cases as overlays, and three cases to scroll through. The figures
    stand beside it as PNG files, in the folder <out>_figures.
    """
    from pixelnet_tf.api.reports import Report
    from pixelnet_tf.api.scoring import scoring_config

    if print_config:
        print_and_leave(scoring_config(predictions_dir, config_path, overrides, run_dir).config,
                        True)
    with TerminalReporter() as reporter:
        report = Report(run_dir, predictions_dir, scores_dir, references=references_dir,
                        data=data_dir, config=config_path, overrides=overrides, overlays=overlays,
                        viewers=viewers, reporter=reporter)
    if dry_run:
        click.echo(f"would write a report of {len(report.cases)} cases to {out}")
        return
    for path in report.save(out):
        click.echo(f"written: {path}")
