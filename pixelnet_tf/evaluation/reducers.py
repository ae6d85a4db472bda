"""One number from the surface distances of a pair of masks, each definition under its own name.

"Hausdorff95" is not one number: the three definitions here are all in use and differ. Whatever the
project prints carries the name of the one that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixelnet_tf.evaluation.surface import SurfaceDistances


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
