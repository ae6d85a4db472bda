"""`POST /v1/segment`: NIfTI files in, a NIfTI segmentation of the same geometry out."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import PLANES, Config
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.evaluation.layers import legend
from pixelnet_tf.inference.volume import segment_remotely
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.serving.about import offered_priors
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.request_body import no_room
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import (
    HEADER_BYTES,
    announced_blocks,
    parse_header,
    unpacked,
    write_labels,
)
from pixelnet_tf.volumes.slicing import plans_of


def choices_of(model: LoadedModel) -> dict[str, Any]:
    """What `GET /v1/segment` says of a model: what it takes, under which priors, and its labels.
    """
    about, config = _described(model)
    return {"name": model.name, "version": model.version,
            "modalities": list(config.study.inputs), "priors": list(offered_priors(about)),
            "labels": legend(config.study)["labels"]}


def check_prior(model: LoadedModel, prior: str) -> None:
    """Raise `ApiError` 400 for a prior under which the model cannot answer."""
    offered = offered_priors(_described(model)[0])
    if prior not in offered:
        raise ApiError(400, f"model {model.name!r} answers under {list(offered)}, not under "
                            f"{prior[:40]!r}; export it with that prior")


def _described(model: LoadedModel) -> tuple[dict[str, Any], Config]:
    if model.about is None or model.config is None:
        raise ApiError(404, f"model {model.name!r} has no serving.json and cannot take volumes; "
                            "send slices to :predict")
    return model.about, model.config


def segment_upload(model: LoadedModel, files: dict[str, BinaryIO], limits: ServerLimits,
                   prior: str | None = None, reporter: Reporter | None = None) -> bytes:
    """Prepare a case as for the training, segment it, and return the bytes of a `.nii.gz`.

    Names on disk are made here, in a folder of this request's own that is gone afterwards.

    Args:
        model: an export of this project (`serving.json` says how a case is prepared).
        files: modality -> content.
        prior: one of `offered_priors`; None takes the model's own.

    Raises:
        ApiError: 400, 413 or 422 where the files do not make a case, 507 where the disk is full.
    """
    about, config = _described(model)
    shift = offered_priors(about)[prior] if prior else None
    modalities = config.study.inputs
    if set(files) != set(modalities):
        raise ApiError(400, f"send one NIfTI file for each of {list(modalities)}, as a multipart "
                            f"field of that name; got {[name[:40] for name in sorted(files)]}")
    try:
        with scratch_folder() as folder:
            return _segment_in(folder, model, config, files, limits, shift,
                               reporter_or_log(reporter))
    except OSError as error:
        raise no_room(error) from None
    except RunError:  # Its words name the folder.
        raise no_room(OSError()) from None
    except MemoryError:
        raise ApiError(413, "the volumes need more memory than there is; send fewer "
                            "voxels") from None


def _segment_in(folder: Path, model: LoadedModel, config: Config, files: dict[str, BinaryIO],
                limits: ServerLimits, shift: np.ndarray | None, reporter: Reporter) -> bytes:
    volumes = {}
    for number, modality in enumerate(config.study.inputs):
        reporter.progress("reading", number, len(config.study.inputs))
        volumes[modality] = folder / f"{number}.nii"
        unpack_nifti(files[modality], volumes[modality], modality, limits,
                     channels=len(config.study.inputs), slice_size=config.prepare.slice_size,
                     planes=config.model.planes)
    case = Case("upload", volumes)
    words = {str(path): modality for modality, path in volumes.items()}
    words |= {path.name: modality for modality, path in volumes.items()}
    try:
        volume = prepare_case(case, config.study, config.prepare, reporter)
        plans_of(volume.geometry, config.prepare.slice_size, config.model.planes)
    except DataError as error:
        raise ApiError(422, _reworded(str(error), words)) from None
    except (RuntimeError, ValueError) as error:
        # The volumes passed every check; what N4 or resampling make of them is still theirs.
        raise ApiError(422, "the volumes cannot be prepared: "
                            f"{_reworded(str(error).splitlines()[-1], words)[:300]}") from None

    shown = shift is not None and bool(shift.any())
    answer = partial(model.segment_slices, probabilities=shown or len(config.model.planes) > 1)
    result = segment_remotely(answer, volume, config.study, config.prediction,
                              reach=config.model.reach, planes=config.model.planes,
                              by_region=config.model.region_based,
                              shift=shift if shown else None, reporter=reporter)
    path = folder / "segmentation.nii.gz"
    write_labels(path, result.labels, volume.geometry)
    return path.read_bytes()


def unpack_nifti(source: BinaryIO, target: Path, field: str, limits: ServerLimits, *,
                 channels: int, slice_size: int, planes: Sequence[str] = PLANES[:1]) -> None:
    """An uploaded file to a plain `.nii` on disk, no larger than its header says.

    Header and length are checked as for a file on disk (`volumes/nifti.py`). At most a block of the
    content is in memory at a time, and a gzip bomb is left unread.

    Raises:
        ApiError: 400 for what is not a sound NIfTI file, 413 beyond the limits.
    """
    try:
        with unpacked(source) as stream:
            start = stream.read(HEADER_BYTES)
            header = parse_header(start)
            sides = header.geometry.shape
            if max(sides) > limits.side or math.prod(sides) > limits.pixels:
                raise ApiError(413, f"{field}: dimensions {list(sides)}; at most {limits.side} "
                                    f"voxels a side and {limits.pixels} in all are taken")
            needed = preparation_bytes(header.geometry, channels, slice_size, planes) >> 20
            if needed > limits.memory_mib:
                raise ApiError(413, f"{field}: dimensions {list(sides)}; to prepare "
                                    f"{channels} such volumes takes {needed} MiB of memory, and at "
                                    f"most {limits.memory_mib} may be used")
            with target.open("xb") as file:
                file.write(start[:header.size])
                for block in announced_blocks(stream, header, len(start)):
                    file.write(block)
    except (DataError, zipfile.BadZipFile) as error:
        raise ApiError(400, f"{field}: {error}") from None


def preparation_bytes(geometry: VolumeGeometry, channels: int, slice_size: int,
                      planes: Sequence[str] = PLANES[:1]) -> int:
    """Memory that it takes at most to prepare and segment a case, beside the network's own.

    Measured, for 1 to 5 modalities, with N4 and with slices that are scaled: intensities, the
    corrected and normalised ones and the slices in float32, and what N4, the z-score and scaling
    need for one modality at a time.
    """
    voxels = math.prod(geometry.shape)
    try:
        pixels, *others = (plan.slices * plan.height * plan.width
                           for plan in plans_of(geometry, slice_size, planes))
    except DataError:  # Preparation will refuse it.
        pixels, others = voxels, []
    scaling = 0 if pixels == voxels else 4 * channels + 12
    # One other plane at a time: its slices, while they are made, and the scores so far.
    upright = max(others, default=0) * (8 * channels + 12)
    return voxels * (4 * channels + 32) + pixels * (4 * channels + scaling) + upright


def _reworded(message: str, words: dict[str, str]) -> str:
    """Name modalities where the message names files of the temporary folder."""
    for written, said in words.items():
        message = message.replace(written, said)
    return message.removeprefix("case upload: ")
