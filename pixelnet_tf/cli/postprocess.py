"""`pixelnet-tf postprocess`: choose the clean-up of predictions on validation cases."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, verb
from pixelnet_tf.cli.scored import check_predicted_by
from pixelnet_tf.config import PostprocessConfig
from pixelnet_tf.errors import ConfigError


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
    from pixelnet_tf.evaluation.matching import match_cases, stored_config
    from pixelnet_tf.evaluation.scoring import check_pairs
    from pixelnet_tf.evaluation.tuning import Round, as_overrides, tune_postprocess
    from pixelnet_tf.runs.folder import RunFolder

    run = RunFolder(model)
    study = run.config().study
    check_predicted_by(Path(model), predictions_dir)
    stored = stored_config(predictions_dir)
    if stored is not None and stored.prediction.postprocess != PostprocessConfig():
        raise ConfigError(
            f"{predictions_dir}: was cleaned up already ({stored.prediction.postprocess}), and "
            "what is chosen would come on top; predict again with --set prediction.postprocess={}")
    matching = match_cases(predictions_dir, references_dir, study)
    check_pairs(matching, study)

    def show(found: Round) -> None:
        tried = "  ".join(f"{value}: {dice:.4f}"
                          for value, dice in zip(found.values, found.dice, strict=True))
        click.echo(f"{found.step}: {tried}  -> {found.taken}")

    click.echo(f"mean Dice over {len(matching.pairs)} validation cases and "
               f"{len(study.regions)} regions")
    chosen, _ = tune_postprocess(matching, run.split(), study, show)
    options = " ".join(f"--set {shlex.quote(each)}" for each in as_overrides(chosen))
    click.echo(f"use: {options}" if options else "use: none, nothing gains")
