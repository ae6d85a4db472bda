"""`pixelnet-tf predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixelnet_tf.cli.options import (
    PATH,
    TOKEN_VARIABLE,
    adapt_config,
    config_options,
    dry_run_option,
    read_token,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError, ModelError, require
from pixelnet_tf.io.files import check_apart, read_json_object

if TYPE_CHECKING:
    from pixelnet_tf.inference.predict import PredictionSummary


@verb("predict")
@click.option("--model", "models", multiple=True, metavar="RUN", help="Folder that `pixelnet-tf "
              "train` or `import-caffe` wrote, or its .keras file; RUN/checkpoints/best for a "
              "training that has not ended. Repeatable: the scores of several are averaged.")
@click.option("--server", "server", metavar="URL", help="Instead of --model: a server of an "
              "exported model, http://host:port or http://host:port/v1/models/NAME.")
@click.option("--serving-json", type=PATH, metavar="FILE", help="With --server, where the server "
              "is TensorFlow Serving: the export's serving.json.")
@click.option("--token-file", type=PATH, metavar="FILE", help="With --server: a file with its "
              f"token; or set {TOKEN_VARIABLE}.")
@click.option("--data", "data", required=True, metavar="PREPARED|STUDY",
              help="A prepared study, or raw images, which are then prepared as for the training.")
@click.option("--out", "out", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Receives <case>.nii.gz and prediction.json.")
@click.option("--split", type=click.Choice(["all", "train", "validation", "test"]), default="all",
              show_default=True, help="Part of the run's split; `all` takes every case.")
@click.option("--case", "only", multiple=True, metavar="NAME", help="Only this case; repeatable.")
@click.option("--prior", type=click.Choice(["sampled", "corrected", "fitted"]),
              help="sampled: the paper's arg max; corrected: by real class frequencies; fitted: "
              "corrected with a strength fitted on validation cases.")
@click.option("--mode", type=click.Choice(["exact", "adaptive", "reference"]),
              help="exact (default), adaptive (faster, not exact), reference (slow yardstick).")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]))
@click.option("--probabilities", is_flag=True, help="Also write DIR/probabilities/<case>.nii.gz.")
@click.option("--overlays", is_flag=True, help="Also write a picture of each case.")
@click.option("--skip-bad-cases", is_flag=True, help="Leave bad cases out with a warning (kept in "
              "prediction.json) instead of refusing all.")
@click.option("--overwrite", is_flag=True, help="Remove segmentations in DIR that were made from "
              "other images, another model or by other settings; without it they are refused.")
@dry_run_option
@config_options
def command(models, server, serving_json, token_file, data, out, split, only, prior, mode,
            precision, probabilities, overlays, skip_bad_cases, overwrite, dry_run, config_path,
            overrides, print_config) -> None:
    """Segment cases with a trained model, or with a server of one (--server).

    Every case is read and checked before any work. Volumes are written as uint8 NIfTI with the
    study's label values and exactly the geometry of the input. A finished case of an earlier call
    is kept if it was made from the same images, model and settings. --config is needed only for raw
    images in another layout than the training's: study.layout, files and resample and the section
    prediction are taken from it. For research use only.
    """
    if overlays:
        require("--overlays", "report", "matplotlib")
    if bool(models) == (server is not None):
        raise click.UsageError("give one of --model RUN and --server URL")
    if server is not None and split != "all":
        raise click.UsageError("--split needs --model: an exported model does not say which cases "
                               "it was trained on; name them by --case")
    chosen = [f"prediction.{key}={value}" for key, value in
              (("prior", prior), ("mode", mode), ("precision", precision)) if value]
    if probabilities:
        chosen.append("prediction.probability_maps=true")

    def adapt(config: Config) -> Config:
        return adapt_config(config, config_path, (*overrides, *chosen), print_config)

    check_apart(out, data)
    options = {"skip_bad_cases": skip_bad_cases, "overwrite": overwrite, "dry_run": dry_run}
    with TerminalReporter() as reporter:
        options["reporter"] = reporter
        if server is not None:
            summary = _predict_by_server(server, serving_json, token_file, data, out, only, adapt,
                                         overlays, options)
        else:
            summary = _predict_here(models, data, out, split, only, adapt, overlays, options)
    if dry_run:
        click.echo(f"dry run: nothing was written; {len(summary.segmented)} cases would be "
                   f"segmented ({', '.join(summary.segmented)}), {len(summary.kept)} kept, "
                   f"{len({problem.case for problem in summary.left_out})} left out")
        return
    click.echo(f"predictions written to {out}")
    if overlays:
        click.echo(f"pictures written to {_pictures(out)}")


def _predict_here(models, data, out, split, only, adapt, overlays, options) -> PredictionSummary:
    from pixelnet_tf.inference.predict import CaseSource, predict_cases
    from pixelnet_tf.runs.compatibility import AVERAGE, AVERAGE_ON_SPLIT, check_fit
    from pixelnet_tf.runs.folder import RunFolder

    runs = [RunFolder(model) for model in models]
    for other in runs[1:]:
        check_fit(runs[0].basis(), other.basis(),
                  AVERAGE if split == "all" else AVERAGE_ON_SPLIT)
    config = adapt(runs[0].config())
    if split == "all":
        source = CaseSource.open(data, config, None, only, truth=overlays)
    else:
        source = CaseSource.open(data, config, runs[0].split().choose(split, only), truth=overlays)
    learned = {name for run in runs for part in ("train", "validation")
               for name in getattr(run.split(), part)}
    click.echo(f"{len(source.names)} cases, prior {config.prediction.prior}, mode "
               f"{config.prediction.mode}, {config.prediction.precision}")
    return predict_cases([run.network(config.prediction.prior) for run in runs], source, config,
                         out, draw=_drawer(out, config) if overlays else None, trained_on=learned,
                         **options)


def _predict_by_server(server, serving_json, token_file, data, out, only, adapt, overlays,
                       options) -> PredictionSummary:
    from pixelnet_tf.inference.predict import CaseSource
    from pixelnet_tf.serving.client import ServedModel
    from pixelnet_tf.serving.predict_remotely import predict_remotely, served_config

    served = ServedModel(server, read_token(token_file), say=options["reporter"].message)
    about = served.about() if serving_json is None else _read_about(serving_json)
    config = served_config(about, adapt)
    source = CaseSource.open(data, config, None, only, truth=overlays)
    click.echo(f"{len(source.names)} cases, {served.url} version {about['version']}, prior "
               f"{config.prediction.prior}, mode {config.prediction.mode}")
    return predict_remotely(served, about, source, config, out,
                            draw=_drawer(out, config) if overlays else None, **options)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, "give the one that `pixelnet-tf export` wrote")
    except DataError as error:
        raise ModelError(f"--serving-json {error}") from None


def _drawer(out: Path, config: Config):
    from pixelnet_tf.evaluation.overlay import overlay_drawer

    return overlay_drawer(_pictures(out), config)


def _pictures(out: Path) -> Path:
    from pixelnet_tf.inference.predict import PICTURES

    return out / PICTURES
