"""`pixelnet-tf pack`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import OUT_FILE, PATH, verb


@verb("pack")
@click.argument("models", nargs=-1, required=True, metavar="RUN...")
@click.argument("out", type=OUT_FILE, metavar="FILE")
@click.option("--name", help="Name of the model in its card; the study's when left out.")
@click.option("--evaluation", type=PATH, metavar="DIR", help="Folder that `pixelnet-tf evaluate` "
              "wrote for predictions of RUN; its mean scores go into the card.")
def command(models: tuple[str, ...], out: Path, name: str | None, evaluation: Path | None) -> None:
    """Write RUN as one FILE to hand on, such as model.zip.

    RUN is the folder of a training, several of them, or the folder of `train --folds`. The file
    holds weights, configuration, decisions, the SHA-256 of each file and a model card, and no name
    of a case. `predict --model FILE` and `export --model FILE` take it; whoever receives it need
    not trust it, since no code is run from it. For research use only.
    """
    from pixelnet_tf import Segmenter

    written = Segmenter.from_run(*models).pack(out, name=name, evaluation=evaluation)
    click.echo(f"model written to {written}")
