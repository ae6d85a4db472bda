"""Rigid registration of a case's images to the first one (`study.register`)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry, moved
from pixelnet_tf.volumes.itk_threads import threads_of_itk

#: Voxels of a level from which the mutual information is taken, drawn with a fixed seed.
_SAMPLES, _SEED, _BINS = 60_000, 1989, 32
#: Each level is coarser by one of these factors, and keeps so many voxels along each axis at least.
_SHRINK, _FEWEST_VOXELS = (4, 2, 1), 8
#: Length of the first step of a level, and of one with which it ends; the part of its length that a
#: step has after one that went too far; and most steps of a level.
_FIRST_STEP, _LAST_STEP, _SHORTER, _ITERATIONS = 2.0, 0.01, 0.8, 300
#: A search may come to its last step on the way: it is begun anew where it ended while that gains
#: this part of the mutual information, so many times at most.
_WORTHWHILE, _ROUNDS = 0.01, 5
#: A search that loses this part of the mutual information went astray.
_LOST = 0.1
#: A motion that leaves every corner of the image within this part of a voxel is none: the header is
#: believed, and images that were registered before are not interpolated once more.
_STILL_VOXELS = 0.25
_APART = ("look at both images; correct the affine of one, or register them by another tool and "
          "set study.register to none")


def register_rigid(moving: np.ndarray, moving_geometry: VolumeGeometry, fixed: np.ndarray,
                   fixed_geometry: VolumeGeometry) -> np.ndarray:
    """Find where an image lies, so that it shows the same as another one, turned and shifted.

    Mattes' mutual information over three levels of resolution, from where the headers say the
    images lie, or from their centres of mass on each other where these match better. One thread
    and a fixed seed: the same images give the same place, to the bit.

    Args:
        moving: (x, y, z) float32 on its own geometry.
        fixed: the same of the image that it is brought to.

    Returns:
        (4, 4) float64, from a point of the fixed image in mm to the same point of the moving one;
        the identity where that lies in place already.

    Raises:
        DataError: the images have no part in common, or the search did not come to an end; no file
            is named.
    """
    target, source = _image(fixed, fixed_geometry), _image(moving, moving_geometry)
    centre = _centre_of_mass(target)
    start = sitk.Euler3DTransform()
    start.SetCenter(centre)
    centred = sitk.Euler3DTransform(start)
    centred.SetTranslation((_centre_of_mass(source) - centre).tolist())
    search = _search(fixed_geometry.view_shape)
    # The metric adds in the order of threads.
    with threads_of_itk(1):
        costs = [_cost(search, target, source, each) for each in (start, centred)]
        if min(costs) == np.inf:
            raise DataError("it has no part in common with the first modality and cannot be "
                            "registered to it", hint=_APART)
        # The headers' word counts where both are as good.
        found = sitk.Euler3DTransform(start if costs[0] <= costs[1] else centred)
        cost = min(costs)
        for number in range(_ROUNDS):
            best, before = sitk.Euler3DTransform(found), cost
            try:
                search.SetInitialTransform(found, True)
                search.Execute(target, source)
            except RuntimeError as error:
                raise DataError("it cannot be registered to the first modality "
                                f"({str(error).splitlines()[-1].strip()})", hint=_APART) from None
            steps = search.GetOptimizerIteration()
            cost = _cost(search, target, source, found)
            if cost > before * (1 + _WORTHWHILE):
                if number and cost > before:
                    found, cost = best, before
                break
    if steps >= _ITERATIONS or cost > min(costs) * (1 - _LOST):
        raise DataError("its registration to the first modality does not converge: mutual "
                        f"information {-min(costs):.4f} at the start, {-cost:.4f} after {steps} "
                        "steps", hint=_APART)
    if cost > min(costs):
        # Where they were to begin with is as good a place as any.
        found = start if costs[0] <= costs[1] else centred
    motion = np.eye(4)
    motion[:3, :3] = np.array(found.GetMatrix()).reshape(3, 3)
    # TransformPoint is R (p - c) + c + t.
    centre = np.array(found.GetCenter())
    motion[:3, 3] = centre + np.array(found.GetTranslation()) - motion[:3, :3] @ centre
    placed = moved(moving_geometry, motion)
    corners = np.array(np.meshgrid(*((0, n - 1) for n in moving.shape))).reshape(3, -1)
    apart_mm = np.linalg.norm(
        ((placed.affine - moving_geometry.affine) @ np.vstack([corners, np.ones(8)]))[:3], axis=0)
    still = apart_mm.max() <= _STILL_VOXELS * min(moving_geometry.spacing_mm)
    return np.eye(4) if still else motion


def _search(shape: tuple[int, ...]) -> sitk.ImageRegistrationMethod:
    factors = [factor for factor in _SHRINK
               if factor == 1 or min(shape) // factor >= _FEWEST_VOXELS]
    voxels = [float(np.prod([n // factor for n in shape])) for factor in factors]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([min(1.0, _SAMPLES / n) for n in voxels], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=_FIRST_STEP, minStep=_LAST_STEP, numberOfIterations=_ITERATIONS,
        relaxationFactor=_SHORTER, gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0.0 for factor in factors])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _cost(method: sitk.ImageRegistrationMethod, target: sitk.Image, source: sitk.Image,
          transform: sitk.Transform) -> float:
    """Minus the mutual information under a transform; infinite without common voxels."""
    try:
        method.SetInitialTransform(transform, True)
        return float(method.MetricEvaluate(target, source))
    except RuntimeError:
        return float("inf")


def _image(array: np.ndarray, geometry: VolumeGeometry) -> sitk.Image:
    """An image in the axes of the axial view, so that the order of storage is no matter."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(
        geometry.to_view(array).T.astype(np.float32)))
    affine, spacing = geometry.view_affine, np.array(geometry.view_spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def _centre_of_mass(image: sitk.Image) -> np.ndarray:
    """Of the positive intensities, in mm."""
    weights = np.clip(sitk.GetArrayViewFromImage(image), 0, None).astype(np.float64).T
    total = weights.sum()
    index = [float((weights.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(size)).sum() / total)
             if total else (size - 1) / 2 for axis, size in enumerate(weights.shape)]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))
