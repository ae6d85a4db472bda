"""N4 bias field correction (paper section 3.2)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from pixelnet_tf.config import BiasFieldConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import nearest_whole

#: The shrunken grid keeps at least this many voxels along an axis, so that the field's spline of
#: the finest level is still held by data in volumes of few thick slices.
_FEWEST_VOXELS = 16


def correct_bias_field(array: np.ndarray, spacing_mm: tuple[float, ...],
                       mask: np.ndarray, config: BiasFieldConfig) -> np.ndarray:
    """Divide a volume by the smooth field that N4 finds in it.

    N4 is fitted on a coarser grid (`shrink_factor`); its spline is then evaluated on the full
    one. Runs on one thread: sums in another order would change the last digits. The spline's knots
    divide the grid whatever a voxel measures, so N4 is told sides of 1: with those of the header,
    whose last digit differs between the NIfTI and the DICOM of a scan, voxels that lie on a knot
    fell to either side of it, and single voxels came out by tenths of a deviation apart.

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
        n4.Execute(sitk.Shrink(image, factors),
                   sitk.Shrink(_image(usable.astype(np.uint8)), factors))
    except RuntimeError as error:
        raise DataError(f"N4 finds no bias field ({str(error).splitlines()[-1].strip()})",
                        hint="leave the case out, or set prepare.bias_field.enabled to false"
                        ) from None
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    # Away from the mask no voxel holds the spline, and it can run to any height.
    np.clip(log_field, log_field[usable].min(), log_field[usable].max(), out=log_field)
    # N4 leaves the field's scale to chance; a field of mean 1 (in logarithms) keeps intensities.
    return array / np.exp(log_field - log_field[usable].mean(dtype=np.float64), dtype=np.float32)


def shrink_factors(shape: tuple[int, ...], spacing_mm: tuple[float, ...], factor: int
                   ) -> list[int]:
    """Return the factor along each axis: voxels of equal sides, `factor` times the smallest."""
    side_mm = factor * min(spacing_mm)
    return [max(1, min(nearest_whole(side_mm / spacing), size // _FEWEST_VOXELS))
            for size, spacing in zip(shape, spacing_mm, strict=True)]


def _image(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(array.T))
