"""`pixelnet-tf info`: versions, devices and speeds."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from pixelnet_tf.cli.options import verb


@verb()
@click.option("--no-measure", is_flag=True, help="Leave the speed of a convolution away, which "
              "takes some seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(no_measure: bool, as_json: bool) -> None:
    """Say what this installation and this machine are.

    Versions, processor, memory, GPUs, what multiplies bfloat16 here and what `precision: auto`
    therefore stands for, the measured speed of a convolution in either number type, and which
    extras are there. For a bug report, and before a long training.
    """
    from pixelnet_tf.api.info import machine_info

    found = machine_info(measure=not no_measure)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    for line in found.lines():
        click.echo(line)
