"""`POST /v1/dicom`: a zip of DICOM files in, each series as a NIfTI file out."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pixelnet_tf.cases.dicom_series import DicomSeries, series_in
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.multipart import multipart_answer
from pixelnet_tf.serving.request_body import no_room
from pixelnet_tf.serving.zip_upload import ZIP_ERRORS, zip_entries
from pixelnet_tf.volumes.dicom import read_series, series_geometry
from pixelnet_tf.volumes.nifti import nifti_bytes

#: Files in one upload: ten series of a few hundred slices.
MOST_FILES = 8192
#: Of one case; what a scanner sends of a patient beside them is chosen from by whoever looks.
_MOST_SERIES = 32


def convert_dicom(files: dict[str, BinaryIO], limits: ServerLimits) -> tuple[bytes, str]:
    """Read every series of a zip of DICOM files, as the product reads a case's.

    Names on disk are made here, in a folder of this request's own that is gone afterwards.

    Args:
        files: field -> content; there must be one, `zip`.

    Returns:
        A multipart form and its media type: the field `series` is JSON, a list of the series'
        descriptions and numbers, or why one cannot be read (`error`); the file `volume-N` is the
        Nth of them.

    Raises:
        ApiError: 400 for what is no zip of DICOM files, 413 beyond the limits, 422 where no series
            can be read, 507 where the disk is full.
    """
    if set(files) != {"zip"}:
        raise ApiError(400, "send one zip of the DICOM files, as the multipart field `zip`; got "
                            f"{[name[:40] for name in sorted(files)]}")
    try:
        with scratch_folder() as folder:
            _unpack(files["zip"], folder, limits)
            return _converted(folder, limits)
    except (OSError, RunError) as error:
        raise no_room(error) from None
    except MemoryError:
        raise ApiError(413, "the series need more memory than there is; send fewer") from None


def _unpack(source: BinaryIO, folder: Path, limits: ServerLimits) -> None:
    """The files of a zip under numbers, no longer all together than a body may be."""
    left = limits.upload_mib << 20
    try:
        with zipfile.ZipFile(source) as archive:
            entries = zip_entries(archive)
            if len(entries) > MOST_FILES:
                raise ApiError(413, f"the zip holds {len(entries)} files; at most {MOST_FILES} are "
                                    "taken")
            # What an entry announces is what is read of it at most.
            if sum(each.file_size for each in entries) > left:
                raise ApiError(413, f"the zip holds more than {limits.upload_mib} MiB; send fewer "
                                    "series")
            for number, entry in enumerate(entries):
                with archive.open(entry) as packed, (folder / f"{number:05}").open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except ZIP_ERRORS as error:
        raise ApiError(400, f"zip: cannot be read ({str(error)[:200]})") from None


def _converted(folder: Path, limits: ServerLimits) -> tuple[bytes, str]:
    found, _ = series_in(folder)
    if not found:
        raise ApiError(422, "the zip holds no DICOM images of a scanner")
    if len(found) > _MOST_SERIES:
        raise ApiError(413, f"the zip holds {len(found)} series; at most {_MOST_SERIES} are taken")
    _check_memory(found, limits)
    told, volumes = [], []
    for series in found:
        about = {"description": series.description, "number": series.number,
                 "files": len(series.slices)}
        try:
            volumes.append(_volume(series, limits))
            told.append(about)
        except DataError as error:
            told.append({**about, "error": str(error).replace(str(folder), "").lstrip(": /")})
            volumes.append(b"")
    if not any(volumes):
        raise ApiError(422, "no series can be read: "
                            + "; ".join(str(each["error"]) for each in told)[:500])
    return multipart_answer([
        ("series", None, "application/json", json.dumps(told).encode()),
        *((f"volume-{number}", f"{number}.nii", "application/octet-stream", volume)
          for number, volume in enumerate(volumes) if volume)])


def _check_memory(found: Sequence[DicomSeries], limits: ServerLimits) -> None:
    """Raise `ApiError` 413 where all volumes together take more memory than may be used."""
    voxels = 0
    for series in found:
        with suppress(DataError):  # It is said of that series alone.
            voxels += math.prod(series_geometry(series).shape)
    # Four bytes a voxel: each volume, all of them in a form, and the form as the answer.
    needed = 3 * 4 * voxels >> 20
    if needed > limits.memory_mib:
        raise ApiError(413, f"the series hold {voxels} voxels, which take {needed} MiB of memory, "
                            f"and at most {limits.memory_mib} may be used; send fewer series")


def _volume(series: DicomSeries, limits: ServerLimits) -> bytes:
    """A series as a NIfTI file, in whole numbers where it holds no others."""
    sides = series_geometry(series).shape
    if max(sides) > limits.side or math.prod(sides) > limits.pixels:
        raise ApiError(413, f"{series}: dimensions {list(sides)}; at most {limits.side} voxels a "
                            f"side and {limits.pixels} in all are taken")
    array, geometry = read_series(series)
    bounds = np.iinfo(np.int16)
    if array.min() >= bounds.min and array.max() <= bounds.max and (array == np.rint(array)).all():
        array = array.astype(np.int16)
    return nifti_bytes("volume.nii", array, geometry)
