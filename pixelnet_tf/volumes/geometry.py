"""Where a volume lies in space, exactly as its file says it."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

#: Grids agree while no corner of the volume moves by more than this part of the smallest voxel
#: side: qform and sform of one scan differ by rounding, another scan by whole voxels.
_TOLERANCE_VOXELS = 0.01


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """Shape, affine and header of a volume.

    Attributes:
        shape: voxels along x, y, z of the file.
        affine: (4, 4) float64, voxel index to mm, axes R, A, S.
        spacing_mm: voxel side along x, y, z of the file.
        header: the NIfTI header's bytes, from which a prediction takes its qform and sform.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    header: bytes

    @classmethod
    def from_header(cls, header: nib.Nifti1Header) -> VolumeGeometry:
        """Take the geometry of a NIfTI-1 or NIfTI-2 header of three dimensions."""
        return cls(tuple(int(n) for n in header.get_data_shape()[:3]),
                   np.asarray(header.get_best_affine(), np.float64),
                   tuple(float(s) for s in header.get_zooms()[:3]), bytes(header.binaryblock))

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
        """Build a geometry from what `to_json` gave; equal to the bit."""
        return cls(tuple(tree["shape"]), np.asarray(tree["affine"], np.float64),
                   tuple(tree["spacing_mm"]), base64.b64decode(tree["header"]))

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


def _rows(affine: np.ndarray) -> str:
    return str([[float(f"{value:.5g}") for value in row] for row in affine[:3]])
