"""`pixelnet-tf submit`: write the archive that a challenge takes."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    OUT_FILE,
    PATH,
    config_options,
    dry_run_option,
    print_and_leave,
    refuse_given,
    verb,
)


@verb()
@click.option("--challenge", required=True, type=click.Choice(["brats2017", "isles2017"]),
              help="The challenge that the archive is for.")
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="Folder of <case>.nii.gz (or .nii).")
@click.option("--references", "study_dir", required=True, type=PATH, metavar="STUDY",
              help="The challenge's cases; they give names and grids and need no segmentation.")
@click.option("--out", required=True, type=OUT_FILE, metavar="FILE", help="The zip archive.")
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
    if challenge == "brats2017":
        refuse_given("BraTS' files are called by their cases alone; leave it out", "description")
    from pixelnet_tf.api.reports import submission_config, submit

    if print_config:
        print_and_leave(submission_config(challenge, predictions_dir, config_path, overrides), True)
    names = submit(challenge, predictions_dir, study_dir, out, description=description,
                   config=config_path, overrides=overrides, dry_run=dry_run)
    if dry_run:
        click.echo(f"would write {len(names)} cases to {out}")
    else:
        click.echo(f"written: {out}, {len(names)} cases")
