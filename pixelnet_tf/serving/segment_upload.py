"""`POST /v1/segment`: NIfTI files in, a NIfTI segmentation of the same geometry out."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.nifti_upload import unpack_nifti
from pixelnet_tf.serving.remote_volume import segment_remotely
from pixelnet_tf.serving.request_body import no_room
from pixelnet_tf.serving.upload_folder import upload_folder
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.nifti import write_labels


def segment_upload(model: LoadedModel, files: dict[str, BinaryIO], limits: ServerLimits) -> bytes:
    """Prepare a case as for the training, segment it, and return the bytes of a `.nii.gz`.

    Names on disk are made here, in a folder of this request's own that is gone afterwards.

    Args:
        model: an export of this project (`serving.json` says how a case is prepared).
        files: modality -> content.

    Raises:
        ApiError: 400, 413 or 422 where the files do not make a case, 507 where the disk is full.
    """
    config = model.config
    if config is None:
        raise ApiError(404, f"model {model.name!r} has no serving.json and cannot take volumes; "
                            "send slices to :predict")
    modalities = config.study.modalities
    if set(files) != set(modalities):
        raise ApiError(400, f"send one NIfTI file for each of {list(modalities)}, as a multipart "
                            f"field of that name; got {[name[:40] for name in sorted(files)]}")
    try:
        with upload_folder() as folder:
            return _segment_in(folder, model, config, files, limits)
    except OSError as error:
        raise no_room(error) from None
    except RunError:  # Its words name the folder.
        raise no_room(OSError()) from None
    except MemoryError:
        raise ApiError(413, "the volumes need more memory than there is; send fewer "
                            "voxels") from None


def _segment_in(folder: Path, model: LoadedModel, config: Config, files: dict[str, BinaryIO],
                limits: ServerLimits) -> bytes:
    volumes = {}
    for number, modality in enumerate(config.study.modalities):
        volumes[modality] = folder / f"{number}.nii"
        unpack_nifti(files[modality], volumes[modality], modality, limits, config)
    case = Case("upload", volumes)
    words = {str(path): modality for modality, path in volumes.items()}
    words |= {path.name: modality for modality, path in volumes.items()}
    try:
        volume = prepare_case(case, config)
    except DataError as error:
        raise ApiError(422, _reworded(str(error), words)) from None
    except (RuntimeError, ValueError) as error:
        # The volumes passed every check; what N4 or resampling make of them is still theirs.
        raise ApiError(422, "the volumes cannot be prepared: "
                            f"{_reworded(str(error).splitlines()[-1], words)[:300]}") from None

    result = segment_remotely(model.segment_slices, volume, config)
    path = folder / "segmentation.nii.gz"
    write_labels(path, result.labels, volume.geometry)
    return path.read_bytes()


def _reworded(message: str, words: dict[str, str]) -> str:
    """Name modalities where the message names files of the temporary folder."""
    for written, said in words.items():
        message = message.replace(written, said)
    return message.removeprefix("case upload: ")
