"""`pixelnet-tf evaluate`: score segmentations, of this project or of any other tool."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    PATH,
    config_options,
    dry_run_option,
    print_and_leave,
    scheduler_option,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import ProtocolName
from pixelnet_tf.errors import as_shown
from pixelnet_tf.io.files import check_writable


@verb()
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="Folder with a file <case>.nii.gz (or .nii) for each case, written by any tool.")
@click.option("--references", "references_dir", required=True, type=PATH, metavar="STUDY|DIR",
              help="A study with segmentations, or a folder with a file <case>.nii.gz for each "
              "case.")
@click.option("--out", "out_dir", required=True, type=PATH, metavar="DIR",
              help="Folder to write summary.json and cases.csv to.")
@click.option("--protocol", type=click.Choice(ProtocolName.texts()),
              help="The challenge whose rules are followed [default: evaluation.protocol of the "
              "configuration].")
@click.option("--hausdorff95", type=click.Choice(["pooled", "directed", "directed_lower"]),
              default="pooled", show_default=True,
              help="The definition of Hausdorff95 that the brats protocol takes.")
@click.option("--workers", type=click.IntRange(min=0), default=None, metavar="N",
              help="How many processes score; 0 takes as many as there are processor cores "
              "[default: evaluation.workers].")
@scheduler_option
@click.option("--allow-missing", is_flag=True,
              help="Score the cases that both sides have, where one lacks some of the other's.")
@click.option("--overwrite", is_flag=True,
              help="Replace what DIR holds, even if it is of other predictions or by other rules.")
@dry_run_option
@config_options
def command(predictions_dir: Path, references_dir: Path, out_dir: Path, protocol: str | None,
            hausdorff95: str, workers: int | None, scheduler: str | None, allow_missing: bool,
            overwrite: bool, dry_run: bool, config_path: str | None, overrides: tuple[str, ...],
            print_config: bool) -> None:
    """Score segmentations as BraTS or ISLES does; brats2023 scores lesion by lesion.

    Every file is read and checked before any work. Labels and regions come from --config, else
    from the prediction.json or config.yaml beside the predictions, else they are BraTS': 0, 1, 2,
    4. Only the cases that prediction.json lists are expected; without it, every case of the
    references.
    """
    from pixelnet_tf.api.cluster import workers_of
    from pixelnet_tf.api.scoring import FolderScoring, scoring_config

    if print_config:
        print_and_leave(scoring_config(predictions_dir, config_path, overrides).config, True)
    check_writable(out_dir)
    with TerminalReporter() as reporter:
        scoring = FolderScoring(
            predictions_dir, references_dir, protocol, config=config_path, overrides=overrides,
            hausdorff95=hausdorff95, allow_missing=allow_missing, reporter=reporter)
        if not overwrite:
            scoring.check_target(out_dir)
        if dry_run:
            click.echo(f"would score {len(scoring.cases)} cases by the {scoring.protocol} protocol "
                       f"into {out_dir}")
            return
        with workers_of(scheduler, workers, reporter) as engine:
            scores = scoring.run(engine, reporter)
    written = scores.save(out_dir)
    click.echo(scores.table())
    click.echo(f"written: {', '.join(as_shown(str(path)) for path in written)}")
