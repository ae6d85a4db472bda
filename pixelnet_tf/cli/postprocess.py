"""`pixelnet-tf postprocess`: choose the clean-up of predictions on validation cases."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, verb
from pixelnet_tf.cli.terminal import TerminalReporter


@verb()
@click.option("--model", required=True, metavar="RUN", help="The trained run, for its split.")
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="What `predict --model RUN --split validation` wrote.")
@click.option("--references", "references_dir", required=True, type=PATH, metavar="STUDY|DIR",
              help="Study with segmentations, or a folder of <case>.nii.gz.")
def command(model: str, predictions_dir: Path, references_dir: Path) -> None:
    """Choose post-processing on validation cases, and on no others.

    The predictions must be RUN's, and not cleaned up. Tries the smallest component that stays and
    the largest alone, region by region, filled holes and BraTS' rule of the small enhancing tumour,
    each on top of the ones before, and prints the mean Dice of every value and the options for
    `predict` and `experiment`.
    """
    from pixelnet_tf.api.reports import choose_postprocess

    with TerminalReporter() as reporter:
        choice = choose_postprocess(model, predictions_dir, references_dir, reporter)
    click.echo(f"mean Dice over {choice.cases} validation cases and {choice.regions} regions")
    for line in choice.rounds:
        click.echo(line)
    options = " ".join(f"--set {shlex.quote(each)}" for each in choice.overrides)
    click.echo(f"use: {options}" if options else "use: none, nothing gains")
