"""An uploaded NIfTI file to a plain `.nii` on disk, no larger than its header says."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits

_BLOCK = 1 << 20
#: Header extensions beyond this are no one's metadata.
_LARGEST_OFFSET = 1 << 20
#: NIfTI's codes of whole numbers and fractions; neither colours nor complex numbers.
_TYPES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}


def unpack_nifti(source: BinaryIO, target: Path, field: str, limits: ServerLimits) -> None:
    """Check the header, then write so many bytes as it announces.

    At most a block of the content is in memory at a time, and a gzip bomb is left unread.

    Raises:
        ApiError: 400 for what is not a sound NIfTI file, 413 beyond the limits.
    """
    compressed = source.read(2) == b"\x1f\x8b"
    source.seek(0)
    stream = gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
    try:
        start = stream.read(540)
        expected = _announced_bytes(start, field, limits)
        left = expected - len(start)
        with target.open("xb") as file:
            file.write(start[:expected])
            while left > 0:
                block = stream.read(min(_BLOCK, left))
                if not block:
                    raise ApiError(400, f"{field}: the file ends {left} bytes before its header "
                                        "says; send it whole")
                file.write(block)
                left -= len(block)
        if left < 0 or stream.read(1):
            raise ApiError(400, f"{field}: the file goes on after the {expected} bytes that its "
                                "header announces; send a sound NIfTI file")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ApiError(400, f"{field}: the gzip stream is broken or cut short; send the file "
                            "whole") from None


def _announced_bytes(start: bytes, field: str, limits: ServerLimits) -> int:
    header = _header(start, field)
    dims = [int(n) for n in header["dim"]]
    rank, sides = dims[0], dims[1:4]
    if not 3 <= rank <= 7 or any(n != 1 for n in dims[4:rank + 1]):
        raise ApiError(400, f"{field}: dimensions {dims[1:max(rank, 1) + 1][:7]}; send one "
                            "three-dimensional volume a file")
    if min(sides) < 1:
        raise ApiError(400, f"{field}: dimensions {sides} must be positive")
    if max(sides) > limits.side or math.prod(sides) > limits.pixels:
        raise ApiError(413, f"{field}: dimensions {sides}; at most {limits.side} voxels a side "
                            f"and {limits.pixels} in all are taken")
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in _TYPES or bits != header.get_data_dtype().itemsize * 8:
        raise ApiError(400, f"{field}: data type {code} of {bits} bits; send whole numbers or "
                            "fractions")
    offset = float(header["vox_offset"])
    if not len(header.binaryblock) <= offset <= _LARGEST_OFFSET or offset != int(offset):
        raise ApiError(400, f"{field}: the voxels cannot begin at byte {offset:g}")
    _check_space(header, field)
    return int(offset) + math.prod(sides) * bits // 8


def _header(start: bytes, field: str) -> nib.Nifti1Header:
    for kind, magic, where in ((nib.Nifti1Header, b"n+1\0", 344),
                               (nib.Nifti2Header, b"n+2\0", 4)):
        size = kind.template_dtype.itemsize
        if len(start) >= size and kind.may_contain_header(start) \
                and start[where:where + 4] == magic:
            return kind(start[:size], check=False)
    raise ApiError(400, f"{field}: not a NIfTI file in one piece (.nii or .nii.gz)")


def _check_space(header: nib.Nifti1Header, field: str) -> None:
    """A position in space that can be computed with."""
    spacing = np.asarray(header["pixdim"][1:4], np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all() and spacing.max() < 1e4):
        raise ApiError(400, f"{field}: voxel sides {spacing.tolist()} mm must be positive")
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
            volume = abs(np.linalg.det(affine[:3, :3]))
    except (ValueError, nib.spatialimages.HeaderDataError, np.linalg.LinAlgError):
        raise ApiError(400, f"{field}: qform or sform is no affine") from None
    if not (np.isfinite(affine).all() and np.isfinite(volume) and volume > 0):
        raise ApiError(400, f"{field}: qform or sform is no affine that can be inverted")
