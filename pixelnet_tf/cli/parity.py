"""`pixelnet-tf parity`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import OUT_FILE, PATH, verb
from pixelnet_tf.errors import ModelError
from pixelnet_tf.io.files import write_text


@verb("parity")
@click.option("--prototxt", type=PATH, required=True, help="File with the network, "
              "as Caffe reads it.")
@click.option("--caffemodel", type=PATH, required=True, help="File with its "
              "weights.")
@click.option("--golden", type=PATH, required=True,
              help="A .npz file with the inputs by name and the expected blobs under "
              "blob/<name>, in "
                   "Caffe's order of axes.")
@click.option("--tolerance", type=float, default=2e-5, show_default=True,
              help="Largest difference allowed, relative to the blob's largest value.")
@click.option("--phase", type=click.Choice(["TEST", "TRAIN"]), default="TEST", show_default=True,
              help="Phase of Caffe in which the network is run.")
@click.option("--precision", type=click.Choice(["float32", "float64"]), default="float32",
              show_default=True,
              help="Type of number to compute with. With float64 a difference that comes from "
              "rounding shrinks, and a real one does not.")
@click.option("--json", "json_path", type=OUT_FILE, help="Write the report as JSON, too.")
def command(prototxt: Path, caffemodel: Path, golden: Path, tolerance: float, phase: str,
            precision: str, json_path: Path | None) -> None:
    """Build a Caffe network here and compare its blobs with arrays that Caffe wrote.

    Exit code 4 if a blob is past the tolerance.
    """
    from pixelnet_tf.api.caffe import compare_with_golden

    report = compare_with_golden(prototxt, caffemodel, golden, tolerance=tolerance, phase=phase,
                                 dtype=precision)
    click.echo(str(report))
    if json_path is not None:
        write_text(json_path, report.to_json() + "\n")
    if not report.passed:
        raise click.exceptions.Exit(ModelError.exit_code)
