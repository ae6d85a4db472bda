"""`pixelnet-tf export-caffe`."""

from __future__ import annotations

from pathlib import Path

import click

from pixelnet_tf.cli.options import PATH, dry_run_option, verb


@verb("export-caffe")
@click.option("--model", "model_path", type=PATH, required=True,
              help="A run of `pixelnet-tf train` or `import-caffe`, or a .keras model.")
@click.option("--out", type=PATH, required=True,
              help="Folder for the network, its description and two scripts.")
@click.option("--snapshot", type=click.Choice(["binaryproto", "hdf5"]),
              help="Also write the last state of a run's training, from which Caffe's solver goes "
                   "on: snapshot_iter_N.solverstate and its caffemodel (hdf5: both with .h5).")
@dry_run_option
def command(model_path: Path, out: Path, snapshot: str | None, dry_run: bool) -> None:
    """Turn a trained model into a prototxt and a caffemodel that the original Caffe loads.

    Comments on top of the prototxt, and serving.json beside it, say what to feed; the script
    segment_nifti.py segments a NIfTI case through pycaffe.
    """
    from pixelnet_tf.api.caffe import CaffeExport

    export = CaffeExport(model_path, snapshot)
    if dry_run:
        click.echo(export.prototxt)
        click.echo(f"dry run: would write {', '.join(export.files(out))} into {out}")
        return
    for written in export.save(out):
        click.echo(f"wrote {written}")
