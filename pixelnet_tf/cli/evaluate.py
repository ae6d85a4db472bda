"""`pixelnet-tf evaluate`: score segmentations, of this project or of any other tool."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, verb
from pixelnet_tf.cli.scored import read_scoring_config
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import Config
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import Protocol, make_protocol
from pixelnet_tf.evaluation.scoring import PairContent, check_pairs
from pixelnet_tf.evaluation.summary import (
    CASES_FILE,
    SUMMARY_FILE,
    check_replaceable,
    evaluate,
    write_evaluation,
)
from pixelnet_tf.evaluation.tables import spread_table
from pixelnet_tf.reporting import Reporter


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
@click.option("--overwrite", is_flag=True,
              help="Replace the scores of other predictions, or by other rules, that DIR holds.")
@dry_run_option
@config_options
def command(predictions_dir: Path, references_dir: Path, out_dir: Path, protocol: str | None,
            hausdorff95: str, workers: int | None, allow_missing: bool, overwrite: bool,
            dry_run: bool, config_path: str | None, overrides: tuple[str, ...],
            print_config: bool) -> None:
    """Score segmentations as BraTS or ISLES does.

    Every file is read and checked before any work. Labels and regions come from --config, else
    from the prediction.json or config.yaml beside the predictions, else they are BraTS': 0, 1, 2,
    4. Only the cases that prediction.json lists are expected; without it, every case of the
    references.
    """
    config, named = read_scoring_config(predictions_dir, config_path, overrides, print_config)
    if protocol:
        config = dataclasses.replace(config, evaluation=dataclasses.replace(
            config.evaluation, protocol=protocol))
    rules = make_protocol(config.evaluation, f"hausdorff95_{hausdorff95}")
    matching = match_cases(predictions_dir, references_dir, config.study, allow_missing)
    with TerminalReporter() as reporter:
        if matching.missing:
            reporter.warning(matching.missing)
        contents = check_pairs(matching, config.study, reporter)
        _check_labels(contents, config, rules, named, reporter)
        if not overwrite:
            check_replaceable(out_dir, rules, rules.regions(config.study), contents)
        if dry_run:
            click.echo(f"would score {len(matching.pairs)} cases by the {rules.name} protocol into "
                       f"{out_dir}")
            return
        result = evaluate(matching, config, rules, predictions_dir, references_dir, contents,
                          workers, reporter)
    write_evaluation(result, out_dir)
    click.echo(spread_table(result).render("text"))
    click.echo(f"written: {out_dir / SUMMARY_FILE}, {out_dir / CASES_FILE}")


def _check_labels(contents: Mapping[str, PairContent], config: Config, rules: Protocol,
                  named: bool, reporter: Reporter) -> None:
    """Say what the labels in the files make of the regions; raises `ConfigError` where labels that
    nobody named are those of another study."""
    present = frozenset().union(*(content.values for content in contents.values()))
    regions = rules.regions(config.study)
    if not named:
        reporter.message(f"labels and regions are BraTS' ({_words(regions)}): neither --config nor "
                         "a file beside the predictions says otherwise")
        if rules.name == "brats" and not present & {2, 4}:
            raise ConfigError(
                f"{len(contents)} cases hold the labels {sorted(present)} alone, which are not "
                "BraTS'; say what they are by --config, or, for a mask of 0 and 1, by --set "
                "study.labels='{0: background, 1: lesion}' --set study.regions='{lesion: [1]}'")
    for region, values in regions.items():
        if not present & set(values):
            reporter.warning(f"region {region} (labels {list(values)}) is empty in every reference "
                             "and every prediction: its scores are those of empty masks")
    same = [case for case, content in contents.items() if content.reference == content.prediction]
    if same:
        reporter.warning(f"{len(same)} of {len(contents)} predictions are, byte for byte, their "
                         f"references ({', '.join(same[:5])})")


def _words(regions: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{region}: {list(values)}" for region, values in regions.items())
