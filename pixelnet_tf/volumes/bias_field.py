"""N4 bias field correction (paper section 3.2)."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from pixelnet_tf.config import BiasFieldConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import nearest_whole
from pixelnet_tf.volumes.itk_threads import threads_of_itk

#: N4 adds up by so many threads on every machine.
_THREADS = 2
#: A volume of more voxels is shrunk further than `shrink_factor` says, so that the grid which N4 is
#: fitted on grows no more. The spline has as many knots for any size, so that the field is held by
#: as many voxels as that of a smaller volume.
_LARGE = 256**3
#: The shrunken grid keeps at least this many voxels along an axis, so that the field's spline of
#: the finest level is still held by data in volumes of few thick slices.
_FEWEST_VOXELS = 16


def correct_bias_field(array: np.ndarray, spacing_mm: tuple[float, ...],
                       mask: np.ndarray, config: BiasFieldConfig) -> np.ndarray:
    """Divide a volume by the smooth field that N4 finds in it.

    N4 is fitted on a coarser grid (`shrink_factors`); its spline is then evaluated on the full
    one. Sums are taken in one order on every machine: another would change the last digits. Several
    calls may run side by side in threads. The spline's knots divide the grid whatever a voxel
    measures, so N4 is told sides of 1: with those of the header, whose last digit differs between
    the NIfTI and the DICOM of a scan, voxels that lie on a knot fell to either side of it, and
    single voxels came out by tenths of a deviation apart.

    Args:
        array: (column, row, slice) float32.
        spacing_mm: voxel side along the array's axes, which the coarser grid evens out.
        mask: bool, of the array's shape, the voxels that the field is fitted to; only positive
            ones count.
        config: shrink factor, iterations of each level, convergence threshold.

    Returns:
        float32, of the array's shape; zeros stay zeros. A volume of one slice is corrected in the
        plane.

    Raises:
        DataError: SimpleITK cannot fit a field.
    """
    if 1 in array.shape:
        flat = [axis for axis, size in enumerate(array.shape) if size > 1]
        if len(flat) < 2:
            return array.astype(np.float32)
        plane = correct_bias_field(array.squeeze(), tuple(spacing_mm[axis] for axis in flat),
                                   mask.squeeze(), config)
        return plane.reshape(array.shape)
    usable = mask & (array > 0)
    factors = shrink_factors(array.shape, spacing_mm, config.shrink_factor)
    if not usable[tuple(slice(f // 2, None, f) for f in factors)].any():
        return array.astype(np.float32)
    image = _image(array.astype(np.float32))
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(list(config.iterations))
    n4.SetConvergenceThreshold(config.convergence)
    try:
        with threads_of_itk(_THREADS):
            n4.Execute(sitk.Shrink(image, factors),
                       sitk.Shrink(_image(usable.astype(np.uint8)), factors))
            log_field_image = n4.GetLogBiasFieldAsImage(image)
    except RuntimeError as error:
        raise DataError(f"N4 finds no bias field ({str(error).splitlines()[-1].strip()})",
                        hint="leave the case out, or set prepare.bias_field.enabled to false"
                        ) from None
    # In the order of the volume: between a turned array and another one, numpy takes four times as
    # long.
    log_field = np.array(sitk.GetArrayViewFromImage(log_field_image).T, order="C")
    del image, log_field_image
    inside = log_field[usable]
    # Away from the mask no voxel holds the spline, and it can run to any height.
    np.clip(log_field, inside.min(), inside.max(), out=log_field)
    # N4 leaves the field's scale to chance; a field of mean 1 (in logarithms) keeps intensities.
    np.subtract(log_field, inside.mean(dtype=np.float64), out=log_field, dtype=np.float64,
                casting="same_kind")
    return np.divide(array, np.exp(log_field, out=log_field), out=log_field)


def shrink_factors(shape: tuple[int, ...], spacing_mm: tuple[float, ...], factor: int
                   ) -> list[int]:
    """Return the factor along each axis: voxels of equal sides, `factor` times the smallest, and
    in a large volume as many times more as its side is longer."""
    side_mm = factor * min(spacing_mm) * max(1.0, math.prod(shape) / _LARGE) ** (1 / 3)
    return [max(1, min(nearest_whole(side_mm / spacing), size // _FEWEST_VOXELS))
            for size, spacing in zip(shape, spacing_mm, strict=True)]


def _image(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(array.T))
