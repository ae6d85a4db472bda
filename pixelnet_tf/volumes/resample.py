"""Bringing a volume to another volume's grid."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from nibabel import orientations

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry

#: So much of what matters must lie on the target grid, or the two do not belong together.
_LEAST_INSIDE = 0.5


def bring_image(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry,
                needed: np.ndarray, keep_zeros: bool) -> np.ndarray:
    """Bring an image to the grid of another one.

    Where the voxels of the two coincide, axes are permuted and flipped and no value changes.
    Elsewhere values are interpolated linearly, 0 where the image does not reach.

    Args:
        array: (x, y, z) float32 on `geometry`.
        needed: (x, y, z) bool on `target`, the voxels that the image should cover.
        keep_zeros: a voxel whose nearest one is exactly 0 becomes 0, too: the background of a
            skull-stripped image stays background.

    Returns:
        (x, y, z) float32 on `target`.

    Raises:
        DataError: the image covers less than half of the needed voxels.
    """
    permutation = geometry.permutation_to(target)
    if permutation is not None:
        return np.ascontiguousarray(orientations.apply_orientation(array, permutation))
    covered = resample(np.ones(array.shape, np.uint8), geometry, target, "nearest") > 0
    total, inside = int(needed.sum()), int((needed & covered).sum())
    if inside < _LEAST_INSIDE * total:
        raise DataError(f"covers {inside} of the {total} voxels of the first modality's volume "
                        "alone: the two do not lie at one place; check the affine of both")
    result = resample(array, geometry, target)
    if keep_zeros:
        result[resample((array != 0).astype(np.uint8), geometry, target, "nearest") == 0] = 0
    return result


def bring_labels(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry
                 ) -> np.ndarray:
    """Bring label values to the grid of an image: permuted exactly, or by the nearest voxel.

    Args:
        array: (x, y, z) on `geometry`, of any type.

    Returns:
        (x, y, z) on `target`, of the array's type.

    Raises:
        DataError: less than half of the labelled voxels lie on the target grid.
    """
    permutation = geometry.permutation_to(target)
    if permutation is not None:
        return np.ascontiguousarray(orientations.apply_orientation(array, permutation))
    place = np.argwhere(array)
    to_target = np.linalg.inv(target.affine) @ geometry.affine
    index = place @ to_target[:3, :3].T + to_target[:3, 3]
    inside = int(((index > -0.5) & (index < np.array(target.shape) - 0.5)).all(axis=1).sum())
    if inside < _LEAST_INSIDE * len(place):
        raise DataError(f"only {inside} of its {len(place)} labelled voxels lie on the first "
                        "modality's grid: the two do not lie at one place; check the affine of "
                        "both")
    return resample(array, geometry, target, "nearest")


def resample(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry,
             order: str = "linear") -> np.ndarray:
    """Interpolate a volume at the voxels of another grid; 0 where it does not reach.

    Args:
        array: (x, y, z) on `geometry`.
        order: `linear` for images, `nearest` for labels.

    Returns:
        (x, y, z) on `target`, of the array's type.
    """
    source = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    # Both grids are put in index coordinates and the transform carries the affines, so that
    # sheared affines need no special case (ITK's own geometry knows none).
    voxel = np.linalg.inv(geometry.affine) @ target.affine
    transform = sitk.AffineTransform(voxel[:3, :3].ravel().tolist(), voxel[:3, 3].tolist())
    result = sitk.Resample(source, [int(n) for n in target.shape], transform,
                           sitk.sitkLinear if order == "linear" else sitk.sitkNearestNeighbor,
                           [0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist(), 0.0,
                           source.GetPixelID())
    return sitk.GetArrayFromImage(result).T
