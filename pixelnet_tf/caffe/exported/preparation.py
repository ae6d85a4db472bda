"""NIfTI volumes to the slices that the Caffe network in this folder was trained on, and back.

All of it follows serving.json, and gives the numbers that pixelnet-tf gives. Needs numpy, scipy
and nibabel, and SimpleITK where the volumes are corrected for a bias field. Arrays of a volume are
(slice, height, width): slice 0 is the lowest, row 0 anterior, column 0 the patient's right.
"""

import itertools
import sys

import nibabel as nib
import numpy as np
from nibabel import orientations
from scipy import ndimage

VIEW = orientations.axcodes2ornt("LPS")


def prepare(files, about):


    # type: (list[nib.Nifti1Image], dict) -> tuple[np.ndarray, np.ndarray]
    """Return slices (slice, height, width, channel) float32, and the pixels to classify (slice,
    height, width) bool, of one loaded NIfTI file a channel, and the brain mask where it is given.
    """
    normal, first = about["normalisation"], files[0]
    for file in files:
        if file.shape != first.shape or abs(file.affine - first.affine).max() > 0.01:
            sys.exit("the images are not on one grid: {} {} and {} {}".format(
                first.shape, first.affine.tolist(), file.shape, file.affine.tolist()))
    to_view = orientations.ornt_transform(orientation_of(first.affine), VIEW)
    channels = np.stack([orientations.apply_orientation(
        np.asarray(file.dataobj, np.float32), to_view).transpose(2, 1, 0) for file in files], -1)
    stripped = normal["skull_stripped"]
    if normal["brain_mask"]:
        channels, brain = channels[..., :-1], channels[..., -1] > 0.5
    else:
        brain = fill_holes((channels != 0).any(axis=-1)) if stripped else find_head(channels)
    if not brain.any():
        sys.exit("no voxel belongs to the patient: nothing stands out from the background")
    for number, name in enumerate(about["channels"]):
        array = channels[..., number]
        if name in normal["bias_field"]["modalities"]:
            array = without_bias_field(array, brain, sides_mm(first), normal["bias_field"])
        channels[..., number] = z_score(array, brain, normal["z_score_over"])
    zero_outside = normal["z_score_over"] != "volume"
    if zero_outside:
        channels[~brain] = 0
    channels, mask, voxels = scale(channels, brain, normal["slice_size"])
    if zero_outside:  # scaling spreads the rim of the brain
        channels[~mask] = 0
    wanted = voxels & mask if about["classified_pixels"] == "brain" else voxels
    return channels, wanted


def put_together(labels, first, about):


    # type: (np.ndarray, nib.Nifti1Image, dict) -> nib.Nifti1Image
    """Labels (slice, height, width) of the slices as an image like the first channel's file."""
    to_view = orientations.ornt_transform(orientation_of(first.affine), VIEW)
    width, height = [first.shape[np.flatnonzero(to_view[:, 0] == axis)[0]] for axis in (0, 1)]
    rows, columns = places(height, width, about["normalisation"]["slice_size"])[:2]
    back = orientations.ornt_transform(VIEW, orientation_of(first.affine))
    header = first.header.copy()
    header.set_data_dtype(np.uint8)
    view = labels[:, rows][:, :, columns].transpose(2, 1, 0)
    return nib.Nifti1Image(orientations.apply_orientation(view, back), first.affine, header)


def z_score(array, brain, region):


    # type: (np.ndarray, np.ndarray, str) -> np.ndarray
    """Mean 0 and standard deviation 1 over the region of the volume; a constant channel is 0."""
    over = {"brain": brain, "core": core_of(brain), "volume": np.ones_like(brain)}[region]
    values = array[over].astype(np.float64)
    scaled = (array - np.float32(values.mean())) / np.float32(values.std() or 1)
    return scaled if values.std() else np.zeros_like(array)


def fill_holes(mask):


    # type: (np.ndarray) -> np.ndarray
    """Holes are filled slice by slice."""
    return np.stack([ndimage.binary_fill_holes(one) for one in mask])


def core_of(brain):


    # type: (np.ndarray) -> np.ndarray
    """What has nothing but brain in the 21 x 21 pixels around it; all of it where nothing has."""
    deep = ndimage.minimum_filter(brain, size=(1, 21, 21), mode="constant", cval=False)
    return deep if deep.any() else brain


def find_head(channels):


    # type: (np.ndarray) -> np.ndarray
    """Otsu's threshold on the mean of the channels (each scaled by its 99th percentile); closed,
    the largest piece, holes filled, grown by a voxel."""
    positive = np.clip(channels, 0, None)
    scales = np.percentile(positive, 99, axis=(0, 1, 2))
    mean = np.minimum(positive / np.where(scales > 0, scales, 1), 1).mean(axis=-1)
    counts, edges = np.histogram(mean, bins=256)
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = counts.sum() - below
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    mask = mean > edges[1 + np.argmax(below * above * apart ** 2)]
    # A head goes on beyond the faces of the volume, where closing would take it away.
    closed = ndimage.binary_closing(np.pad(mask, 2, "edge"), iterations=2)[2:-2, 2:-2, 2:-2]
    pieces, count = ndimage.label(closed)
    largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:]) if count else 1
    return ndimage.binary_dilation(fill_holes(pieces == largest))


def orientation_of(affine):


    # type: (np.ndarray) -> np.ndarray
    """World axis and direction of each axis of a file, as nibabel writes an orientation; oblique
    axes are assigned so that they agree best in all."""
    matrix = affine[:3, :3]
    left, _, right = np.linalg.svd(matrix / np.sqrt((matrix ** 2).sum(axis=0)))
    candidates = []
    for axes in itertools.permutations(range(3)):
        chosen = left.dot(right)[:, axes]
        signs = np.where(np.diag(chosen) < 0, -1.0, 1.0)
        agreement = round(float(np.abs(np.diag(chosen)).sum()), 4)
        ties = np.round(chosen * signs, 3).ravel().tolist()
        candidates.append(([agreement] + ties, axes, signs))
    _, axes, signs = max(candidates, key=lambda candidate: candidate[0])
    orientation = np.empty((3, 2))
    orientation[list(axes), 0], orientation[list(axes), 1] = range(3), signs
    return orientation


def sides_mm(file):


    # type: (nib.Nifti1Image) -> list[float]
    """Sides of a voxel along width, height and slices of the view."""
    unit = {"meter": 1000.0, "micron": 0.001}.get(file.header.get_xyzt_units()[0], 1.0)
    sides = unit * np.sqrt((file.affine[:3, :3] ** 2).sum(axis=0))
    to_view = orientations.ornt_transform(orientation_of(file.affine), VIEW)
    return [float(sides[np.flatnonzero(to_view[:, 0] == axis)[0]]) for axis in (0, 1, 2)]


def without_bias_field(array, brain, spacing_mm, settings):


    # type: (np.ndarray, np.ndarray, list[float], dict) -> np.ndarray
    """Divide by N4's field, which is fitted to positive voxels of the brain on a coarser grid."""
    import SimpleITK as sitk

    def image(values):

        # type: (np.ndarray) -> sitk.Image
        # Without the voxels' sides: the spline's knots divide the grid whatever they are.
        return sitk.GetImageFromArray(np.ascontiguousarray(values))

    usable = brain & (array > 0)
    # Further in a volume of more than 256 voxels a side.
    coarse_mm = (settings["shrink_factor"] * min(spacing_mm)
                 * max(1.0, array.size / 256.0 ** 3) ** (1 / 3.0))
    factors = [max(1, min(int(round(round(coarse_mm / side, 3))), length // 16))
               for side, length in zip(spacing_mm, array.shape[::-1])]
    if not usable[tuple(slice(factor // 2, None, factor) for factor in factors[::-1])].any():
        return array
    # Sums by as many threads on every machine, so that they come out alike.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(settings["iterations"])
    n4.SetConvergenceThreshold(settings["convergence"])
    whole = image(array)
    n4.Execute(sitk.Shrink(whole, factors), sitk.Shrink(image(usable.astype(np.uint8)), factors))
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole))
    field = np.clip(field, field[usable].min(), field[usable].max())
    return array / np.exp(field - field[usable].mean(dtype=np.float64), dtype=np.float32)


def places(height, width, size):


    # type: (int, int, int) -> tuple[np.ndarray, np.ndarray, tuple[int, int], tuple[int, int]]
    """Where voxels and slices meet, for slices scaled to `size` pixels (0: as they are): the row
    and the column that each voxel is read at, height and width when scaled, the first row and
    column that are not padding."""
    longer = float(max(height, width))
    tall, wide = [max(n, int(round(n * size / longer))) for n in (height, width)]
    top, left = [(size - n) // 2 if size else 0 for n in (tall, wide)]
    rows = top + (2 * np.arange(height) + 1) * tall // (2 * height)
    columns = left + (2 * np.arange(width) + 1) * wide // (2 * width)
    return rows, columns, (tall, wide), (top, left)


def scale(channels, brain, size):


    # type: (np.ndarray, np.ndarray, int) -> tuple[np.ndarray, np.ndarray, np.ndarray]
    """Return slices and brain scaled and padded to `size` pixels, and which pixels stand for a
    voxel; with size 0 as they are."""
    native = brain.shape[1:]
    rows, columns, scaled, start = places(native[0], native[1], size)
    shape = (size, size) if size else native
    voxels = np.zeros((len(brain),) + shape, bool)
    voxels[:, rows[:, None], columns] = True
    if not size:
        return channels, brain, voxels
    down, across = [linear_weights(n, new) for n, new in zip(native, scaled)]
    channels = np.einsum("ry,syxc,qx->srqc", down, channels, across, optimize=True)
    near = [(2 * np.arange(new) + 1) * n // (2 * new) for n, new in zip(native, scaled)]
    frame = ((0, 0),) + tuple((before, size - before - n) for before, n in zip(start, scaled))
    return (np.pad(channels.astype(np.float32), frame + ((0, 0),), "constant"),
            np.pad(brain[:, near[0]][:, :, near[1]], frame, "constant"), voxels)


def linear_weights(native, scaled):


    # type: (int, int) -> np.ndarray
    """Weights (scaled, native) of linear interpolation, pixel centres on one scale."""
    position = np.clip((np.arange(scaled) + 0.5) * native / scaled - 0.5, 0, native - 1)
    low = np.minimum(np.floor(position).astype(int), max(native - 2, 0))
    weights = np.zeros((scaled, native), np.float32)
    weights[np.arange(scaled), low] = 1 - (position - low)
    if native > 1:
        weights[np.arange(scaled), low + 1] += position - low
    return weights
