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
    from pixelnet_tf.caffe.export import FILES, caffe_network, export_caffe
    from pixelnet_tf.runs.folder import RunFolder

    run = RunFolder(str(model_path))
    model = run.model()
    config = run.config()
    model.check_study(config.study)
    correction = run.priors().correction(config.prediction.prior)
    files = list(FILES)
    if snapshot is not None:
        from pixelnet_tf.training.state import TrainingState

        state = TrainingState.of_run(run)
        files += [path.name for path in state.snapshot_paths(out, snapshot)]
    if dry_run:
        click.echo(str(caffe_network(model)))
        click.echo(f"dry run: would write {', '.join(files)} into {out}")
        return
    for written in export_caffe(model, config, correction, out):
        click.echo(f"wrote {written}")
    if snapshot is not None:
        for written in state.save_snapshot(out, snapshot):
            click.echo(f"wrote {written}")
