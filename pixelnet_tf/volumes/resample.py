"""Bringing a volume to another volume's grid."""

from __future__ import annotations

import numpy as np
from nibabel import orientations

from pixelnet_tf.cases.labels import lesion_classes
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry

#: So much of a volume must lie on the target grid, or the two do not belong together.
_LEAST_INSIDE = 0.5
#: A voxel that lies half-way between two takes the upper one in axial view, whatever the last digit
#: of the affines is: so much of a voxel is added where the nearest one is looked for.
_TIE = 1e-3
_APART = "check the affine of both"
#: Voxels that are enough to tell which part of an image lies on another grid.
_SAMPLE = 200_000


def bring_image(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry,
                content: np.ndarray, keep_zeros: bool) -> np.ndarray:
    """Bring an image to the grid of another one.

    Where the voxels of the two coincide, axes are permuted and flipped and no value changes.
    Elsewhere values are interpolated linearly, 0 where the image does not reach.

    Args:
        array: (x, y, z) float32 on `geometry`.
        content: (x, y, z) bool on `target`, the voxels of the other image that are not 0.
        keep_zeros: a voxel whose nearest one is exactly 0 becomes 0, too: the background of a
            skull-stripped image stays background.

    Returns:
        (x, y, z) float32 on `target`.

    Raises:
        DataError: less than half of the image lies on the target grid, and less than half of the
            other one on the image's (a slab within a head is in order, a head around a slab, too),
            or nothing of it is left there.
    """
    permutation = geometry.permutation_to(target)
    if permutation is not None:
        return np.ascontiguousarray(orientations.apply_orientation(array, permutation))
    inside = max(fraction_within(array != 0, geometry, target),
                 fraction_within(content, target, geometry))
    result = resample(array, geometry, target, keep_zeros=keep_zeros)
    if inside < _LEAST_INSIDE or not result.any():
        raise DataError(f"only {inside if result.any() else 0:.1%} of it lies on the first "
                        "modality's grid: the two do not lie at one place", hint=_APART)
    return result


def bring_labels(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry,
                 what: str = "labelled") -> np.ndarray:
    """Bring class indices to the grid of an image: permuted exactly, or by the nearest voxel.

    Args:
        array: (x, y, z) on `geometry`, of any type.
        what: word of a message for voxels that are not background.

    Returns:
        (x, y, z) on `target`, of the array's type.

    Raises:
        DataError: less than half of the voxels that are not background lie on the target grid.
    """
    permutation = geometry.permutation_to(target)
    if permutation is not None:
        return np.ascontiguousarray(orientations.apply_orientation(array, permutation))
    lesion = lesion_classes(array)
    total = np.count_nonzero(lesion)
    inside = round(total * fraction_within(lesion, geometry, target))
    if inside < _LEAST_INSIDE * total:
        raise DataError(f"only {inside} of its {total} {what} voxels lie on the first "
                        "modality's grid: the two do not lie at one place", hint=_APART)
    return resample(array, geometry, target, "nearest")


def fraction_within(chosen: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry) -> float:
    """Part of the chosen voxels (x, y, z) bool of one grid that lies on another; 1 of none."""
    where = np.flatnonzero(chosen)
    if not len(where):
        return 1.0
    where = where[::-(-len(where) // _SAMPLE)]
    to_target = np.linalg.inv(target.affine) @ geometry.affine
    index = to_target[:3, :3] @ np.stack(np.unravel_index(where, chosen.shape)) \
        + to_target[:3, 3:]
    # A voxel on the very face of the grid is on it, for every last digit of the affines.
    return float(((index > -0.5 - _TIE) & (index < np.array(target.shape)[:, None] - 0.5 + _TIE)
                  ).all(axis=0).mean())


def resample(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry,
             order: str = "linear", keep_zeros: bool = False) -> np.ndarray:
    """Interpolate a volume at the voxels of another grid; 0 where it does not reach.

    The result does not depend on the order in which either stores its axes, but for the last digits
    of the affines.

    Args:
        array: (x, y, z) on `geometry`.
        order: `linear` for images, `nearest` for labels.
        keep_zeros: a voxel whose nearest one is exactly 0 becomes 0, too.

    Returns:
        (x, y, z) on `target`, of the array's type.
    """
    import SimpleITK as sitk
    view = geometry.to_view(array)
    # Both grids are put in index coordinates and the transform carries the affines, so that
    # sheared affines need no special case (ITK's own geometry knows none).
    voxel = np.linalg.inv(geometry.view_affine) @ target.view_affine

    def sample(volume: np.ndarray, interpolator: int, shift: float) -> np.ndarray:
        source = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
        transform = sitk.AffineTransform(voxel[:3, :3].ravel().tolist(),
                                         (voxel[:3, 3] + shift).tolist())
        result = sitk.Resample(source, [int(n) for n in target.view_shape], transform, interpolator,
                               [0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist(), 0.0,
                               source.GetPixelID())
        return sitk.GetArrayFromImage(result).T

    if order == "nearest":
        return target.from_view(sample(view, sitk.sitkNearestNeighbor, _TIE))
    # The outermost voxels are repeated beyond the image, so that the nearest voxel alone decides
    # where it ends.
    held = view != 0 if keep_zeros else np.ones(view.shape, bool)
    inside = sample(held.astype(np.uint8), sitk.sitkNearestNeighbor, _TIE) > 0
    values = sample(np.pad(view, 1, mode="edge"), sitk.sitkLinear, 1.0)
    return target.from_view(np.where(inside, values, np.zeros((), values.dtype)))
