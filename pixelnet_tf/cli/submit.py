"""`pixelnet-tf submit`: write the archive that a challenge takes."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, verb
from pixelnet_tf.cli.scored import read_scoring_config
from pixelnet_tf.evaluation.submission import CHALLENGES, write_submission


@verb()
@click.option("--challenge", required=True, type=click.Choice(CHALLENGES))
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="Folder of <case>.nii.gz (or .nii).")
@click.option("--references", "study_dir", required=True, type=PATH, metavar="STUDY",
              help="The challenge's cases; they give names and grids and need no segmentation.")
@click.option("--out", required=True, type=PATH, metavar="FILE", help="The zip archive.")
@click.option("--description", default="pixelnet", show_default=True,
              help="Part of ISLES' file names: SMIR.<description>.<id>.nii.")
@dry_run_option
@config_options
def command(challenge: str, predictions_dir: Path, study_dir: Path, out: Path, description: str,
            dry_run: bool, config_path: str | None, overrides: tuple[str, ...],
            print_config: bool) -> None:
    """Check predictions as the challenge's server would, and write the archive.

    Grid, labels, names and number of cases must be right, else nothing is written and every
    fault is listed. The layout comes from --config, else from the prediction.json beside the
    predictions, else it is the challenge's own.
    """
    beside = any((predictions_dir / name).is_file() for name in ("prediction.json", "config.yaml"))
    config, _ = read_scoring_config(predictions_dir, config_path or (None if beside else challenge),
                                    overrides, print_config)
    names = write_submission(challenge, predictions_dir, study_dir, config.study, out, description,
                             dry_run)
    if dry_run:
        click.echo(f"would write {len(names)} cases to {out}")
    else:
        click.echo(f"written: {out}, {len(names)} cases")
