"""`pixelnet-tf import-caffe`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    PATH,
    config_options,
    dry_run_option,
    read_config,
    refuse_given,
    verb,
)
from pixelnet_tf.errors import ConfigError


@verb("import-caffe")
@click.option("--caffemodel", type=PATH, help="File with the weights (.caffemodel or "
              ".caffemodel.h5).")
@click.option("--prototxt", type=PATH,
              help="File with the network; without it, the description inside the caffemodel is "
              "taken.")
@click.option("--out", type=PATH, metavar="RUN|FILE.keras",
              help="What to write: a run's folder, or a .keras file with its configuration "
              "beside it.")
@click.option("--solver", type=PATH,
              help="A solver.prototxt, which is printed as the section `training` of a "
              "configuration, "
                   "and written into the model's.")
@click.option("--classes", type=click.IntRange(1),
              help="Number of classes of the model; of --config, else of the file if not given. "
                   "Scores of another number are left out.")
@click.option("--channels", type=click.IntRange(1),
              help="Number of image channels of the model; of --config, else of the file if not "
                   "given.")
@click.option("--channel-rule", type=click.Choice(["average", "repeat", "keep"]), default="average",
              show_default=True,
              help="How the first kernel is fitted to another number of channels.")
@click.option("--border", type=click.IntRange(0), default=100, show_default=True,
              help="How many zero pixels are laid around the image; no file of Caffe says it.")
@click.option("--allow-nan", is_flag=True, help="Take weights that are NaN or infinite, "
              "too.")
@config_options
@dry_run_option
def command(caffemodel: Path | None, prototxt: Path | None, out: Path | None, solver: Path | None,
            classes: int | None, channels: int | None, channel_rule: str, border: int,
            allow_nan: bool, config_path: str | None, overrides: tuple[str, ...],
            print_config: bool, dry_run: bool) -> None:
    """Turn Caffe weights into a model of this project: for train, predict and export.

    A PixelNet becomes the same network here, in the form that is read off the file; a VGG-16
    becomes the trunk of a new one, in the form of --config, whose classes must be known. A table
    says what was matched, converted and left out. --config also names study, channels and labels;
    without it they are channel1, channel2, ... and class1, class2, ... --set changes either, as in
    --set model.fc7=aligned.

    A model whose layers all come from the file goes straight into predict and export. To train it
    on: pixelnet-tf train --config RUN/config.yaml --data PREPARED --out NEW_RUN.
    """
    config = None
    if config_path is not None or print_config:
        config = read_config(config_path, overrides, print_config)
    if caffemodel is None and solver is None:
        raise ConfigError("import-caffe needs --caffemodel (and --out), or --solver")
    if caffemodel is not None and out is None and not dry_run:
        raise ConfigError("import-caffe needs --out, the model to write; or --dry-run")
    if caffemodel is None:
        refuse_given("without --caffemodel no model is written, and --solver alone is printed; "
                     "give --caffemodel, or leave it out",
                     "prototxt", "out", "classes", "channels", "channel_rule", "border",
                     "allow_nan", "config_path", "overrides")
    from pixelnet_tf.api import caffe

    if out is not None:
        caffe.check_target(out)
    if solver is not None:
        click.echo(caffe.solver_yaml(solver), nl=False)
    if caffemodel is None:
        return
    imported = caffe.import_caffe(
        caffemodel, prototxt, out=out or Path("imported"), solver=solver, config=config,
        overrides=overrides, classes=classes, channels=channels, channel_rule=channel_rule,
        border=border, allow_nan=allow_nan)
    click.echo(str(imported.table))
    if imported.note:
        click.echo(f"note: {imported.note}")
    if dry_run or out is None:
        click.echo("dry run: nothing was written")
        return
    for path in imported.save(out):
        click.echo(f"wrote {path}")
