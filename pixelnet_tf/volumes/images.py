"""Reading an image file in any form: NIfTI, MGH, NRRD and MetaImage, with one set of checks.

Headers are read by nibabel and SimpleITK. Voxels are read here, to their end: neither library tells
of every file that is cut short or altered.
"""

from __future__ import annotations

import bz2
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import check_written, digest, file_digest
from pixelnet_tf.volumes import nifti
from pixelnet_tf.volumes.geometry import LPS_TO_RAS, VolumeGeometry

_MGH = (".mgz", ".mgh")
_NRRD, _META = (".nrrd",), (".mha", ".mhd")
#: A text header beyond this is none.
_LARGEST_HEADER = 1 << 20
#: Bytes of an MGH file before its voxels, and the most that tags behind them take.
_MGH_HEADER, _MGH_TAGS = 284, 1 << 24
_AGAIN = "fetch or convert it again"
_ONE_VOLUME = "split a series into one file per volume"
#: Names of number types in MetaImage and NRRD -> those of numpy, without the order of bytes.
_META_TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
               "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
               "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
               "MET_DOUBLE": "f8"}
_NRRD_TYPES = {name: code for names, code in (
    (("signed char", "int8", "int8_t"), "i1"),
    (("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    (("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    (("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    (("int", "signed int", "int32", "int32_t"), "i4"),
    (("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    (("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64",
      "int64_t"), "i8"),
    (("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    (("float",), "f4"), (("double",), "f8")) for name in names}


def read_volume(path: Path, number: int = 0, volumes: int = 1
                ) -> tuple[np.ndarray, VolumeGeometry]:
    """Read an image of three dimensions, or a volume of a NIfTI file of four, to its end.

    Args:
        path: a file of one of the forms `cases.names.IMAGE_ENDINGS`, told by its ending; any other
            is taken for NIfTI.
        number: which volume of a NIfTI file of four dimensions.
        volumes: how many it must hold; with 1 it has three dimensions.

    Returns:
        The voxels (x, y, z) float32, scaled as the header says, and the geometry.

    Raises:
        DataError: a missing, broken or truncated file, of another form or other dimensions, of
            colours or complex numbers, or without a place in space; or not the one that was
            written into a folder of results.
    """
    path = Path(path)
    if _is_nifti(path):
        return nifti.read_volume(path, number, volumes)
    with _named(path):
        _one_volume(volumes)
        check_written(path)
        if path.suffix.lower() in _MGH:
            return _read_mgh(path)
        header = _text_header(path)
        return header.voxels().astype(np.float32), header.geometry


def read_geometry(path: Path, volumes: int = 1) -> VolumeGeometry:
    """Read the geometry alone, without the voxels; raises as `read_volume`."""
    path = Path(path)
    if _is_nifti(path):
        return nifti.read_geometry(path, volumes)
    with _named(path):
        _one_volume(volumes)
        if path.suffix.lower() in _MGH:
            with open(path, "rb") as file, nifti.unpacked(file) as stream:
                return _mgh_header(stream.read(_MGH_HEADER))[1]
        return _text_header(path).geometry


def parts_of(path: Path) -> tuple[Path, ...]:
    """Every file that an image is made of; raises `DataError` as `read_volume`, and OSError."""
    both = (path, _meta_fields(path).voxel_path) if path.suffix.lower() == ".mhd" else (
        nifti.pair_of(path))
    return tuple(dict.fromkeys(both))


def image_digest(path: Path) -> str:
    """Return a SHA-256 of an image's content, in hexadecimal; raises as `parts_of`.

    Of an image in one file it is the file's own, else one of those of its files.
    """
    parts = [file_digest(part) for part in parts_of(path)]
    return parts[0] if len(parts) == 1 else digest(parts)


def _is_nifti(path: Path) -> bool:
    return path.suffix.lower() not in (*_MGH, *_NRRD, *_META)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Open a file once to see that it is one, and name it in every message."""
    try:
        with open(path, "rb") as file:
            if fault := nifti.stand_in(file.read(64)):
                raise fault
        yield
    except (DataError, OSError) as error:
        raise nifti.unreadable(path, error) from None


def _one_volume(volumes: int) -> None:
    if volumes != 1:
        raise DataError(f"holds 1 volume where dataset.json names {volumes} channels",
                        value=1, hint="save files of four dimensions as .nii.gz")


def _geometry(shape: tuple[int, ...], affine: np.ndarray, kind: np.dtype[Any]) -> VolumeGeometry:
    """A geometry whose header states the type of the stored numbers, as a NIfTI file's would."""
    made = VolumeGeometry.of(shape, affine)
    header = made.nifti_header()
    header.set_data_dtype(kind.newbyteorder("="))
    return VolumeGeometry.of(shape, made.affine, bytes(header.binaryblock))


# MGH: a header of 284 bytes, voxels, and tags.


def _read_mgh(path: Path) -> tuple[np.ndarray, VolumeGeometry]:
    with open(path, "rb") as file, nifti.unpacked(file) as stream:
        kind, geometry = _mgh_header(stream.read(_MGH_HEADER))
        size = math.prod(geometry.shape) * kind.itemsize
        content = stream.read(size)
        if len(content) < size:
            raise _cut_short(size - len(content))
        if len(stream.read(_MGH_TAGS)) == _MGH_TAGS:
            raise DataError("goes on long after its voxels; header and voxels do not belong "
                            "together", hint=_AGAIN)
    array = np.frombuffer(content, kind).reshape(geometry.shape, order="F")
    return array.astype(np.float32), geometry


def _mgh_header(start: bytes) -> tuple[np.dtype[Any], VolumeGeometry]:
    """The type of the voxels and the geometry, from the first 284 bytes."""
    if len(start) < _MGH_HEADER:
        raise DataError("cannot be read as MGH: it ends within its header", hint=_AGAIN)
    version, *dims = struct.unpack(">5i", start[:20])
    if version != 1:
        raise DataError("is no MGH file", value=version, hint=_AGAIN)
    if min(dims) < 1 or dims[3] != 1:
        raise DataError(f"has shape {tuple(dims)}, only three-dimensional volumes are read",
                        value=tuple(dims), hint=_ONE_VOLUME)
    try:
        with np.errstate(all="ignore"):
            header = MGHHeader(start, check=False)
            kind, affine = header.get_data_dtype(), header.get_affine()
    except (ValueError, KeyError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"cannot be read as MGH ({error})", hint=_AGAIN) from None
    if struct.unpack(">h", start[28:30]) != (1,):
        raise DataError("does not say where it lies in space (its goodRASFlag is not 1)",
                        hint="convert it again, for instance by FreeSurfer's mri_convert")
    return kind, _geometry(tuple(dims[:3]), affine, kind)


# MetaImage and NRRD: a header of text, and voxels behind it or beside it.


@dataclass(frozen=True, eq=False)
class _TextHeader:
    """Where the voxels of a file with a text header are, and in which numbers.

    Attributes:
        path: the file that was named.
        kind: type of the stored numbers.
        voxel_path, begin: file of the voxels, and the byte that they begin at.
        encoding: `raw`, `zlib` (or gzip), or `bzip2`.
    """

    path: Path
    kind: np.dtype[Any]
    voxel_path: Path
    begin: int
    encoding: str

    @property
    def geometry(self) -> VolumeGeometry:
        """Where SimpleITK says that the volume lies."""
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetFileName(os.fspath(self.path))
        reader.SetImageIO("NrrdImageIO" if self.path.suffix.lower() in _NRRD else "MetaImageIO")
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise DataError(f"cannot be read ({str(error).strip().splitlines()[-1].strip()[:200]})",
                            hint=_AGAIN) from None
        shape = tuple(int(side) for side in reader.GetSize())
        if len(shape) != 3 or min(shape) < 1:
            raise DataError(f"has shape {shape}, only three-dimensional volumes are read",
                            value=shape, hint=_ONE_VOLUME)
        if reader.GetNumberOfComponents() != 1:
            raise DataError(f"holds {reader.GetNumberOfComponents()} numbers a voxel",
                            value=reader.GetNumberOfComponents(),
                            hint="save one real number a voxel, the scanner's intensity")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
        affine[:3, 3] = reader.GetOrigin()
        return _geometry(shape, LPS_TO_RAS @ affine, self.kind)

    def voxels(self) -> np.ndarray:
        """The stored numbers, (x, y, z)."""
        shape = self.geometry.shape
        size = math.prod(shape) * self.kind.itemsize
        check_written(self.voxel_path)
        with open(self.voxel_path, "rb") as file:
            file.seek(self.begin)
            if self.encoding == "raw":
                content = file.read(size + 1)
            else:
                content = _inflated(file.read(), self.encoding, size)
        if len(content) < size:
            raise _cut_short(size - len(content))
        if len(content) > size:
            raise DataError("goes on after the voxels that its header announces; header and voxels "
                            "do not belong together", hint=_AGAIN)
        return np.frombuffer(content, self.kind).reshape(shape, order="F")


def _inflated(packed: bytes, encoding: str, size: int) -> bytes:
    """Unpack at most a byte more than announced; the checksum of the stream counts."""
    stream = (bz2.BZ2Decompressor() if encoding == "bzip2" else
              zlib.decompressobj(32 + zlib.MAX_WBITS))
    try:
        # With room for a byte more, the end of the stream is read, too.
        content = stream.decompress(packed, size + 1)
    except (zlib.error, OSError) as error:
        raise DataError(f"the file is broken or truncated ({error})", hint=_AGAIN) from None
    if not stream.eof and len(content) <= size:
        raise DataError("the file is broken or truncated: its compressed voxels have no end",
                        hint=_AGAIN)
    return content + stream.unused_data[:1]


def _text_header(path: Path) -> _TextHeader:
    return _nrrd_fields(path) if path.suffix.lower() in _NRRD else _meta_fields(path)


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """Each line of a text header, and the byte after it."""
    with open(path, "rb") as file:
        while (line := file.readline(1 << 16)) and file.tell() < _LARGEST_HEADER:
            yield line.decode("latin-1").rstrip("\r\n"), file.tell()


def _meta_fields(path: Path) -> _TextHeader:
    fields: dict[str, str] = {}
    end = 0
    for line, end in _lines(path):  # noqa: B007 - the byte after the last line is used
        key, sign, value = line.partition("=")
        if not sign:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    source = fields.get("ElementDataFile")
    if source is None:
        raise DataError("is no MetaImage: its header has no ElementDataFile", hint=_AGAIN)
    kind = _number(fields.get("ElementType", ""), _META_TYPES, fields.get(
        "ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "False")).lower() == "true")
    for key, plain in (("BinaryData", "true"), ("HeaderSize", "0"),
                       ("ElementToIntensityFunctionSlope", "1"),
                       ("ElementToIntensityFunctionOffset", "0")):
        if fields.get(key, plain).lower() != plain:
            raise DataError(f"has {key} {fields[key]}, which is not read", value=fields[key],
                            hint="write it anew by SimpleITK or ITK-SNAP")
    voxels = path if source == "LOCAL" else path.parent / source
    if source != "LOCAL" and (Path(source).name != source or not voxels.is_file()):
        raise DataError(f"names {source!r} as the file of its voxels (ElementDataFile), which is "
                        "no file beside it", value=source, hint="fetch both into one folder")
    packed = fields.get("CompressedData", "False").lower() == "true"
    return _TextHeader(path, kind, voxels, end if source == "LOCAL" else 0,
                       "zlib" if packed else "raw")


def _nrrd_fields(path: Path) -> _TextHeader:
    fields: dict[str, str] = {}
    end = None
    for number, (line, after) in enumerate(_lines(path)):
        if number == 0 and not line.startswith("NRRD000"):
            raise DataError("is no NRRD file", hint=_AGAIN)
        if not line:
            end = after
            break
        key, sign, value = line.partition(": ")
        if sign and not line.startswith("#"):
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    if "datafile" in fields:
        raise DataError("has its voxels in another file (`data file`)", value=fields["datafile"],
                        hint="save both as one .nrrd")
    if end is None:
        raise DataError("cannot be read as NRRD: it ends within its header", hint=_AGAIN)
    for key in ("lineskip", "byteskip"):
        if fields.get(key, "0") != "0":
            raise DataError(f"has a {key} of {fields[key]}, which is not read", value=fields[key],
                            hint="write it anew by SimpleITK or 3D Slicer")
    encodings = {"raw": "raw", "gzip": "zlib", "gz": "zlib", "bzip2": "bzip2", "bz2": "bzip2"}
    encoding = encodings.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise DataError(f"has the encoding {fields.get('encoding')!r}; raw, gzip and bzip2 are "
                        "read", value=fields.get("encoding"), hint="save it as gzip")
    return _TextHeader(path, _number(fields.get("type", "").lower(), _NRRD_TYPES,
                                     fields.get("endian", "little").lower() == "big"),
                       path, end, encoding)


def _number(name: str, types: dict[str, str], big: bool) -> np.dtype[Any]:
    if name not in types:
        raise DataError(f"holds numbers of type {name!r}", value=name,
                        hint="save one real number a voxel, the scanner's intensity")
    return np.dtype((">" if big else "<") + types[name])


def _cut_short(missing: int) -> DataError:
    return DataError(f"the file is broken or truncated: it ends {missing} bytes before its header "
                     "says", hint="fetch or unpack it again")
