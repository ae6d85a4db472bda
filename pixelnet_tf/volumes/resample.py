"""Bringing a volume to another volume's grid."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from pixelnet_tf.volumes.geometry import VolumeGeometry


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
