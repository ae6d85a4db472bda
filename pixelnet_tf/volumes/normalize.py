"""Brain mask and z-score (paper section 3.2)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pixelnet_tf.config import NormRegion
from pixelnet_tf.errors import DataError

#: Steps by which the mask of a head is grown and shrunk again, to close its gaps.
_CLOSING = 2
#: Pixels from a head's outline to its core, of the 256 or so that span a slice.
CORE_DEPTH = 10


def brain_mask(channels: np.ndarray, skull_stripped: bool) -> np.ndarray:
    """Find the voxels that belong to the patient.

    Skull-stripped: every voxel that is not zero in some channel, holes filled slice by slice.
    Otherwise the head: Otsu's threshold on the mean of the channels (each scaled by its 99th
    percentile), closed, the largest piece, holes filled slice by slice, and grown by one voxel, so
    that a dark rim is not lost.

    Args:
        channels: (column, row, slice, channel), as `VolumeGeometry.to_view` gives a volume.

    Returns:
        (column, row, slice) bool.

    Raises:
        DataError: no voxel belongs to the patient.
    """
    mask = (_fill_slices((channels != 0).any(axis=-1)) if skull_stripped
            else _head_mask(channels))
    if not mask.any():
        raise DataError("no voxel belongs to the patient: nothing stands out from the background",
                        hint="look at the images, or name brain masks as `mask` in study.files")
    return mask


def _head_mask(channels: np.ndarray) -> np.ndarray:
    positive = np.clip(channels, 0, None).astype(np.float32)
    scale = np.percentile(positive, 99, axis=(0, 1, 2))
    mean = np.minimum(positive / np.where(scale > 0, scale, 1), 1).mean(axis=-1)
    mask = _closed(mean > otsu_threshold(mean))
    pieces, count = ndimage.label(mask)
    if count > 1:
        mask = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return ndimage.binary_dilation(_fill_slices(mask))


def otsu_threshold(array: np.ndarray) -> float:
    """Return the value that parts an array into two classes of the greatest variance between."""
    counts, edges = np.histogram(array, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * (mean_below - mean_above) ** 2.0)])


def z_score(array: np.ndarray, mask: np.ndarray, region: str = NormRegion.BRAIN
            ) -> tuple[np.ndarray, float, float]:
    """Bring a channel to mean 0 and standard deviation 1.

    Args:
        array: (column, row, slice).
        mask: (column, row, slice) bool.
        region: `brain` takes both over the mask and leaves exactly 0 outside it; `core` takes
            them over `core_of` the mask instead; `volume` takes them over every voxel, the
            paper's literal reading.

    Returns:
        (column, row, slice) float32, the mean and the standard deviation that were taken out. A
        constant channel becomes 0 and its standard deviation stands at 0.
    """
    values = array
    if region != NormRegion.VOLUME:
        values = array[core_of(mask) if region == NormRegion.CORE else mask]
    mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
    std = float(values.std(dtype=np.float64)) if values.size else 0.0
    scaled = (array.astype(np.float32) - np.float32(mean)) / np.float32(std or 1.0)
    if std == 0.0:
        scaled[...] = 0
    if region != NormRegion.VOLUME:
        scaled[~mask] = 0
    return scaled, mean, std


def core_of(mask: np.ndarray) -> np.ndarray:
    """The part of a head that lies deep inside: nearly nothing but brain.

    Fat and skin are the brightest of a head and differ most between scanners; a standard deviation
    that holds them presses the brain's contrasts together.

    mask (column, row, slice) bool; returns its voxels with nothing but mask in a square of
    2 * CORE_DEPTH + 1 pixels around them in their slice, or the whole mask where there are none.
    """
    deep = ndimage.minimum_filter(mask, size=(2 * CORE_DEPTH + 1, 2 * CORE_DEPTH + 1, 1),
                                  mode="constant", cval=False)
    return deep if deep.any() else mask


def _closed(mask: np.ndarray) -> np.ndarray:
    # A head goes on beyond the outermost slices and a cut field of view, so that closing, which
    # finds nothing there, would take it away at every face.
    beyond = ndimage.binary_closing(np.pad(mask, _CLOSING, mode="edge"), iterations=_CLOSING)
    return beyond[(slice(_CLOSING, -_CLOSING),) * mask.ndim]


def _fill_slices(mask: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(mask[:, :, z]) for z in range(mask.shape[2])],
                    axis=2)
