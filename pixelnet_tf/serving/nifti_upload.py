"""An uploaded NIfTI file to a plain `.nii` on disk, no larger than its header says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import HEADER_BYTES, announced_blocks, parse_header, unpacked
from pixelnet_tf.volumes.slicing import SlicePlan


def unpack_nifti(source: BinaryIO, target: Path, field: str, limits: ServerLimits,
                 config: Config) -> None:
    """Check the header, then write so many bytes as it announces.

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
            needed = preparation_bytes(header.geometry, config) >> 20
            if needed > limits.memory_mib:
                raise ApiError(413, f"{field}: dimensions {list(sides)}; to prepare "
                                    f"{len(config.study.modalities)} such volumes takes {needed} "
                                    f"MiB of memory, and at most {limits.memory_mib} may be used")
            with target.open("xb") as file:
                file.write(start[:header.size])
                for block in announced_blocks(stream, header, len(start)):
                    file.write(block)
    except DataError as error:
        raise ApiError(400, f"{field}: {error}") from None


def preparation_bytes(geometry: VolumeGeometry, config: Config) -> int:
    """Memory that it takes at most to prepare and segment a case, beside the network's own.

    Measured, for 1 to 5 modalities, with N4 and with slices that are scaled: intensities, the
    corrected and normalised ones and the slices in float32, and what N4, the z-score and scaling
    need for one modality at a time.
    """
    channels, voxels = len(config.study.modalities), math.prod(geometry.shape)
    try:
        plan = SlicePlan(geometry, config.prepare.slice_size)
        pixels = plan.slices * plan.height * plan.width
    except DataError:  # Preparation will refuse it.
        pixels = voxels
    scaling = 0 if pixels == voxels else 4 * channels + 12
    return voxels * (4 * channels + 32) + pixels * (4 * channels + scaling)
