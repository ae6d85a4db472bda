"""Images in the forms that people hold them in, to volumes with a geometry, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import LPS_TO_RAS, VolumeGeometry
from pixelnet_tf.volumes.raw_volume import RawVolume

if TYPE_CHECKING:
    import SimpleITK as sitk

#: A path of a NIfTI file, an image of nibabel or SimpleITK, or an array (x, y, z) with its affine
#: (4, 4), which leads from voxels to mm along R, A, S as in nibabel.
Image = Any


def read_image(image: Image, name: str) -> RawVolume:
    """Take an image in any form.

    Parameters
    ----------
    image
        A path, a nibabel image, a SimpleITK image, or a pair (array, affine).
    name
        What messages call it, such as its modality.

    Raises
    ------
    DataError
        It is in no known form, not three-dimensional, not of real numbers, or without a position
        in space.
    """
    if isinstance(image, (str, os.PathLike)):
        return RawVolume.read(image)
    try:
        if isinstance(image, nib.spatialimages.SpatialImage):
            return _from_nibabel(image, name)
        if type(image).__module__.startswith("SimpleITK"):
            return _from_sitk(image, name)
        if isinstance(image, tuple) and len(image) == 2:
            array, affine = (np.asarray(part) for part in image)
            return RawVolume(_voxels(array), VolumeGeometry.of(array.shape[:3], affine), name)
    except DataError as error:
        raise DataError.of(error, source=name) from None
    hint = ("give a path, a nibabel or SimpleITK image, or a pair (array, affine); an array alone "
            "does not say where it lies")
    raise DataError(f"{name}: {type(image).__name__} is no image that can be read",
                    value=type(image).__name__, hint=hint)


def like(image: Image, array: np.ndarray, geometry: VolumeGeometry) -> Image:
    """Give an array (x, y, z) the form of an image: nibabel's for a path."""
    if type(image).__module__.startswith("SimpleITK"):
        return to_sitk(array, geometry)
    if isinstance(image, tuple):
        return array, np.asarray(image[1])
    return to_nibabel(array, geometry)


def to_nibabel(array: np.ndarray, geometry: VolumeGeometry) -> nib.Nifti1Image:
    """An image with the geometry's affine, qform and sform."""
    header = geometry.nifti_header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1, 0)
    kind = nib.Nifti1Image if len(geometry.header) == 348 else nib.Nifti2Image
    return kind(array, header.get_best_affine(), header)


def to_sitk(array: np.ndarray, geometry: VolumeGeometry) -> sitk.Image:
    """A SimpleITK image at the same place; raises `DataError` for a sheared affine."""
    import SimpleITK as sitk

    affine = LPS_TO_RAS @ geometry.affine
    spacing = np.array(geometry.spacing_mm)
    direction = affine[:3, :3] / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise DataError("the affine is sheared, which SimpleITK's images cannot be",
                        hint="take the nibabel image")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def _from_nibabel(image: nib.spatialimages.SpatialImage, name: str) -> RawVolume:
    array = _voxels(np.asanyarray(image.dataobj))
    if isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        geometry = VolumeGeometry.from_header(image.header)
    else:
        geometry = VolumeGeometry.of(array.shape, image.affine)
    file = image.get_filename()
    return RawVolume(array, geometry, Path(file) if file else name)


def _from_sitk(image: sitk.Image, name: str) -> RawVolume:
    import SimpleITK as sitk

    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError("holds several numbers a voxel", hint="give one image for each")
    array = _voxels(sitk.GetArrayFromImage(image).T)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return RawVolume(array, VolumeGeometry.of(array.shape, LPS_TO_RAS @ affine), name)


def _voxels(array: np.ndarray) -> np.ndarray:
    if array.dtype.names or array.dtype.kind not in "biuf":
        raise DataError(f"holds {array.dtype}, not real numbers", value=str(array.dtype),
                        hint="give the scanner's intensities")
    if array.ndim > 3 and all(n == 1 for n in array.shape[3:]):
        array = array.reshape(array.shape[:3])
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"has shape {array.shape}; a volume has three axes, each of at least one "
                        "voxel", value=array.shape)
    return np.asarray(array, np.float32)
