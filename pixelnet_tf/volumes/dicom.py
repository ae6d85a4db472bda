"""Reading DICOM series by GDCM, with all that could put their slices in a wrong place refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from pixelnet_tf.cases.dicom_series import DicomSeries, DicomSlice
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import file_digest
from pixelnet_tf.volumes.geometry import LPS_TO_RAS, VolumeGeometry

#: Distances of neighbouring slices may differ by this part of them, and by the rounding of
#: positions that are written with three decimals.
_DISTANCE_TOLERANCE, _ROUNDING_MM = 0.01, 2e-3
#: Directions are written with six digits or so.
_DIRECTION_TOLERANCE = 1e-3
#: The part of a pixel that the last slice may lie beside the first one's normal.
_SHIFT_TOLERANCE = 0.1
_EXPORT = "export the series again, whole"


def read_series(series: DicomSeries) -> tuple[np.ndarray, VolumeGeometry]:
    """Read a series of single slices.

    Returns:
        The voxels (x, y, z) float32 with the slices' scale, and the geometry.

    Raises:
        DataError: multi-frame files, slices without a place, of several sizes or orientations, of
            unequal distance (which one is missing is said), one upon the other or askew, colours,
            or a file that cannot be read; the message names the series.
    """
    import SimpleITK as sitk

    files = [os.fspath(each.file) for each in in_order(series)]
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(files)
    # Slices may have a scale each, which the type of the first one's numbers could not hold.
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        words = str(error).strip().splitlines()[-1].strip()[:200]
        raise _fault(series, f"cannot be read ({words})", hint="fetch it again") from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise _fault(series, "holds colours", hint="give the scanner's images, not a picture of "
                     "them")
    array = sitk.GetArrayFromImage(image).T
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return array, VolumeGeometry.of(array.shape, LPS_TO_RAS @ affine)


def series_geometry(series: DicomSeries) -> VolumeGeometry:
    """The geometry alone, from the headers; raises as `read_series`."""
    slices = in_order(series)
    first, last = slices[0], slices[-1]
    across, down = np.reshape(first.orientation, (2, 3))
    normal = np.cross(across, down)
    step = normal @ np.subtract(last.position, first.position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = across * first.spacing_mm[1], down * first.spacing_mm[0]
    affine[:3, 2], affine[:3, 3] = normal * step, first.position
    return VolumeGeometry.of((first.columns, first.rows, len(slices)), LPS_TO_RAS @ affine)


def series_digest(series: DicomSeries) -> str:
    """SHA-256 of the contents of all files, whatever they are called; raises OSError."""
    contents = sorted(file_digest(path) for path in series.files)
    return hashlib.sha256("".join(contents).encode()).hexdigest()


def in_order(series: DicomSeries) -> list[DicomSlice]:
    """The slices along their normal; raises as `read_series`."""
    slices = series.slices
    if multi := next((each for each in slices if each.frames > 1), None):
        raise _fault(series, f"is of multi-frame files: {multi.file.name} holds {multi.frames} "
                     "slices, and a file of a single slice each is read", value=multi.frames,
                     hint="export it as classic single-frame MR, or convert it by dcm2niix and "
                          "give the study as NIfTI")
    bare = next((each for each in slices if not (each.position and each.orientation
                                                 and each.spacing_mm)), None)
    if bare is not None:
        raise _fault(series, f"does not tell where its slices lie: {bare.file.name} lacks its "
                     "position, orientation or pixel spacing", value=bare.file.name, hint=_EXPORT)
    first = slices[0]
    for other in slices[1:]:
        if not np.allclose(first.orientation, other.orientation, atol=_DIRECTION_TOLERANCE):
            raise _fault(series, f"has mixed orientations: {_text(first.orientation)} in "
                         f"{first.file.name}, {_text(other.orientation)} in {other.file.name}",
                         value=other.orientation,
                         hint="choose another series (this one looks like a localizer), or take "
                              "the odd slices out of the folder")
        for name, mine, theirs in (("sizes", (first.columns, first.rows),
                                    (other.columns, other.rows)),
                                   ("pixel spacings", first.spacing_mm, other.spacing_mm)):
            if not np.allclose(mine, theirs, rtol=_DIRECTION_TOLERANCE, atol=0):
                raise _fault(series, f"has slices of several {name}: {_text(mine)} in "
                             f"{first.file.name}, {_text(theirs)} in {other.file.name}",
                             value=theirs, hint=_EXPORT)
    if len(slices) == 1:
        raise _fault(series, "is a single slice; a volume has at least two", value=1, hint=_EXPORT)
    return _stacked(series, slices)


def _stacked(series: DicomSeries, slices: Sequence[DicomSlice]) -> list[DicomSlice]:
    """Order slices of one orientation along their normal, and see that they fill a box."""
    across, down = np.reshape(slices[0].orientation, (2, 3))
    normal = np.cross(across, down)
    positions = np.array([each.position for each in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[i] for i in order], positions[order]
    along = positions @ normal
    gaps = np.diff(along)
    step = float(np.median(gaps))
    allowed = _DISTANCE_TOLERANCE * step + _ROUNDING_MM
    close = np.flatnonzero(gaps <= _ROUNDING_MM)
    if close.size:
        one, two = slices[close[0]], slices[close[0] + 1]
        raise _fault(series, f"has several slices at one place, {_text(one.position)} mm: "
                     f"{one.file.name} and {two.file.name}",
                     value=one.position,
                     hint="a series of several volumes (times, b-values, echoes) is not one image: "
                          "choose another series, or take doubled files out of the folder")
    odd = np.flatnonzero(np.abs(gaps - step) > allowed)
    if odd.size:
        raise _unequal(series, slices, positions, gaps, step, odd)
    shift = positions - positions[0] - np.outer(along - along[0], normal)
    if np.abs(shift).max() > _SHIFT_TOLERANCE * min(slices[0].spacing_mm):
        raise _fault(series, "has slices that do not lie above one another: the last one is "
                     f"shifted by {np.linalg.norm(shift[-1]):.3g} mm within its plane (a tilted "
                     "gantry)", value=float(np.linalg.norm(shift[-1])),
                     hint="convert it by dcm2niix, which corrects that, and give the study as "
                          "NIfTI")
    return slices


def _unequal(series: DicomSeries, slices: Sequence[DicomSlice], positions: np.ndarray,
             gaps: np.ndarray, step: float, odd: np.ndarray) -> DataError:
    """Say which slices are missing, or that the distances are just unequal."""
    whole = np.round(gaps[odd] / step)
    if (whole >= 2).all() and (np.abs(gaps[odd] - whole * step)
                               <= whole * (_DISTANCE_TOLERANCE * step + _ROUNDING_MM)).all():
        missing = [positions[i] + (positions[i + 1] - positions[i]) * part / count
                   for i, count in zip(odd, whole.astype(int), strict=True)
                   for part in range(1, count)]
        named = ", ".join(f"{_text(place)} mm" for place in missing[:4])
        before, after = slices[odd[0]], slices[odd[0] + 1]
        number = "1 slice is" if len(missing) == 1 else f"{len(missing)} slices are"
        return _fault(series, f"has slices of unequal distance: {number} missing, at position "
                      f"{named}{' and more' if len(missing) > 4 else ''}, the first between "
                      f"{before.file.name} and {after.file.name}",
                      value=tuple(round(float(part), 3) for part in missing[0]),
                      hint="fetch the missing files, or export the series again")
    at = int(odd[np.abs(gaps[odd] - step).argmax()])
    return _fault(series, f"has slices of unequal distance: {gaps[at]:.4g} mm between "
                  f"{slices[at].file.name} and {slices[at + 1].file.name}, at position "
                  f"{_text(positions[at])} mm, against {step:.4g} mm elsewhere",
                  value=round(float(gaps[at]), 4),
                  hint="export the series again with equal distances, or choose another one")


def _fault(series: DicomSeries, words: str, *, value: object = None, hint: str) -> DataError:
    return DataError(f"{series} {words}", file=series.folder, value=value, hint=hint)


def _text(numbers: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{float(number):.4g}" for number in numbers) + ")"
