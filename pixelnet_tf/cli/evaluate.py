"""`pixelnet-tf evaluate`: score segmentations, of this project or of any other tool."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pixelnet_tf.cli.case_progress import CaseProgress
from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, verb
from pixelnet_tf.cli.scored import read_scoring_config
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.evaluation.scoring import score_cases
from pixelnet_tf.evaluation.summary import CASES_FILE, SUMMARY_FILE, Evaluation, write_evaluation
from pixelnet_tf.evaluation.tables import spread_table


@verb()
@click.option("--predictions", "predictions_dir", required=True, type=PATH, metavar="DIR",
              help="Folder of <case>.nii.gz (or .nii), of any tool.")
@click.option("--references", "references_dir", required=True, type=PATH, metavar="STUDY|DIR",
              help="Study with segmentations, or a folder of <case>.nii.gz.")
@click.option("--out", "out_dir", required=True, type=PATH, metavar="DIR",
              help="Where summary.json and cases.csv go.")
@click.option("--protocol", type=click.Choice(["brats", "isles"]),
              help="The challenge's rules; default: evaluation.protocol of the configuration.")
@click.option("--hausdorff95", type=click.Choice(["pooled", "directed", "directed_lower"]),
              default="pooled", show_default=True,
              help="Which Hausdorff95 the brats protocol computes.")
@click.option("--workers", type=click.IntRange(min=0), default=None, metavar="N",
              help="Processes; 0 is one per core. Default: evaluation.workers.")
@click.option("--allow-missing", is_flag=True,
              help="Score the common cases where names are missing on either side.")
@dry_run_option
@config_options
def command(predictions_dir: Path, references_dir: Path, out_dir: Path, protocol: str | None,
            hausdorff95: str, workers: int | None, allow_missing: bool, dry_run: bool,
            config_path: str | None, overrides: tuple[str, ...], print_config: bool) -> None:
    """Score segmentations as BraTS or ISLES does.

    Labels and regions come from --config, else from the prediction.json or config.yaml beside
    the predictions, else they are BraTS': 0, 1, 2, 4. Only the cases that prediction.json lists
    are expected; without it, every case of the references.
    """
    config = read_scoring_config(predictions_dir, config_path, overrides, print_config)
    evaluation = config.evaluation
    if protocol:
        evaluation = dataclasses.replace(evaluation, protocol=protocol)
    rules = make_protocol(evaluation, f"hausdorff95_{hausdorff95}")
    matching = match_cases(predictions_dir, references_dir, config.study, allow_missing)
    if matching.missing:
        click.echo(matching.missing, err=True)
    if dry_run:
        click.echo(f"would score {len(matching.pairs)} cases by the {rules.name} protocol into "
                   f"{out_dir}")
        return
    with CaseProgress({"score": "scored"}) as progress:
        scores = score_cases(
            matching, config.study, rules, evaluation.workers if workers is None else workers,
            lambda case, done, total: progress("score", done, total, case))
    result = Evaluation.of(
        rules, rules.regions(config.study), scores,
        empty_policy=evaluation.empty_policy if rules.name == "brats" else None,
        predictions=str(predictions_dir), references=str(references_dir),
        without_prediction=list(matching.without_prediction),
        without_reference=list(matching.without_reference))
    write_evaluation(result, out_dir)
    click.echo(spread_table(result).render("text"))
    click.echo(f"written: {out_dir / SUMMARY_FILE}, {out_dir / CASES_FILE}")
