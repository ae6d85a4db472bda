"""`pixelnet-tf plan`: a commented configuration from a look at a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pixelnet_tf.cli.options import (
    OUT_FILE,
    PATH,
    plan_options,
    refuse_given,
    set_option,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io.files import write_text


@verb("plan")
@click.argument("study", type=PATH)
@click.option("--out", type=OUT_FILE, metavar="FILE", help="Write the configuration there, with "
              "the reason of every choice; without it the plan is only shown.")
@plan_options
@click.option("--config", "config_path", metavar="FILE", help="A configuration whose section "
              "`study` says how the folder is to be read; left out, it is found out.")
@set_option
@click.option("--overwrite", is_flag=True, help="Replace FILE where it is there.")
def command(study: Path, out: Path | None, config_path: str | None,
            overrides: tuple[str, ...], overwrite: bool, **options: Any) -> None:
    """Look at the folder STUDY and at this machine, and write a configuration that says why.

    The layout is found out, headers and segmentations of all cases are read, and the images of a
    few. A short trial of the network tells how many steps fit into the minutes, and what time and
    memory each verb will take.

    Example: pixelnet-tf plan STUDY --out mine.yaml
    """
    from pixelnet_tf.api.plan import plan

    if out is None:
        refuse_given("nothing is written; give --out FILE, or leave it out", "overwrite")
    if out is not None and out.exists() and not overwrite:
        raise ConfigError("is there already", file=out, hint="give another --out, or --overwrite")
    with TerminalReporter() as reporter:
        found = plan(study, config=config_path, overrides=overrides, reporter=reporter,
                     **options)
    for line in found.lines():
        click.echo(line)
    if out is None:
        click.echo("nothing was written; keep it by --out FILE")
        return
    write_text(out, found.yaml())
    click.echo(f"written: {out}; next: pixelnet-tf prepare --config {out} --data {study} "
               "--out PREPARED")
