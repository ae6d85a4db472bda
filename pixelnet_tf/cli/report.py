"""`pixelnet-tf report`: one HTML file with curves, scores and pictures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, verb
from pixelnet_tf.cli.scored import check_predicted_by, read_scoring_config
from pixelnet_tf.errors import DataError, ModelError, require


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
@click.option("--out", required=True, type=PATH, metavar="FILE", help="The HTML file.")
@click.option("--overlays", type=click.IntRange(min=0), default=3, show_default=True,
              help="How many of the worst and of the best cases are pictured.")
@dry_run_option
@config_options
def command(run_dir: Path, predictions_dir: Path, scores_dir: Path, references_dir: Path | None,
            data_dir: Path | None, out: Path, overlays: int, dry_run: bool,
            config_path: str | None, overrides: tuple[str, ...], print_config: bool) -> None:
    """Write one HTML file about RUN that needs no network and no server.

    It holds the configuration, the data with class frequencies, training curves, score tables, box
    plots, and the worst and best cases as overlays. The figures stand beside it as PNG files, in
    the folder <out>_figures.
    """
    require("report", "report", "matplotlib", "jinja2")
    from pixelnet_tf.evaluation.case_images import image_reader
    from pixelnet_tf.evaluation.matching import match_cases
    from pixelnet_tf.evaluation.report import ReportSource, write_report
    from pixelnet_tf.evaluation.summary import check_scored_files, read_evaluation

    config, _ = read_scoring_config(predictions_dir, config_path, overrides, print_config, run_dir)
    if not run_dir.is_dir():
        raise ModelError(f"{run_dir}: no such folder; give the folder that `train --out` wrote")
    evaluation = read_evaluation(scores_dir)
    if references_dir is None:
        references_dir = Path(evaluation.about.get("references", ""))
        if not references_dir.is_dir():
            raise DataError(f"{scores_dir}: its references {str(references_dir)!r} are not there "
                            "any more; name them with --references")
    matching = match_cases(predictions_dir, references_dir, config.study, allow_missing=True)
    check_scored_files(evaluation, matching)
    check_predicted_by(run_dir, predictions_dir)
    if data_dir is None and any(path.is_dir() for path in references_dir.iterdir()):
        data_dir = references_dir
    reader = image_reader(data_dir, config.study) if data_dir and overlays else None
    if reader is None:
        click.echo("no overlays: name the images with --data", err=True)
    if dry_run:
        click.echo(f"would write a report of {len(evaluation.scores)} cases to {out}")
        return
    written = write_report(ReportSource(run_dir, evaluation, matching, config.study, reader), out,
                           overlays)
    for path in written:
        click.echo(f"written: {path}")

