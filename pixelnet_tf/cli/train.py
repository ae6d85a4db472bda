"""`pixelnet-tf train`."""

from __future__ import annotations

import json
import re

import click

from pixelnet_tf.cli.options import (
    config_options,
    dry_run_option,
    read_config,
    refuse_given,
    verb,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import JOIN_SECONDS, Config, Distribute, check_network_named
from pixelnet_tf.errors import ConfigError, as_shown


@verb("train")
@config_options
@click.option("--data", "data", required=True, metavar="PREPARED",
              help="Folder that `pixelnet-tf prepare` wrote, or its URL in an object store.")
@click.option("--out", "out", required=True, metavar="RUN", help="Folder of the run, or its "
              "URL in an object store.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, to the same weights "
              "as a run that was never stopped.")
@click.option("--snapshot", metavar="FILE", help="Go on from Caffe's .solverstate (or "
              ".solverstate.h5), its caffemodel beside it: the same as --set "
              "training.initial_weights=FILE.")
@click.option("--weights", metavar="FILE", help="Start from the weights in this file: a "
              ".caffemodel of VGG-16 or PixelNet, a .keras model of an earlier run, or Keras' .h5 "
              "of VGG-16 (without a network: "
              "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 of "
              "storage.googleapis.com/tensorflow/keras-applications/vgg16, MD5 "
              "64373286793e3c8b2b4e3219cbf3544b; docs/training.md lists others). The same as --set "
              "training.initial_weights=FILE.")
@click.option("--fold", type=int, help="Train for this fold of the split (from 0): its cases are "
              "the test cases.")
@click.option("--folds", metavar="all|0,2", help="Train a network for each fold of the split, or "
              "for these, into RUN/fold_0, RUN/fold_1 and so on; score all of them on the cases "
              "that they have not seen, and decide about the prediction of their average. "
              "With --resume, what has ended is kept.")
@click.option("--distribute", type=click.Choice(Distribute.texts()), default="auto",
              show_default=True, help="Devices that share each mini-batch: one (none), all GPUs of "
              "this machine (mirrored), or several machines (multiworker: TF_CONFIG or Slurm's "
              "srun says which; see docs/scale.md). auto is mirrored where there are several GPUs.")
@click.option("--join-seconds", type=click.IntRange(min=1), default=JOIN_SECONDS,
              metavar="SECONDS", show_default=True, help="How long the workers of --distribute "
              "multiworker wait for each other at the start; give more where a queue starts them "
              "one by one.")
@dry_run_option
def command(config_path: str | None, overrides: tuple[str, ...], print_config: bool, data: str,
            out: str, resume: bool, snapshot: str | None, weights: str | None, fold: int | None,
            folds: str | None, distribute: str, join_seconds: int, dry_run: bool) -> None:
    """Train a class-balanced PixelNet on a prepared study.

    The study and how it was prepared come from the prepared folder; --config gives model, sampling
    and training. For the original PixelNet's sampling add --set sampling.strategy=uniform.

    Ctrl-C and SIGTERM let the step at hand end and save the state before they stop (exit codes 130
    and 143); --resume goes on from there. A second Ctrl-C does not wait. On several devices the
    code of SIGTERM is 75: start again with --resume, as a batch system does. Where a worker is lost
    the others end with code 5 and its name.
    """
    if snapshot is not None and weights is not None:
        raise click.UsageError("give one of --snapshot and --weights")
    if distribute != Distribute.MULTIWORKER:
        refuse_given("nobody is waited for; give --distribute multiworker, or leave it out",
                     "join_seconds")
    for file in (snapshot, weights):
        if file is None:
            continue
        # JSON's strings are YAML's, whatever stands in a path.
        overrides = (*overrides, f"training.initial_weights={json.dumps(file)}")
    config = read_config(config_path, overrides, print_config)
    if snapshot is not None and not snapshot.endswith((".solverstate", ".solverstate.h5")):
        raise ConfigError("is no state of Caffe's solver", file=snapshot,
                          hint="give --snapshot a .solverstate or .solverstate.h5; weights alone "
                               "are given by --weights FILE")
    if folds is not None:
        if fold is not None:
            raise click.UsageError("give one of --fold and --folds")
        if distribute not in (Distribute.AUTO, Distribute.NONE):
            raise click.UsageError(f"--distribute {distribute} trains one network: give --fold in "
                                   "place of --folds, once for each fold")
        check_network_named(config_path, overrides)
        _cross_validate(data, config, out, _numbers(folds), resume, dry_run)
        return
    from pixelnet_tf.api.study import make_trainer

    with TerminalReporter() as reporter:
        trainer = make_trainer(data, config, out, fold=fold, distribute=distribute,
                               join_seconds=join_seconds, reporter=reporter)
        check_network_named(config_path, overrides)
        chief = trainer.replicas is None or trainer.replicas.chief
        for line in (trainer.describe(), trainer.needs()) if chief else ():
            click.echo(as_shown(line))
        if dry_run:
            trainer.check(resume)
            trainer.check_start_weights()
            # Those of mixed lesions would have to be drawn first.
            for line in () if config.sampling.lesion_mixing else trainer.measure_priors().lines():
                click.echo(line)
            click.echo("dry run: nothing was trained")
            return
        trainer.run(resume)
    if chief:
        click.echo(as_shown(f"model written to {trainer.run_folder.file('model.keras')}"))


def _numbers(folds: str) -> list[int] | None:
    """The numbers that --folds names; None for all."""
    if folds == "all":
        return None
    parts = [part.strip() for part in folds.split(",")]
    if not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
        raise click.UsageError(f"--folds takes all, or numbers as in 0,2, got {folds!r}")
    return [int(part) for part in parts]


def _cross_validate(data: str, config: Config, out: str, folds: list[int] | None, resume: bool,
                    dry_run: bool) -> None:
    from pixelnet_tf.api.scoring import Scores
    from pixelnet_tf.api.study import make_cross_validation

    with TerminalReporter() as reporter:
        work = make_cross_validation(data, config, out, folds=folds, reporter=reporter)
        click.echo(work.describe())
        if dry_run:
            work.check(resume)
            work.check_start_weights()
            click.echo("dry run: nothing was trained")
            return
        scores = Scores(work.run(resume))
    click.echo("scores of the cases that each network has not seen:")
    click.echo(scores.table())
    click.echo(f"networks written to {out}/fold_*; --model {out} takes their average")
