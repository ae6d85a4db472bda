"""`pixelnet-tf import-caffe`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, read_config
from pixelnet_tf.errors import ConfigError


@click.command("import-caffe")
@click.option("--caffemodel", type=PATH, help="The weights (.caffemodel or .caffemodel.h5).")
@click.option("--prototxt", type=PATH,
              help="The network; without it, the description inside the caffemodel counts.")
@click.option("--out", type=PATH, help="The model to write, as in model.keras.")
@click.option("--solver", type=PATH,
              help="solver.prototxt: print it as the training section of a configuration, and "
                   "write it beside the model.")
@click.option("--classes", type=click.IntRange(1),
              help="Number of classes of the model; of the file if not given. Scores of another "
                   "number are left out.")
@click.option("--channels", type=click.IntRange(1),
              help="Number of image channels of the model; of the file if not given.")
@click.option("--channel-rule", type=click.Choice(["average", "repeat"]), default="average",
              show_default=True,
              help="How the first kernel is fitted to another number of channels.")
@click.option("--border", type=click.IntRange(0), default=100, show_default=True,
              help="Zero pixels around the image, which no Caffe file states.")
@click.option("--allow-nan", is_flag=True, help="Take weights that are not finite.")
@config_options
@dry_run_option
def command(caffemodel: Path | None, prototxt: Path | None, out: Path | None, solver: Path | None,
            classes: int | None, channels: int | None, channel_rule: str, border: int,
            allow_nan: bool, config_path: str | None, overrides: tuple[str, ...],
            print_config: bool, dry_run: bool) -> None:
    """Turn Caffe weights into a model of this project, in which training and prediction go on.

    A PixelNet becomes the same network here; a VGG-16 becomes the trunk of a new one, whose
    classes must be given. A table says what was matched, converted and left out. The form of the
    model is read off the file and changed by --set (as in --set model.fc7=aligned), unless --config
    gives one (section `model`).
    """
    config = None
    if config_path is not None or print_config:
        config = read_config(config_path, overrides, print_config).model
    if caffemodel is None and solver is None:
        raise ConfigError("import-caffe needs --caffemodel (and --out), or --solver")
    if caffemodel is not None and out is None and not dry_run:
        raise ConfigError("import-caffe needs --out, the model to write; or --dry-run")
    if out is not None and out.suffix != ".keras":
        raise ConfigError(f"--out {out}: the name must end with .keras")
    section = None
    if solver is not None:
        from pixelnet_tf.caffe.solver_config import training_yaml

        section = training_yaml(solver)
        click.echo(section, nl=False)
    if caffemodel is None:
        return
    from pixelnet_tf.caffe.import_pixelnet import import_pixelnet

    model, table = import_pixelnet(
        prototxt, caffemodel, config=config, overrides=overrides, classes=classes,
        channels=channels, border=border, channel_rule=channel_rule, allow_nan=allow_nan,
    )
    click.echo(str(table))
    if dry_run or out is None:
        click.echo("dry run: nothing was written")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.tmp.keras")
    try:
        model.save(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    click.echo(f"wrote {out}")
    if section is not None:
        beside = out.with_suffix(".training.yaml")
        beside.write_text(section, encoding="utf-8")
        click.echo(f"wrote {beside}")
