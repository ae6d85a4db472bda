"""An uploaded NIfTI file to a plain `.nii` on disk, no larger than its header says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

from pixelnet_tf.errors import DataError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.volumes.nifti import HEADER_BYTES, announced_blocks, parse_header, unpacked


def unpack_nifti(source: BinaryIO, target: Path, field: str, limits: ServerLimits) -> None:
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
            with target.open("xb") as file:
                file.write(start[:header.size])
                for block in announced_blocks(stream, header, len(start)):
                    file.write(block)
    except DataError as error:
        raise ApiError(400, f"{field}: {error}") from None
