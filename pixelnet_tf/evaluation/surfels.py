"""Distances between surfaces in which every piece of surface counts by its area.

The definition is that of DeepMind's `surface-distance`, by which BraTS measures Hausdorff95 from
2023 on, and by which Nikolov et al. (2018, arXiv:1809.04430) define the surface Dice. A surface
passes between the voxels' centres: each cube of eight neighbouring voxels that are not all alike
holds a piece of it (a surfel), which lies at the cube's middle and has the area of the contour
through the middles of its edges. Distances are from surfel to surfel.

The measures of `surface.py` count a voxel as one, whatever area it has: they are other definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from pixelnet_tf.volumes.lesions import bounding_box

#: The corners of a cube of eight voxels, (x, y, z) each; corner i is bit i of the cube's code.
_CORNERS = tuple(product((0, 1), repeat=3))
#: What rounding makes of a distance that is a tolerance, or of a share that is a quantile.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SurfelDistances:
    """Distance of every surfel to the other mask's surface, in mm, and its area, in mm².

    float64, one value a surfel, the nearest first.
    """

    ref_to_pred_mm: np.ndarray
    ref_areas_mm2: np.ndarray
    pred_to_ref_mm: np.ndarray
    pred_areas_mm2: np.ndarray


def surfel_distances(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]
                     ) -> SurfelDistances:
    """Measure both directions between two masks, neither of them empty.

    Args:
        reference: bool `(x, y, z)`; what lies outside the array is background.
        prediction: bool, the same shape.
        spacing_mm: voxel size along each axis.

    Raises:
        ValueError: a mask is empty.
    """
    box = bounding_box(reference, prediction)
    spacing = np.asarray(spacing_mm, np.float64)
    areas = np.array(surfel_areas(*(float(side) for side in spacing)))
    codes = [_codes(mask[box]) for mask in (reference, prediction)]
    borders = [(code > 0) & (code < 255) for code in codes]
    if not (borders[0].any() and borders[1].any()):
        raise ValueError("a mask is empty: there is no surface to measure from")
    found = []
    for side in (0, 1):
        distances = _to_nearest(borders[side], borders[1 - side], spacing)
        weights = areas[codes[side][borders[side]]]
        order = np.lexsort((weights, distances))
        found += [distances[order], weights[order]]
    return SurfelDistances(*found)


def hausdorff95_surfels(distances: SurfelDistances) -> float:
    """Return the larger of the two directions' 95th percentiles by area, in mm."""
    return float(max(_quantile(distances.ref_to_pred_mm, distances.ref_areas_mm2),
                     _quantile(distances.pred_to_ref_mm, distances.pred_areas_mm2)))


def surface_dice(distances: SurfelDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies no farther than a tolerance from the other."""
    reach = tolerance_mm * (1 + _ROUNDING)
    near = (distances.ref_areas_mm2[distances.ref_to_pred_mm <= reach].sum()
            + distances.pred_areas_mm2[distances.pred_to_ref_mm <= reach].sum())
    return float(near / (distances.ref_areas_mm2.sum() + distances.pred_areas_mm2.sum()))


@cache
def surfel_areas(x_mm: float, y_mm: float, z_mm: float) -> tuple[float, ...]:
    """Area in mm² of the surfel of each of the 256 codes of a cube, for a voxel size."""
    spacing = np.array([x_mm, y_mm, z_mm])
    contours = [(code, contour) for code in range(256) for contour in _contours(code)]
    areas: list[float] = [0] * 256
    found: dict[int, float] = {}
    # Those of as many vertices at once: one by one, numpy takes longer than a case's scores.
    for length in {len(contour) for _, contour in contours}:
        alike = [place for place, (_, contour) in enumerate(contours) if len(contour) == length]
        found |= zip(alike, _areas(np.array([contours[place][1] for place in alike]), spacing),
                     strict=True)
    for place, (code, _) in enumerate(contours):
        areas[code] += found[place]
    return tuple(areas)


def _codes(mask: np.ndarray) -> np.ndarray:
    """Code of every cube of eight voxels that meets a mask, uint8, one more along each axis."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([length + 1 for length in mask.shape], np.uint8)
    for bit, corner in enumerate(_CORNERS):
        here = tuple(slice(start, start + length) for start, length in
                     zip(corner, codes.shape, strict=True))
        codes |= padded[here] << bit
    return codes


def _to_nearest(start: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm of each place of one grid of surfels to the nearest of the other."""
    places = np.argwhere(start)
    distances = np.zeros(len(places))
    # A place of both surfaces is at distance 0; only the others are worth a search.
    away = ~target[start]
    if away.any():
        tree = cKDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
        distances[away] = tree.query(places[away] * spacing)[0]
    return distances


def _quantile(distances: np.ndarray, areas: np.ndarray) -> float:
    """The first distance up to which 95% of the area lie."""
    share = np.cumsum(areas) / areas.sum()
    place = int(np.searchsorted(share, 0.95 - _ROUNDING))
    return float(distances[min(place, len(distances) - 1)])


def _contours(code: int) -> list[list[tuple[float, ...]]]:
    """The closed contours of a cube, each the middles of edges in order.

    They surround the corners that are fewer, inside or outside; where these meet on a face by its
    diagonal alone, they are kept apart.
    """
    inside = {corner: bool(code >> bit & 1) for bit, corner in enumerate(_CORNERS)}
    few = sum(inside.values()) <= 4
    chosen = {corner for corner, value in inside.items() if value == few}
    following: dict[tuple[float, ...], tuple[float, ...]] = {}
    for ring in _faces():
        for i in range(4):
            if ring[i] in chosen and ring[i - 3] not in chosen:
                # The contour enters the face where the chosen corners end, and runs around them.
                first = i
                while ring[first - 1] in chosen:
                    first -= 1
                following[_middle(ring[i], ring[i - 3])] = _middle(ring[first], ring[first - 1])
    contours = []
    while following:
        place, after = following.popitem()
        contour = [place]
        while after != contour[0]:
            contour.append(after)
            after = following.pop(after)
        contours.append(contour)
    return contours


def _faces() -> Iterator[list[tuple[int, ...]]]:
    """The corners of each face of the cube, in order as seen from outside."""
    for axis in range(3):
        for side in (0, 1):
            ring = []
            for step in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = [0, 0, 0]
                corner[axis] = side
                corner[(axis + 1) % 3], corner[(axis + 2) % 3] = step
                ring.append(tuple(corner))
            yield ring if side else ring[::-1]


def _middle(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[float, ...]:
    return tuple((a + b) / 2 for a, b in zip(one, other, strict=True))


def _areas(contours: np.ndarray, spacing: np.ndarray) -> list[float]:
    """Areas of contours (contour, vertex, 3), each filled by the fan of triangles that is largest
    for cubes.

    A contour of five or six vertices does not lie in a plane: how it is filled makes a difference.
    """
    fans = np.stack([np.roll(contours, -first, axis=1) for first in range(contours.shape[1])], 1)
    widest = np.round(_fan_areas(fans), 6).argmax(axis=1)
    return _fan_areas(fans[np.arange(len(fans)), widest] * spacing).tolist()


def _fan_areas(fans: np.ndarray) -> np.ndarray:
    """Areas (...) of fans of triangles (..., vertex, 3)."""
    sides = fans[..., 1:, :] - fans[..., :1, :]
    triangles = np.linalg.norm(np.cross(sides[..., :-1, :], sides[..., 1:, :]), axis=-1)
    return triangles.sum(axis=-1) / 2
