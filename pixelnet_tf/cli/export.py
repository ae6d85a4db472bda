"""`pixelnet-tf export`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, dry_run_option, refuse_given, verb
from pixelnet_tf.config import Mode, Precision, Prior
from pixelnet_tf.errors import as_shown, require


@verb("export")
@click.option("--model", "models", required=True, multiple=True, metavar="RUN",
              help="Folder that `pixelnet-tf train` or `import-caffe` wrote, or its .keras file; "
              "RUN/checkpoints/best for a training that has not ended. Several become one model, "
              "the average of their scores, as in predict: the option may be repeated, or name a "
              "pattern or the folder of `train --folds`. Or a file that `pixelnet-tf pack` wrote.")
@click.option("--out", "out", required=True, type=PATH, metavar="DIR",
              help="Folder to write to; the model goes to DIR/<name>/<version>/, as TensorFlow "
              "Serving wants it.")
@click.option("--name", help="Name of the model; the study's name when left out.")
@click.option("--version", type=int, help="Number of the version; the next one when left out.")
@click.option("--prior", type=click.Choice(Prior.texts()),
              help="What is added to the scores, as in predict; the run's when left out.")
@click.option("--mode", help="How slices are computed, as in predict.",
              type=click.Choice([text for text in Mode.texts() if text != Mode.REFERENCE]))
@click.option("--precision", type=click.Choice(Precision.texts()),
              help="Type of number to compute with, as in predict.")
@click.option("--format", "model_format", type=click.Choice(["savedmodel", "onnx"]),
              default="savedmodel", show_default=True,
              help="Form of the model. onnx has only the signature that gives scores of single "
              "pixels of an image.")
@click.option("--evaluation", "evaluation", type=PATH, metavar="DIR",
              help="Folder that `pixelnet-tf evaluate` wrote for predictions of RUN; its mean "
              "scores go into the card.")
@dry_run_option
def command(models: tuple[str, ...], out: Path, name: str | None, version: int | None,
            prior: str | None, mode: str | None, precision: str | None, model_format: str,
            evaluation: Path | None, dry_run: bool) -> None:
    """Write a SavedModel for TensorFlow Serving.

    The folder needs none of this project's code to run: it holds plain TensorFlow operations, a
    model card, serving.json and warm-up requests. For research use only.
    """
    from pixelnet_tf import Segmenter

    if model_format == "onnx":
        refuse_given("onnx scores single pixels, in float32; leave it out, or export a savedmodel",
                     "mode", "precision")
        require("--format onnx", "onnx", "tf2onnx", "onnxruntime")
    segmenter = Segmenter.from_run(*models, prior=prior, mode=mode, precision=precision)
    if segmenter.follows:
        click.echo(segmenter.follows)
    target = segmenter.export(out, name=name, version=version, form=model_format,
                              evaluation=evaluation, dry_run=dry_run)
    click.echo(as_shown(f"dry run: would write {target}" if dry_run
                        else f"model written to {target}"))
