"""`pixelnet-tf phantom`: a synthetic study with known truth."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, config_options, dry_run_option, read_config, verb
from pixelnet_tf.cli.terminal import TerminalReporter


@verb("phantom")
@click.argument("out", type=PATH)
@click.option("--cases", type=click.IntRange(min=1), default=16, show_default=True,
              help="How many cases to write.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Where the random numbers begin; the same seed gives the same files, byte for "
              "byte.")
@click.option("--layout", type=click.Choice(["brats", "isles"]),
              help="What is drawn: brats has tumours in flair, t1, t1ce and t2, isles has "
              "strokes in "
              "dwi, adc and cbf. [default: that of --config, else brats]")
@click.option("--size", type=click.IntRange(min=16), nargs=3, default=None, metavar="X Y Z",
              help="Size of a volume in voxels, from left to right, front to back and bottom to "
              "top "
              "[default: 96 96 48 for brats, 112 96 20 for isles].")
@dry_run_option
@config_options
def command(out: Path, cases: int, seed: int, layout: str | None,
            size: tuple[int, int, int] | None, dry_run: bool, config_path: str | None,
            overrides: tuple[str, ...], print_config: bool) -> None:
    """Write a synthetic study with known truth into the folder OUT.

    It serves to try every other verb without any data: pixelnet-tf prepare --config phantom
    --data OUT --out prepared comes next (for --layout isles: --config isles2017).
    """
    # Without --config, the defaults of a configuration: brats.
    config = read_config(config_path, overrides, print_config)
    from pixelnet_tf.api.study import phantom_size, write_phantom

    layout = layout or config.study.layout
    x, y, z = phantom_size(layout, size)
    if dry_run:
        click.echo(f"would write {cases} cases of {x}x{y}x{z} voxels ({layout}) into {out}")
        return
    with TerminalReporter() as reporter:
        write_phantom(out, cases, seed=seed, layout=layout, size=(x, y, z), reporter=reporter)
    click.echo(f"{cases} cases of {x}x{y}x{z} voxels ({layout}) in {out}")
