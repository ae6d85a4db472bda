"""Where a volume lies in space, exactly as its file says it."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations

from pixelnet_tf.errors import DataError, shown
from pixelnet_tf.io.plain import PlainError, build

#: Grids agree while no corner of the volume moves by more than this part of the smallest voxel
#: side: qform and sform of one scan differ by rounding, another scan by whole voxels.
_TOLERANCE_VOXELS = 0.01
#: Largest relative difference of voxel sides that pass as equal.
_SPACING_TOLERANCE = 1e-3
#: A voxel's volume over that of a box of its sides, below which it counts as flat.
_FLAT = 1e-6
_MEND_AFFINE = ("correct the file's header, for instance by the affine of another modality that "
                "was scanned on the same grid")
#: The axial view, which radiologists look at: columns run to the patient's left, rows to the back,
#: slices up.
_VIEW = orientations.axcodes2ornt("LPS")
#: The least and the greatest voxel side of an MRI, in mm.
_SIDES_MM = (0.01, 100.0)
#: From the world of DICOM and SimpleITK (left, posterior, superior) to nibabel's (right, anterior,
#: superior), and back.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Voxels along a side that a NIfTI-1 header can state.
_LONGEST_SIDE = 32767
_UNITS_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """Shape, affine and header of a volume.

    Attributes:
        shape: voxels along x, y, z of the file.
        affine: (4, 4) float64, voxel index to mm, axes R, A, S.
        spacing_mm: voxel side along x, y, z of the file, as the affine has it.
        header: the NIfTI header's bytes, from which a prediction takes its qform and sform.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    header: bytes

    @classmethod
    def from_header(cls, header: nib.Nifti1Header) -> VolumeGeometry:
        """Take the geometry of a NIfTI-1 or NIfTI-2 header of three dimensions.

        Lengths are brought to mm from the unit that the header states; without one they are mm.

        Raises:
            DataError: the position in space is not finite, or flat in some direction.
        """
        try:
            with np.errstate(all="ignore"):
                affine = np.array(header.get_best_affine(), np.float64)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError,
                nib.spatialimages.HeaderDataError) as error:
            raise DataError(f"its qform is no rotation ({error})", hint=_MEND_AFFINE) from None
        affine[:3] *= _unit_mm(header)
        return cls.of(header.get_data_shape()[:3], affine,
                      bytes(header.binaryblock))

    @classmethod
    def of(cls, shape: Sequence[int], affine: np.ndarray, header: bytes | None = None
           ) -> VolumeGeometry:
        """Make a geometry from a shape (x, y, z) and an affine (4, 4) in mm.

        Without a header, one is made that states the affine as its sform and qform.

        Raises:
            DataError: the affine is not finite, or flat in some direction, or a side is too long.
        """
        try:
            affine = np.array(affine, np.float64)
        except (TypeError, ValueError):
            raise DataError(f"its affine {shown(affine)} is no matrix of numbers",
                            hint=_MEND_AFFINE) from None
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise DataError(f"its affine {affine.tolist()} is not a finite 4 x 4 matrix",
                            hint=_MEND_AFFINE)
        spacing_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        # The volume of a voxel of these sides; a flat or sheared-flat voxel has none.
        if not spacing_mm.all() or abs(np.linalg.det(affine[:3, :3] / spacing_mm)) < _FLAT:
            raise DataError(f"its affine {_rows(affine)} is singular: voxels have no extent in "
                            "some direction", hint=_MEND_AFFINE)
        if header is None:
            if max(shape) > _LONGEST_SIDE:
                raise DataError(f"has shape {tuple(shape)}; a side has at most {_LONGEST_SIDE} "
                                "voxels", value=tuple(shape), hint="correct the file's header")
            made = nib.Nifti1Header()
            made.set_data_shape(shape)
            made.set_sform(affine, code="aligned")
            with suppress(nib.spatialimages.HeaderDataError):
                # A sheared affine has no qform.
                made.set_qform(affine, code="aligned", strip_shears=False)
            made.set_xyzt_units("mm")
            header = bytes(made.binaryblock)
        x, y, z = (int(n) for n in shape)
        x_mm, y_mm, z_mm = spacing_mm.tolist()
        return cls((x, y, z), affine, (x_mm, y_mm, z_mm), header)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm³; of a sheared grid, as a tilted gantry gives one, less than the
        product of its sides."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    @property
    def spacing_doubt(self) -> str | None:
        """Say it where the header states other voxel sides than its affine has, or impossible ones.
        """
        header = self.nifti_header()
        stated = np.array(header.get_zooms()[:3], np.float64) * _unit_mm(header)
        if not np.allclose(stated, self.spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
            return (f"pixdim states voxels of {_sides(stated)} mm, the affine has "
                    f"{_sides(self.spacing_mm)} mm; the affine is taken")
        if not all(_SIDES_MM[0] <= side <= _SIDES_MM[1] for side in self.spacing_mm):
            return (f"voxels of {_sides(self.spacing_mm)} mm are none of a scanner; the header's "
                    f"unit of length (xyzt_units, 1 of which is {_unit_mm(header):g} mm) or its "
                    "affine is wrong")
        return None

    @property
    def is_placed(self) -> bool:
        """Whether the header tells where the volume lies.

        Programs that do not know it write no code of qform and sform, or axes of the file along
        those of the world with the origin in the first voxel.
        """
        header = self.nifti_header()
        if not (header["sform_code"] > 0 or header["qform_code"] > 0):
            return False
        matrix, origin = self.affine[:3, :3], self.affine[:3, 3]
        return bool(np.count_nonzero(matrix - np.diag(np.diag(matrix))) or np.any(origin))

    def nifti_header(self) -> nib.Nifti1Header:
        """Return the header object, with the byte order of the file."""
        kind = nib.Nifti1Header if len(self.header) == 348 else nib.Nifti2Header
        return kind(self.header)

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        return {"shape": list(self.shape), "affine": self.affine.tolist(),
                "spacing_mm": list(self.spacing_mm),
                "header": base64.b64encode(self.header).decode()}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> VolumeGeometry:
        """Build a geometry from what `to_json` gave, equal to the bit; raises `PlainError` for
        anything else."""
        stored = build(_Stored, tree, "geometry")
        try:
            header = base64.b64decode(stored.header, validate=True)
            made = cls.of(stored.shape, np.array(stored.affine, np.float64), header)
            shape = made.nifti_header().get_data_shape()[:3]
        except (ValueError, DataError, nib.spatialimages.HeaderDataError,
                nib.wrapstruct.WrapStructError) as error:
            raise PlainError(f"geometry is none: {error}") from None
        if shape != stored.shape or min(shape) < 1 or not all(
                0 < side < np.inf for side in stored.spacing_mm):
            raise PlainError(f"geometry.shape {stored.shape} must be the header's {shape}, and "
                             f"geometry.spacing_mm positive, got {stored.spacing_mm}",
                             value=stored.spacing_mm)
        return replace(made, spacing_mm=stored.spacing_mm)

    @cached_property
    def _orientation(self) -> np.ndarray:
        """World axis and direction of each axis of the file, as nibabel writes an orientation.

        Axes are assigned so that they agree best in all. Unlike a choice axis by axis it does not
        depend on the order in which the file stores them, not even at 45 degrees.
        """
        left, _, right = np.linalg.svd(self.affine[:3, :3] / self.spacing_mm)
        turned = left @ right                          # without shear
        candidates = []
        for axes in itertools.permutations(range(3)):  # the file's axis along R, A and S
            chosen = turned[:, axes]
            signs = np.where(np.diag(chosen) < 0, -1.0, 1.0)
            # At a tie the directions themselves decide, which are the same in every order.
            candidates.append(((round(float(np.abs(np.diag(chosen)).sum()), 4),
                                *np.round(chosen * signs, 3).ravel().tolist()), axes, signs))
        _, axes, signs = max(candidates, key=lambda candidate: candidate[0])
        orientation = np.empty((3, 2))
        orientation[list(axes), 0], orientation[list(axes), 1] = range(3), signs
        return orientation

    @cached_property
    def _view_axes(self) -> list[int]:
        """The file's axis that columns, rows and slices of the axial view come from."""
        return np.argsort(orientations.ornt_transform(self._orientation, _VIEW)[:, 0]).tolist()

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices of the axial view."""
        columns, rows, slices = (self.shape[axis] for axis in self._view_axes)
        return columns, rows, slices

    @property
    def view_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel side along columns, rows and slices of the axial view."""
        column, row, slice_ = (self.spacing_mm[axis] for axis in self._view_axes)
        return column, row, slice_

    @property
    def view_affine(self) -> np.ndarray:
        """(4, 4) float64, (column, row, slice) of the axial view to mm, axes R, A, S."""
        return self.affine @ orientations.inv_ornt_aff(
            orientations.ornt_transform(self._orientation, _VIEW), self.shape)

    def to_view(self, array: np.ndarray) -> np.ndarray:
        """Turn the file's axes (x, y, z, ...) into the view's (column, row, slice, ...), exactly.

        Everything that is done slice by slice is done there, so that it does not depend on the
        order in which a file stores its axes.
        """
        return np.ascontiguousarray(orientations.apply_orientation(
            array, orientations.ornt_transform(self._orientation, _VIEW)))

    def from_view(self, view: np.ndarray) -> np.ndarray:
        """Turn the view's axes (column, row, slice, ...) into the file's: undo `to_view`."""
        return np.ascontiguousarray(self.seen_from_view(view))

    def seen_from_view(self, view: np.ndarray) -> np.ndarray:
        """What `from_view` returns, on the same memory and not a copy."""
        return orientations.apply_orientation(
            view, orientations.ornt_transform(_VIEW, self._orientation))

    def permutation_to(self, other: VolumeGeometry) -> np.ndarray | None:
        """How the axes are permuted and flipped to give another grid with the same voxels.

        Returns an orientation as `nibabel.orientations.apply_orientation` takes it, or None where
        the voxels of the two grids do not coincide.
        """
        steps = np.linalg.solve(self.affine[:3, :3], other.affine[:3, :3])
        signs = np.round(steps)
        if (np.abs(signs).sum(axis=0) != 1).any() or (np.abs(signs).sum(axis=1) != 1).any():
            return None
        axes = np.abs(signs).argmax(axis=1)
        orientation = np.stack([axes, signs[np.arange(3), axes]], axis=1)
        shape = tuple(np.array(self.shape)[np.argsort(axes)])
        moved = self.affine @ orientations.inv_ornt_aff(orientation, self.shape)
        same = VolumeGeometry.of(shape, moved, other.header).difference(other) is None
        return orientation if same else None

    def difference(self, other: VolumeGeometry) -> str | None:
        """Say how another grid differs from this one, or None when voxels coincide."""
        if self.shape != other.shape:
            return f"shape {self.shape} against {other.shape}"
        corners = np.array([(*corner, 1) for corner in
                            itertools.product(*((0, n - 1) for n in self.shape))], np.float64)
        moved_mm = np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :3], axis=1).max()
        if moved_mm <= _TOLERANCE_VOXELS * min(self.spacing_mm):
            return None
        return (f"affine {_rows(self.affine)} against {_rows(other.affine)} "
                f"(up to {moved_mm:.3g} mm apart)")


def moved(geometry: VolumeGeometry, motion: np.ndarray) -> VolumeGeometry:
    """The geometry that makes an image lie where a motion finds it.

    motion: (4, 4) float64, from a point of the other image in mm to the same point of this one.
    """
    return VolumeGeometry.of(geometry.shape, np.linalg.inv(motion) @ geometry.affine)


@dataclass(frozen=True)
class _Stored:
    """A geometry as JSON holds it."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing_mm: tuple[float, float, float]
    header: str


def _rows(affine: np.ndarray) -> str:
    return str([[float(f"{value:.5g}") for value in row] for row in affine[:3]])


def nearest_whole(ratio: float) -> int:
    """The whole number nearest to a ratio of lengths that headers state: one half goes to the even
    one, whatever the last digit, which differs between two files of one scan."""
    return round(round(float(ratio), 3))


def _sides(spacing_mm: Iterable[float]) -> str:
    return " x ".join(f"{side:.5g}" for side in spacing_mm)


def _unit_mm(header: nib.Nifti1Header) -> float:
    """Millimetres in the header's unit of length; what is unknown counts as mm."""
    try:
        return _UNITS_MM.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:
        return 1.0
