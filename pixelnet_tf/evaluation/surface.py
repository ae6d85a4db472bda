"""Distances between the surfaces of two masks, in millimetres.

A surface is the set of mask voxels that one binary erosion removes. Distances are Euclidean, from
voxel centre to voxel centre, and exact: a k-d tree over the other mask's surface gives what the
Euclidean distance transform of the whole volume gives, at a cost that depends on the lesion and
neither on the volume nor on how far the two masks lie apart.

What is reported of them is one number, each definition under its own name (`REDUCERS`).
"Hausdorff95" is not one number: the three definitions here are all in use and differ. Whatever the
project prints carries the name of the one that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pixelnet_tf.volumes.lesions import bounding_box


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface voxel to the other mask's surface; float64, one value a voxel."""

    ref_to_pred_mm: np.ndarray
    pred_to_ref_mm: np.ndarray


@dataclass(frozen=True)
class SurfaceRule:
    """Which voxels of a mask are its surface.

    `from_connectivity` (6, 18 or 26) is the erosion's element for the voxels that distances are
    taken from, `to_connectivity` the one for the surface that they are taken to. With
    `outside_is_foreground` a mask has no surface where it touches the edge of the array.
    """

    from_connectivity: int = 6
    to_connectivity: int = 6
    outside_is_foreground: bool = False


def surface_distances(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    rule: SurfaceRule | None = None,
) -> SurfaceDistances:
    """Measure both directions between two masks, neither of them empty.

    Args:
        reference: bool `(x, y, z)`.
        prediction: bool, the same shape.
        spacing_mm: voxel size along each axis.
        rule: what a surface is; by default voxels with a background neighbour among the 6.

    Raises:
        ValueError: a mask is empty, or the shapes differ.
    """
    rule = rule or SurfaceRule()
    if reference.shape != prediction.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {prediction.shape}")
    if not (reference.any() and prediction.any()):
        raise ValueError("a mask is empty: there is no surface to measure from")
    ref = _padded_crop(reference, prediction, rule.outside_is_foreground)
    pred = _padded_crop(prediction, reference, rule.outside_is_foreground)
    ref_from, ref_to = _surfaces(ref, rule)
    pred_from, pred_to = _surfaces(pred, rule)
    return SurfaceDistances(
        ref_to_pred_mm=_directed(ref_from, pred_to, spacing_mm),
        pred_to_ref_mm=_directed(pred_from, ref_to, spacing_mm),
    )


def _padded_crop(mask: np.ndarray, other: np.ndarray, outside_is_foreground: bool) -> np.ndarray:
    """Cut the joint bounding box and put one voxel around it.

    The box's own neighbours are background; what lies beyond the array is what the rule says.
    """
    box = bounding_box(mask, other)
    padded = np.pad(mask[box], 1)
    if outside_is_foreground:
        for axis, (span, length) in enumerate(zip(box, mask.shape, strict=True)):
            face = np.moveaxis(padded, axis, 0)
            if span.start == 0:
                face[0] = True
            if span.stop == length:
                face[-1] = True
    return padded


def _surfaces(padded: np.ndarray, rule: SurfaceRule) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface to measure from and the one to measure to."""
    start = _surface(padded, rule.from_connectivity)
    if not start.any():
        # A mask that fills the array and may not end there: the array's faces are all it has.
        padded = np.pad(padded[1:-1, 1:-1, 1:-1], 1)
        start = _surface(padded, rule.from_connectivity)
    if rule.to_connectivity == rule.from_connectivity:
        return start, start
    return start, _surface(padded, rule.to_connectivity)


def _surface(padded: np.ndarray, connectivity: int) -> np.ndarray:
    """Remove from a mask, padded by one voxel, what one erosion leaves of it."""
    inner = (slice(1, -1),) * 3
    if connectivity == 6:
        core = _line_eroded(padded, 0) & _line_eroded(padded, 1) & _line_eroded(padded, 2)
    elif connectivity == 18:
        # The 18 neighbours are the union of the three 3x3 squares in the coordinate planes.
        lines = [_line_eroded(padded, axis) for axis in range(3)]
        core = _line_eroded(lines[0], 1) & _line_eroded(lines[0], 2) & _line_eroded(lines[1], 2)
    elif connectivity == 26:
        core = _line_eroded(_line_eroded(_line_eroded(padded, 0), 1), 2)
    else:
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
    return padded[inner] & ~core[inner]


def _line_eroded(mask: np.ndarray, axis: int) -> np.ndarray:
    """Erode by three voxels in a row; the outermost voxels are left to the caller's padding."""
    eroded = mask.copy()
    target, source = np.moveaxis(eroded, axis, 0), np.moveaxis(mask, axis, 0)
    target[1:] &= source[:-1]
    target[:-1] &= source[1:]
    return eroded


def _directed(start: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance of each voxel of one surface to the nearest of the other, in mm."""
    spacing = np.asarray(spacing_mm, np.float64)
    # A voxel of both surfaces is at distance 0; only the others are worth a search.
    away = start & ~target
    distances = np.zeros(int(np.count_nonzero(start)))
    points = np.argwhere(away) * spacing
    if len(points):
        tree = cKDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
        distances[: len(points)] = tree.query(points)[0]
    return distances


@dataclass(frozen=True)
class Reducer:
    """A named definition; `reduce` turns surface distances into one length in mm."""

    name: str
    description: str
    reduce: Callable[[SurfaceDistances], float]


def hausdorff(distances: SurfaceDistances) -> float:
    """Return the largest distance of either direction, in mm."""
    return float(max(distances.ref_to_pred_mm.max(), distances.pred_to_ref_mm.max()))


def hausdorff95_pooled(distances: SurfaceDistances) -> float:
    """Return the 95th percentile of both directions' distances taken together, in mm."""
    both = np.concatenate([distances.ref_to_pred_mm, distances.pred_to_ref_mm])
    return float(np.percentile(both, 95))


def hausdorff95_directed(distances: SurfaceDistances) -> float:
    """Return the larger of the two directions' 95th percentiles (interpolated), in mm."""
    return float(max(np.percentile(distances.ref_to_pred_mm, 95),
                     np.percentile(distances.pred_to_ref_mm, 95)))


def hausdorff95_directed_lower(distances: SurfaceDistances) -> float:
    """Return the larger of the two directions' distances at rank `int(0.95 (n - 1))`, in mm."""
    return float(max(_lower_rank(distances.ref_to_pred_mm), _lower_rank(distances.pred_to_ref_mm)))


def average_distance_symmetric(distances: SurfaceDistances) -> float:
    """Return the mean of the two directions' mean distances, in mm."""
    return float(0.5 * (distances.ref_to_pred_mm.mean() + distances.pred_to_ref_mm.mean()))


def average_distance_pooled(distances: SurfaceDistances) -> float:
    """Return the mean of both directions' distances taken together, in mm."""
    total = distances.ref_to_pred_mm.sum() + distances.pred_to_ref_mm.sum()
    return float(total / (distances.ref_to_pred_mm.size + distances.pred_to_ref_mm.size))


def _lower_rank(distances_mm: np.ndarray) -> float:
    rank = int(0.95 * (distances_mm.size - 1))
    return float(np.partition(distances_mm, rank)[rank])


REDUCERS: dict[str, Reducer] = {
    reducer.name: reducer for reducer in (
        Reducer("hausdorff", "largest surface distance of either direction", hausdorff),
        Reducer("hausdorff95_pooled",
                "95th percentile of both directions' surface distances together",
                hausdorff95_pooled),
        Reducer("hausdorff95_directed",
                "larger of the two directions' 95th percentiles, linear interpolation",
                hausdorff95_directed),
        Reducer("hausdorff95_directed_lower",
                "larger of the two directions' distances at rank int(0.95 (n - 1))",
                hausdorff95_directed_lower),
        Reducer("average_distance_symmetric",
                "mean of the two directions' mean surface distances",
                average_distance_symmetric),
        Reducer("average_distance_pooled",
                "mean of both directions' surface distances together",
                average_distance_pooled),
    )
}
