"""Reading and writing NIfTI files with their exact geometry."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import nibabel as nib
import numpy as np

from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import check_written, write_bytes
from pixelnet_tf.volumes.geometry import VolumeGeometry

#: Bytes at the beginning of a file that hold its header, NIfTI-1 or NIfTI-2.
HEADER_BYTES = 540

_BLOCK = 1 << 20
#: Header extensions beyond this are no one's metadata.
_LARGEST_OFFSET = 1 << 20
#: NIfTI's codes of whole numbers and fractions.
_TYPES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_SAVE = "save one real number a voxel, the scanner's intensity"
#: Data type of a file -> what its voxels are, and what to do.
_OTHER_TYPES = {**{code: (f"complex numbers ({name})", "save the magnitude") for code, name in
                   ((32, "complex64"), (1792, "complex128"), (2048, "complex256"))},
                128: ("colours (R+G+B)", _SAVE), 2304: ("colours (R+G+B+A)", _SAVE)}
#: What a file is that holds no header of a NIfTI file in one piece, by its first bytes.
_PAIR = ("is one half of a pair .hdr and .img", "call the two NAME.hdr and NAME.img")
_AKIN = ((b"\0\x05\x16\x07", "a companion file that macOS writes beside the image (`._NAME`)",
          "delete it"),
         (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file (`git lfs pull`)"),
         (b"/annex/objects/", "a pointer of git-annex", "fetch the file (`datalad get`)"))


class ByteStream(Protocol):
    """What bytes are read from, packed or not."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A header that has been checked.

    Attributes:
        geometry: shape, affine, header.
        stored: the header as it stands in the file, with the voxels' scale and beginning, and the
            shape of one volume.
        size: bytes of the unpacked file.
    """

    geometry: VolumeGeometry
    stored: nib.Nifti1Header
    size: int

    def span(self, number: int) -> slice:
        """The bytes of the unpacked file that hold the voxels of a volume."""
        length = math.prod(self.geometry.shape) * self.stored.get_data_dtype().itemsize
        begin = self.stored.get_data_offset() + number * length
        return slice(begin, begin + length)


def read_volume(path: Path, number: int = 0, volumes: int = 1
                ) -> tuple[np.ndarray, VolumeGeometry]:
    """Read a NIfTI file, to its end: the checksum of a gzip stream counts.

    Args:
        number: which volume of a file of four dimensions.
        volumes: how many it must hold; with 1 it has three dimensions.

    Returns:
        The voxels (x, y, z) float32, scaled as the header says, and the geometry.

    Raises:
        DataError: a missing, broken or truncated file, not NIfTI, of other dimensions, of
            colours or complex numbers, or without a place in space; or not the one that was
            written into a folder of results.
    """
    path, voxel_path = pair_of(Path(path))
    for part in {path: None, voxel_path: None}:
        check_written(part)
    pair = voxel_path != path
    with _opened(path) as stream:
        start = stream.read(HEADER_BYTES)
        header = _parsed(path, start, volumes, pair)
        where = header.span(number), header.geometry.shape
        if not pair:
            return _voxels(stream, header, start, *where), header.geometry
    with _opened(voxel_path) as stream:
        return _voxels(stream, header, b"", *where), header.geometry


def read_probabilities(path: Path) -> tuple[np.ndarray, VolumeGeometry]:
    """Read what `write_probabilities` wrote: a volume for each class, or for each region, which may
    be a single one.

    Returns:
        Probabilities (x, y, z, n) float32, and the geometry.

    Raises:
        DataError: as `read_volume`, and where the file has not four dimensions.
    """
    path = Path(path)
    check_written(path)
    with _opened(path) as stream:
        start = stream.read(HEADER_BYTES)
        shape = _unchecked_header(start, pair=False).get_data_shape()
        if len(shape) != 4:
            raise DataError(f"has shape {shape}; a file of probabilities has four dimensions, the "
                            "last one over the classes or regions")
        header = parse_header(start, shape[3])
        array = _voxels(stream, header, start, slice(header.span(0).start, header.size), shape)
    return array, header.geometry


def _voxels(stream: ByteStream, header: NiftiHeader, start: bytes, span: slice,
            shape: tuple[int, ...]) -> np.ndarray:
    """Read the voxels that lie in a span of bytes, float32, to the end of the stream.

    start: what has been read of the stream.
    """
    place, kept = 0, []
    for block in (start[:header.size], *announced_blocks(stream, header, len(start))):
        kept.append(block[max(span.start - place, 0):max(span.stop - place, 0)])
        place += len(block)
    voxels = header.stored.copy()
    voxels.set_data_offset(0)
    voxels.set_data_shape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(nib.arrayproxy.ArrayProxy(io.BytesIO(b"".join(kept)), voxels),
                          dtype=np.float32)


def read_geometry(path: Path, volumes: int = 1) -> VolumeGeometry:
    """Read the geometry alone, without the voxels; raises as `read_volume`."""
    path, voxel_path = pair_of(Path(path))
    with _opened(path) as stream:
        return _parsed(path, stream.read(HEADER_BYTES), volumes, voxel_path != path).geometry


def pair_of(path: Path) -> tuple[Path, Path]:
    """The files that hold the header and the voxels of a NIfTI image: of a pair, two.

    Raises:
        DataError: the other half of a pair is not there.
    """
    ending = path.suffix.lower()
    if ending not in (".hdr", ".img"):
        return path, path
    wanted = ".img" if ending == ".hdr" else ".hdr"
    others = [path.with_suffix(each) for each in (wanted, wanted.upper())]
    other = next((each for each in others if each.exists()), None)
    if other is None:
        raise DataError(f"is one half of a pair .hdr and .img; {others[0].name} is not there",
                        file=path, hint="fetch both")
    return (path, other) if ending == ".hdr" else (other, path)


def parse_header(start: bytes, volumes: int = 1, pair: bool = False) -> NiftiHeader:
    """Check the header of a NIfTI file.

    Args:
        start: the file's first `HEADER_BYTES` bytes, or fewer where it is shorter.
        volumes: how many volumes it must hold, along a fourth dimension.
        pair: it is the header's half of a pair; else the file is in one piece.

    Raises:
        DataError: it is none, or one that voxels cannot be read by; no file is named.
    """
    header = _unchecked_header(start, pair)
    dims = [int(n) for n in header["dim"]]
    rank, sides = dims[0], dims[1:4]
    if rank < 3:
        raise DataError(f"is an image of {rank} dimensions, {tuple(dims[1:rank + 1])}; a case is "
                        "made of volumes of three")
    held = math.prod(dims[4:rank + 1]) if rank <= 7 else -1
    if volumes > 1 and held != volumes:
        raise DataError(f"holds {max(held, 0)} volumes where dataset.json names {volumes} channels",
                        value=held, hint="correct dataset.json, or fetch the file again")
    if rank > 7 or (volumes == 1 and held != 1):
        raise DataError(f"has shape {tuple(dims[1:rank + 1])}, only three-dimensional volumes are "
                        "read", hint="split a series into one file per volume")
    if min(sides) < 1:
        raise DataError(f"has dimensions {sides}, which must be positive")
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in _TYPES:
        what, advice = _OTHER_TYPES.get(code, (f"numbers of data type {code}", _SAVE))
        raise DataError(f"holds {what}", value=code, hint=advice)
    if bits != header.get_data_dtype().itemsize * 8:
        raise DataError(f"has data type {code} of {bits} bits, which do not fit",
                        hint="correct the header")
    offset = float(header["vox_offset"])
    first = 0 if pair else len(header.binaryblock)
    if not first <= offset <= _LARGEST_OFFSET or offset != int(offset):
        raise DataError(f"has voxels that cannot begin at byte {offset:g}",
                        hint="correct the header")
    try:
        # nibabel's own checks; they mend what every tool reads in one way, such as a qfac of 0.
        if pair:
            header.set_data_offset(0)
        header = type(header)(header.binaryblock)
        header.get_slope_inter()
    except (nib.spatialimages.HeaderDataError, ValueError) as error:
        raise DataError(f"cannot be read as NIfTI ({error})", hint="correct the header") from None
    if volumes > 1:
        header.set_data_shape(sides)
    stored = header.copy()
    stored.set_data_offset(int(offset))
    # What nibabel does to the header of an image: voxels that come out are scaled.
    header.set_slope_inter(None, None)
    header.set_data_offset(0)
    return NiftiHeader(VolumeGeometry.from_header(header), stored,
                       int(offset) + volumes * math.prod(sides) * bits // 8)


def announced_blocks(stream: ByteStream, header: NiftiHeader, done: int) -> Iterator[bytes]:
    """Read on to the end of the voxels, and see that the file ends there.

    At most a block is in memory at a time. The end of a gzip stream, with its checksum, is read.

    Args:
        stream: stands `done` bytes after the beginning of the unpacked file.

    Raises:
        DataError: the file ends earlier, or goes on; no file is named.
    """
    left = header.size - done
    while left > 0:
        block = stream.read(min(_BLOCK, left))
        if not block:
            raise DataError(f"the file is broken or truncated: it ends {left} bytes before its "
                            "header says", hint="fetch or unpack it again")
        yield block
        left -= len(block)
    if left < 0 or stream.read(1):
        raise DataError(f"the file goes on after the {header.size} bytes that its header "
                        "announces; header and voxels do not belong together")


@contextmanager
def unpacked(source: BinaryIO) -> Iterator[ByteStream]:
    """Give a stream of the unpacked content, whatever the file is called.

    Raises:
        DataError: on reading a gzip stream that is broken, cut short or altered; no file is named.
    """
    compressed = source.read(2) == b"\x1f\x8b"
    source.seek(0)
    try:
        yield gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the file is broken or truncated ({error})",
                        hint="fetch or unpack it again") from None


@contextmanager
def _opened(path: Path) -> Iterator[ByteStream]:
    """Open and unpack a file; every message names it."""
    try:
        with open(path, "rb") as file, unpacked(file) as stream:
            yield stream
    except (DataError, OSError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: DataError | OSError) -> DataError:
    """What is wrong with a file, with its name."""
    if isinstance(error, DataError):
        return DataError.of(error, file=path)
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return DataError("is a link to a file that is not there", file=path,
                         hint="if DataLad or git-annex keeps the study, fetch it by `datalad get`")
    if isinstance(error, FileNotFoundError):
        return DataError("no such file", file=path)
    return DataError(f"cannot be read ({error.strerror or error})", file=path)


def _parsed(path: Path, start: bytes, volumes: int, pair: bool) -> NiftiHeader:
    if path.name.startswith("._"):
        raise DataError(f"cannot be read as an image: {_AKIN[0][1]}", hint=_AKIN[0][2])
    return parse_header(start, volumes, pair)


def _unchecked_header(start: bytes, pair: bool) -> nib.Nifti1Header:
    for kind, single, double, where in ((nib.Nifti1Header, b"n+1\0", b"ni1\0", 344),
                                        (nib.Nifti2Header, b"n+2\0", b"ni2\0", 4)):
        size, found = kind.template_dtype.itemsize, start[where:where + 4]
        like_one = start[:where] + single + start[where + 4:size]
        if (len(start) >= size and found in (single, double)
                and kind.may_contain_header(like_one)):
            if found != (double if pair else single):
                raise DataError(_PAIR[0], hint=_PAIR[1])
            # A prediction is written in one piece.
            return kind(like_one, check=False)
    if pair and len(start) >= 348 and 348 in (int.from_bytes(start[:4], order)
                                              for order in ("little", "big")):
        raise DataError("is an Analyze 7.5 image, which does not say which side is the patient's "
                        "left", hint="convert it to NIfTI with the program that wrote it")
    raise stand_in(start) or DataError(
        "cannot be read as NIfTI: not a NIfTI file in one piece (.nii or .nii.gz)",
        hint="convert it, DICOM for instance by dcm2niix")


def stand_in(start: bytes) -> DataError | None:
    """What the beginning of a file says that stands there for an image; None for all others."""
    return next((DataError(f"cannot be read as an image: {words}", hint=step)
                 for mark, words, step in _AKIN if mark in start[:64]), None)


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
        raise DataError(f"an array of shape {array.shape} does not fit the geometry's "
                        f"{geometry.shape}", file=path)
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
