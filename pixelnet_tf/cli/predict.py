"""`pixelnet-tf predict`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from pixelnet_tf.cli.options import (
    PATH,
    TOKEN_VARIABLE,
    cases_options,
    config_options,
    dry_run_option,
    print_and_leave,
    read_token,
    refuse_given,
    series_option,
    verb,
    with_series,
)
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.config import Mode, OutputForm, Precision, Prior
from pixelnet_tf.errors import require
from pixelnet_tf.io.files import check_apart


@verb("predict")
@click.option("--model", "models", multiple=True, metavar="RUN", help="Folder that `pixelnet-tf "
              "train` or `import-caffe` wrote, or its .keras file; RUN/checkpoints/best for a "
              "training that has not ended. The scores of several are averaged: "
              "the option may be repeated, a pattern such as 'RUN/fold_*' takes all that fit, and "
              "the folder of `train --folds` all its folds. Or a file that `pixelnet-tf pack` "
              "wrote.")
@click.option("--server", "server", metavar="URL", help="Instead of --model: a server of an "
              "exported model, http://host:port or http://host:port/v1/models/NAME.")
@click.option("--serving-json", type=PATH, metavar="FILE", help="With --server, where the server "
              "is TensorFlow Serving: the export's serving.json.")
@click.option("--token-file", type=PATH, metavar="FILE", help="With --server: a file with its "
              f"token; or set {TOKEN_VARIABLE}.")
@click.option("--data", "data", metavar="PREPARED|STUDY|CASE",
              help="A prepared study, or raw images, which are then prepared as for the training: "
              "a study, or the folder of a single case.")
@click.option("--file", "files", multiple=True, metavar="NAME=FILE", help="Instead of --data: an "
              "image of a single case, as in --file flair=a.nii.gz --file t2=b.nii.gz; --case "
              "names it.")
@click.option("--allow-missing", is_flag=True, help="Segment a case that lacks a modality without "
              "it, which is otherwise refused; prediction.json says it. Only a network that was "
              "trained with sampling.modality_dropout is made for it.")
@click.option("--out", "out", required=True, metavar="DIR",
              help="Folder to write to, or its URL in an object store; it receives a file "
              "<case>.nii.gz for each case, or what --output says, lesions.tsv with a row for each "
              "lesion, and prediction.json.")
@click.option("--split", type=click.Choice(["all", "train", "validation", "test"]), default="all",
              show_default=True, help="The part of the run's split to segment; `all` takes "
              "every case.")
@click.option("--case", "only", multiple=True, metavar="NAME", help="Segment this case "
              "only. The option may be repeated.")
@click.option("--prior", type=click.Choice(Prior.texts()),
              help="How often the classes are taken to occur. sampled: as often as they were "
              "drawn in "
              "the training, which is the paper's way and finds the most; corrected: as often as "
              "they occur in the study; fitted: corrected by the strength that was best on the "
              "validation cases.")
@click.option("--mode", type=click.Choice(Mode.texts()),
              help="How slices are computed. exact is the default; adaptive is faster and "
              "differs in "
              "a few voxels; reference is the slow, plain computation that the others are measured "
              "by.")
@click.option("--precision", type=click.Choice(Precision.texts()),
              help="Type of number to compute with; bfloat16 is faster on processors and cards "
              "that have it.")
@click.option("--probabilities", is_flag=True, help="Also write the probability of "
              "each class, as DIR/probabilities/<case>.nii.gz.")
@click.option("--uncertainty", is_flag=True, help="Also write how unsure each voxel is: "
              "DIR/uncertainty/<case>_entropy.nii.gz, and, where several networks are averaged, "
              "<case>_mutual_information.nii.gz, both in nats.")
@click.option("--output", type=click.Choice(OutputForm.texts()), default=OutputForm.NIFTI.value,
              show_default=True, help="The form of the segmentations. nifti: a volume for each "
              "case; dicom-seg: a DICOM segmentation that refers to the series it was made from, "
              "for cases of DICOM; bids: a derivative data set with the names of its sources.")
@click.option("--grid", metavar="MODALITY", default="", help="Write segmentations and maps on the "
              "own grid of this modality, by its nearest voxels, instead of on that of the first "
              "one; where images were registered, the motion is undone.")
@click.option("--overlays", is_flag=True, help="Also write a picture of each case, as "
              "DIR/overlays/<case>.png.")
@click.option("--skip-bad-cases", is_flag=True, help="Leave cases out that cannot be used, with "
              "a warning that prediction.json keeps, instead of refusing all of them.")
@click.option("--overwrite", is_flag=True, help="Remove segmentations in DIR that were made from "
              "other images, another model or by other settings; without it they are refused.")
@cases_options
@series_option
@dry_run_option
@config_options
def command(models: tuple[str, ...], server: str | None, serving_json: Path | None,
            token_file: Path | None, data: str | None, files: tuple[str, ...],
            allow_missing: bool, out: str, split: str, only: tuple[str, ...],
            prior: str | None, mode: str | None, precision: str | None, probabilities: bool,
            uncertainty: bool, output: str, grid: str, overlays: bool, skip_bad_cases: bool,
            overwrite: bool, part: str | None, scheduler: str | None, series: tuple[str, ...],
            dry_run: bool, config_path: str | None, overrides: tuple[str, ...], print_config: bool
            ) -> None:
    """Segment cases with a trained model, or with a server of one (--server).

    Every case is read and checked before any work. Volumes are written as uint8 NIfTI with the
    study's label values and exactly the geometry of the input, or in the form of --output. A
    finished case of an earlier call is kept if it was made from the same images, model and
    settings. --config is needed only for raw images in another layout than the training's:
    study.layout, files, series, codes, resample and register and the section prediction are taken
    from it. For research use only.
    """
    from pixelnet_tf.api.cluster import open_workers, part_of

    if part is not None and scheduler is not None:
        raise click.UsageError("give one of --part and --scheduler")
    if overlays:
        require("--overlays", "report", "matplotlib")
    if output == OutputForm.DICOM_SEG:
        require("--output dicom-seg", "dicom", "highdicom")
    if bool(models) == (server is not None):
        raise click.UsageError("give one of --model RUN and --server URL")
    if server is None:
        refuse_given("is for a server; give --server URL in place of --model, or leave it out",
                     "serving_json", "token_file")
    if server is not None and split != "all":
        raise click.UsageError("--split needs --model: an exported model does not say which cases "
                               "it was trained on; name them by --case")
    if (data is None) == (not files):
        raise click.UsageError("give one of --data and --file NAME=FILE")
    if files and split != "all":
        raise click.UsageError("--file makes a case that is in no part of a split: leave --split "
                               "out")
    if allow_missing:
        overrides = (*overrides, "prediction.allow_missing=true")
    if probabilities:
        overrides = (*overrides, "prediction.probability_maps=true")
    if uncertainty:
        overrides = (*overrides, "prediction.uncertainty_maps=true")
    overrides = with_series(overrides, series)
    given: str | dict[str, str] = data if data is not None else _by_name(files)
    if data is not None:
        check_apart(out, data)
    with TerminalReporter() as reporter:
        # A single case has no parts. What is no part is told before TensorFlow is loaded.
        chosen = part_of(part, reporter) if part or not (scheduler or files or only) else None
        from pixelnet_tf import Segmenter

        if server is None:
            model = Segmenter.from_run(*models, config=config_path, overrides=overrides,
                                       prior=prior, mode=mode, precision=precision,
                                       same_split=split != "all")
        else:
            model = Segmenter.from_server(server, token=read_token(token_file),
                                          serving_json=serving_json, config=config_path,
                                          overrides=overrides, prior=prior, mode=mode,
                                          precision=precision, reporter=reporter)
        print_and_leave(model.config, print_config)
        with open_workers(scheduler, reporter=reporter) if scheduler else nullcontext() as engine:
            summary = model.predict_study(
                given, out, split=split, cases=only, output=output, grid=grid, overlays=overlays,
                skip_bad_cases=skip_bad_cases, overwrite=overwrite, dry_run=dry_run, part=chosen,
                workers=engine, reporter=reporter)
    if dry_run:
        click.echo(f"dry run: nothing was written; {len(summary.segmented)} cases would be "
                   f"segmented ({', '.join(summary.segmented)}), {len(summary.kept)} kept, "
                   f"{len({problem.case for problem in summary.left_out})} left out")
        return
    click.echo(f"predictions written to {out}")
    if overlays:
        click.echo(f"pictures written to {out}/overlays")


def _by_name(files: tuple[str, ...]) -> dict[str, str]:
    """What --file gives: modality -> path."""
    found: dict[str, str] = {}
    for text in files:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise click.UsageError(f"--file takes NAME=FILE, as in flair=a.nii.gz, got {text!r}")
        if name in found:
            raise click.UsageError(f"--file gives {name} twice")
        found[name] = path
    return found
