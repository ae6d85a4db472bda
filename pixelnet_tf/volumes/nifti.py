"""Reading and writing NIfTI files with their exact geometry."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import write_bytes
from pixelnet_tf.volumes.geometry import VolumeGeometry


def read_volume(path: Path) -> tuple[np.ndarray, VolumeGeometry]:
    """Read a three-dimensional NIfTI file.

    A compressed file is read to its end, so that its checksum is compared: a bit that flipped on a
    disk or on the way is an error and not another value.

    Returns:
        The voxels (x, y, z) float32, scaled as the header says, and the geometry.

    Raises:
        DataError: a missing, broken or truncated file, not NIfTI, not three-dimensional, not of
            real numbers, or without a position in space.
    """
    path = Path(path)
    image, geometry = _open(path)
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                image = type(image).from_bytes(file.read())
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error, struct.error,
            nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"{path}: the file is broken or truncated ({error}); "
                        "fetch or unpack it again") from None
    return array.reshape(geometry.shape), geometry


def read_geometry(path: Path) -> VolumeGeometry:
    """Read the geometry alone, without the voxels; raises as `read_volume`."""
    return _open(Path(path))[1]


def write_labels(path: Path, labels: np.ndarray, geometry: VolumeGeometry) -> None:
    """Write label values (x, y, z) as uint8 with the geometry's affine, qform and sform codes.

    The file (`.nii` or `.nii.gz`) appears whole or not at all, and its bytes depend on the
    arguments alone.
    """
    write_volume(path, np.asarray(labels, np.uint8), geometry)


def write_probabilities(path: Path, probabilities: np.ndarray, geometry: VolumeGeometry) -> None:
    """Write probabilities (x, y, z) or (x, y, z, class) as float32, as `write_labels` does."""
    write_volume(path, np.asarray(probabilities, np.float32), geometry)


def write_volume(path: Path, array: np.ndarray, geometry: VolumeGeometry) -> None:
    """Write an array (x, y, z[, channel]) in its own type, as `write_labels` does.

    Raises:
        DataError: the array does not have the geometry's shape.
    """
    write_bytes(path, nifti_bytes(path, array, geometry))


def nifti_bytes(path: Path | str, array: np.ndarray, geometry: VolumeGeometry) -> bytes:
    """Return what `write_volume` writes: the file's bytes, compressed if its name ends with .gz."""
    name = Path(path).name
    if array.shape[:3] != geometry.shape:
        raise DataError(f"{path}: an array of shape {array.shape} does not fit the geometry's "
                        f"{geometry.shape}")
    header = geometry.nifti_header()
    header.set_data_dtype(array.dtype)
    read, unused = header["pixdim"].copy(), slice(array.ndim + 1, None)
    header.set_data_shape(array.shape)
    # Entries of pixdim that the array's dimensions do not use stay as they were read, too.
    header["pixdim"][unused] = read[unused]
    header.set_slope_inter(1, 0)
    header["cal_max"] = header["cal_min"] = 0
    kind = nib.Nifti1Image if len(geometry.header) == 348 else nib.Nifti2Image
    data = kind(array, None, header).to_bytes()
    # Without a time stamp two runs write the same bytes.
    return gzip.compress(data, compresslevel=6, mtime=0) if name.endswith(".gz") else data


def _open(path: Path) -> tuple[nib.Nifti1Image, VolumeGeometry]:
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: is a link to a file that is not there; if DataLad or git-annex "
                        "keeps the study, fetch it by `datalad get`")
    try:
        image = nib.load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError,
            OSError, EOFError, ValueError, KeyError, OverflowError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error})") from None
    if isinstance(image, nib.Nifti1Pair) and not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: is one half of a pair .hdr and .img; save both as one .nii.gz, "
                        "for instance by nibabel: nib.Nifti1Image.from_image(nib.load(path))")
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise DataError(f"{path}: is {type(image).__name__}, only NIfTI (.nii, .nii.gz) is read")
    shape, stored = image.shape, image.get_data_dtype()
    if len(shape) < 3:
        raise DataError(f"{path}: is an image of {len(shape)} dimensions, {shape}; a case is made "
                        "of volumes of three")
    if any(n != 1 for n in shape[3:]):
        raise DataError(f"{path}: has shape {shape}, only three-dimensional volumes are read; "
                        "split a series into one file per volume")
    if 0 in shape:
        raise DataError(f"{path}: has shape {shape}, so it holds no voxel")
    if stored.names:
        raise DataError(f"{path}: holds colours ({'+'.join(stored.names)}); save one number a "
                        "voxel, the scanner's intensity")
    if stored.kind == "c":
        raise DataError(f"{path}: holds complex numbers ({stored.name}); save the magnitude")
    try:
        return image, VolumeGeometry.from_header(image.header)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
