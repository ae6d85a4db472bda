"""DICOM series of a case: which there are, by their headers, and which one a modality is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from pixelnet_tf.errors import DataError, MissingVolume, nearest_hint

#: Where the mark of a DICOM file stands, and how older ones without it begin: with a tag of the
#: groups 0002 and 0008.
_MARK, _PLAIN = (128, b"DICM"), (b"\x02\x00", b"\x08\x00")
#: Storage classes of DICOM files that hold no image of a scanner: presentation states, reports,
#: documents, segmentations and other results, waveforms, radiotherapy; and indices of a medium.
_STORAGE = re.compile(rb"1\.2\.840\.10008\.[\d.]+")
_NO_IMAGE = re.compile(r"1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\.(11|66|88|104|9|481)(\.|$))")
_POSITION, _ORIENTATION, _SPACING = "0020|0032", "0020|0037", "0028|0030"
_SERIES, _NUMBER, _DESCRIPTION = "0020|000e", "0020|0011", "0008|103e"
_ROWS, _COLUMNS, _FRAMES = "0028|0010", "0028|0011", "0028|0008"


@dataclass(frozen=True)
class DicomSlice:
    """A file of a series, as its header has it.

    Attributes:
        position: of the middle of its first pixel, in mm along L, P, S; empty where it has none.
        orientation: directions of its rows and of its columns, three numbers each; empty likewise.
        spacing_mm: between rows, and between columns; empty likewise.
        rows, columns: pixels.
        frames: slices within the file, which is 1 but in multi-frame files.
    """

    file: Path
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    rows: int
    columns: int
    frames: int = 1


@dataclass(frozen=True)
class DicomSeries:
    """A volume that is the files of a DICOM series; as a path it is their folder.

    Attributes:
        folder: that all of them are in.
        uid: its SeriesInstanceUID.
        description, number: its SeriesDescription and SeriesNumber, which people tell it by; empty
            where it has none.
        slices: its files, in the order of their names.
    """

    folder: Path
    uid: str
    description: str = ""
    number: str = ""
    slices: tuple[DicomSlice, ...] = field(default=(), repr=False)

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        number = f"number {self.number}, " if self.number else ""
        return f"series {self.description!r} ({number}{len(self.slices)} files)"

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in the order of their names."""
        return tuple(each.file for each in self.slices)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; raises OSError."""
    with open(path, "rb") as file:
        start = file.read(_MARK[0] + 4)
    return start[_MARK[0]:] == _MARK[1] or start[:2] in _PLAIN


def series_in(folder: Path) -> tuple[list[DicomSeries], list[DataError]]:
    """Find the series of images in a folder, at any depth, by the headers of its files.

    Files that are no DICOM, hidden ones, and DICOM that holds no image of a scanner are passed
    over.

    Returns:
        The series, ordered by number and description, and what is wrong with files that cannot be
        read.
    """
    slices: dict[str, list[DicomSlice]] = {}
    about: dict[str, tuple[str, str]] = {}
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        try:
            status = path.stat()
            values = _header(path, status.st_mtime_ns, status.st_size)
            if values is not None:
                found = _slice(path, values)
        except OSError as error:
            broken = path.is_symlink() and not path.exists()
            faults.append(DataError(
                "is a link to a file that is not there" if broken else
                f"cannot be read ({error.strerror or error})", file=path,
                hint="if DataLad or git-annex keeps the study, fetch it by `datalad get`"
                if broken else None))
            continue
        except DataError as error:
            faults.append(error)
            continue
        if values is not None:
            uid = values.get(_SERIES, "")
            slices.setdefault(uid, []).append(found)
            about.setdefault(uid, (values.get(_DESCRIPTION, ""), values.get(_NUMBER, "")))
    made = [DicomSeries(Path(os.path.commonpath([each.file.parent for each in files])), uid,
                        *about[uid], tuple(files)) for uid, files in slices.items()]
    return sorted(made, key=lambda series: (len(series.number), series.number,
                                            series.description, series.uid)), faults


def choose_series(series: Sequence[DicomSeries], modalities: Sequence[str],
                  patterns: Mapping[str, str], folder: Path
                  ) -> tuple[dict[str, DicomSeries], list[DataError]]:
    """Choose the series of each modality by its description.

    Args:
        series: those of a case.
        patterns: modality -> pattern, in which `*` matches as in a shell and capitals count as
            small letters; a modality without one is looked for as `*NAME*`.
        folder: of the case, which messages name.

    Returns:
        Modality -> series, and what is wrong: no series fits, or several do.
    """
    chosen, faults = {}, []
    held = [each.description for each in series]
    for modality in modalities:
        pattern = patterns.get(modality, f"*{modality}*")
        fitting = [each for each in series
                   if fnmatchcase(each.description.lower(), pattern.lower())]
        if len(fitting) == 1:
            chosen[modality] = fitting[0]
        elif fitting:
            same = len({each.description.lower() for each in fitting}) < len(fitting)
            faults.append(DataError(
                f"{modality}: {len(fitting)} series fit {pattern!r}: "
                f"{', '.join(str(each) for each in fitting)}", file=folder, value=modality,
                hint="take all but one of those of one description out of the case's folder" if same
                else f"give a pattern that fits one, as in --series {modality}="
                     f"'{fitting[0].description}'"))
        else:
            faults.append(MissingVolume(
                f"{modality}: no series fits {pattern!r}{nearest_hint(pattern.strip('*'), held)}; "
                + (f"the case has {held[:12]}" if held else "the case has no DICOM image"),
                file=folder, value=modality,
                hint=f"name it by its description, as in --series {modality}='*...*', or by "
                     "study.series"))
    return chosen, faults


@lru_cache(maxsize=50_000)
def _header(path: Path, mtime_ns: int, size: int) -> Mapping[str, str] | None:
    """What GDCM reads of a file; None where it is no image.

    Several parts of a verb list the cases of a study: while a file has its time and size, it is
    read once.

    Raises:
        DataError: an image that GDCM cannot read. OSError: a file that cannot be read.
    """
    import SimpleITK as sitk

    if not is_dicom(path):
        return None

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(os.fspath(path))
    reader.LoadPrivateTagsOff()
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        with open(path, "rb") as file:
            # The class stands in the file's own header, the first thing in it.
            classes = [uid.decode() for uid in _STORAGE.findall(file.read(4096))]
        if any(_NO_IMAGE.match(uid) for uid in classes[:3]):
            return None
        raise DataError(f"is DICOM that cannot be read ({_last_line(error)})", file=path,
                        hint="fetch it again, or take it out of the folder") from None
    # Text of other alphabets is shown as far as it is known.
    values = {key: reader.GetMetaData(key).encode("utf-8", "replace").decode("utf-8").strip(" \0")
              for key in (_SERIES, _NUMBER, _DESCRIPTION, _POSITION, _ORIENTATION, _SPACING, _ROWS,
                          _COLUMNS, _FRAMES, "0008|0016") if reader.HasMetaDataKey(key)}
    return None if _NO_IMAGE.match(values.get("0008|0016", "")) else values


def _slice(path: Path, values: Mapping[str, str]) -> DicomSlice:
    def numbers(key: str, count: int) -> tuple[Any, ...]:
        text = values.get(key, "")
        try:
            found = tuple(float(part) for part in text.split("\\")) if text else ()
        except ValueError:
            found = (float("nan"),)
        if found and (len(found) != count or not all(abs(number) < 1e9 for number in found)):
            raise DataError(f"has {text!r} where {count} numbers are wanted (tag {key})", file=path,
                            value=text, hint="export the series again")
        return found

    rows, columns, frames = (int((numbers(key, 1) or (1,))[0])
                             for key in (_ROWS, _COLUMNS, _FRAMES))
    return DicomSlice(path, numbers(_POSITION, 3), numbers(_ORIENTATION, 6), numbers(_SPACING, 2),
                      rows, columns, frames)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()[:200]
