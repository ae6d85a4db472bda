"""A synthetic head: where brain, white matter, grey matter and fluid are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Centre and semi-axes in mm, along left, posterior, superior; a pair stands for both sides.
_VENTRICLES = (((9, -4, 11), (4, 23, 5)), ((11, -24, 7), (5, 10, 8)), ((19, 27, 5), (6, 16, 6)),
               ((24, 16, -6), (4, 12, 5)))
_THIRD_VENTRICLE = ((0, 2, -3), (2.0, 12, 8))
_DEEP_GREY = (((10, 9, 0), (8, 13, 8)), ((14, -13, 6), (5, 12, 7)), ((26, -5, -1), (6, 16, 9)))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissue of a head on a grid; arrays are (x, y, z), axes run left, posterior, superior.

    Attributes:
        spacing_mm: voxel side.
        position_mm: (3, x, y, z) float32, from the middle of the head.
        brain: bool.
        white, grey, deep, fluid: float32 in [0, 1], parts of each brain voxel; they sum to 1.
        rim: float32 in [0, 1], the white matter that touches the ventricles.
    """

    spacing_mm: tuple[float, float, float]
    position_mm: np.ndarray
    brain: np.ndarray
    white: np.ndarray
    grey: np.ndarray
    deep: np.ndarray
    fluid: np.ndarray
    rim: np.ndarray


def grid_mm(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return positions (3, x, y, z) float32 in mm, 0 in the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int],
                 spacing_mm: tuple[float, float, float], scale_mm: float) -> np.ndarray:
    """Draw a random field (x, y, z) float32 of mean 0, standard deviation 1 and one length."""
    sigma = [scale_mm / s for s in spacing_mm]
    # Drawn beyond the edges, so that the field does not flatten there; on a coarser lattice where
    # the length allows it, which costs nothing that could be seen.
    step = [max(1, int(s / 3)) for s in sigma]
    margin = [int(np.ceil(2 * s / k)) for s, k in zip(sigma, step, strict=True)]
    coarse = [n // k + 2 + 2 * m for n, k, m in zip(shape, step, margin, strict=True)]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse).astype(np.float32),
                                    [s / k for s, k in zip(sigma, step, strict=True)])
    for axis, (n, k, m) in enumerate(zip(shape, step, margin, strict=True)):
        at = m + np.arange(n) / k
        low = at.astype(int)
        part = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        field = (np.take(field, low, axis) * (1 - part) + np.take(field, low + 1, axis) * part)
    return (field - field.mean()) / field.std()


def soft(distance_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """Turn a signed distance (positive inside) into a part between 0 and 1."""
    return 1 / (1 + np.exp(-np.clip(4 * distance_mm / width_mm, -30, 30)))


def draw_anatomy(rng: np.random.Generator, shape: tuple[int, int, int],
                 spacing_mm: tuple[float, float, float], mass_mm: np.ndarray | None = None,
                 mass_radius_mm: float = 0.0) -> Anatomy:
    """Draw a head; a mass at `mass_mm` of `mass_radius_mm` pushes its surroundings aside."""
    def field(scale_mm: float) -> np.ndarray:
        return smooth_field(rng, shape, spacing_mm, scale_mm)

    position = grid_mm(shape, spacing_mm)
    size = rng.uniform(0.95, 1.05, (3, 1, 1, 1)).astype(np.float32)
    place = position / size + 2.0 * np.stack([field(22), field(22), field(22)])
    brain = _brain(place, 0.02 * field(14))
    inner = place
    if mass_mm is not None:
        arm = place - mass_mm.reshape(3, 1, 1, 1)
        inner = place - arm * 0.35 * np.exp(-(arm ** 2).sum(0) / (1.3 * mass_radius_mm) ** 2)
    depth = ndimage.distance_transform_edt(brain, sampling=spacing_mm).astype(np.float32)

    # Sulci are the zero surfaces of a field of a gyrus' width, down to some depth, and the cleft
    # between the hemispheres; the cortex follows them.
    fold = field(4.5)
    slope = np.sqrt(sum(g ** 2 for g in np.gradient(fold, *spacing_mm))) + 0.03
    to_sulcus = np.abs(fold) / slope + np.maximum(0, depth - 17 - 4 * field(16)) * 1.5
    cleft = np.abs(place[0] + 1.5 * field(20)) + 60 * soft(26 - depth - place[2] * 0.2, 4) * (
        depth > 26) + np.maximum(0, -place[2] - 10)
    to_fluid = np.minimum(np.minimum(to_sulcus, cleft), depth)
    grey = soft(3.4 - to_fluid, 2.0)
    fluid = np.maximum(soft(0.9 - np.minimum(to_sulcus, cleft), 1.2), 0.8 * soft(1.0 - depth, 1.5))

    widen = rng.uniform(0.9, 1.25)
    ventricles = np.max([_ellipsoid(inner, c, [widen * r for r in radii], both=True)
                         for c, radii in _VENTRICLES]
                        + [_ellipsoid(inner, *_THIRD_VENTRICLE)], axis=0)
    deep = np.max([_ellipsoid(inner, c, radii, both=True) for c, radii in _DEEP_GREY], axis=0)
    fluid = np.maximum(fluid, soft(ventricles, 2.0)) * brain
    deep = soft(deep, 3.0) * (1 - fluid) * brain
    grey = grey * (1 - fluid - deep) * brain
    white = (1 - fluid - deep - grey) * brain
    rim = soft(ventricles + 3, 2.5) * white
    return Anatomy(spacing_mm, position, brain, white, grey, deep, fluid, rim)


def _brain(place: np.ndarray, ripple: np.ndarray) -> np.ndarray:
    """Cerebrum, flatter below, with temporal lobes, cerebellum and brain stem."""
    x, y, z = place
    # The frontal pole is narrower than the back.
    width = 67 * (1 - 0.10 * np.clip(-y / 85, 0, 1) ** 2)
    height = np.where(z > 0, 64, 42)
    cerebrum = np.sqrt((x / width) ** 2 + (y / 84) ** 2 + (z / height) ** 2)
    temporal = np.sqrt(((np.abs(x) - 38) / 22) ** 2 + ((y + 4) / 36) ** 2 + ((z + 26) / 22) ** 2)
    cerebellum = np.sqrt((x / 48) ** 2 + ((y - 42) / 30) ** 2 + ((z + 42) / 22) ** 2)
    stem = np.sqrt((x / 13) ** 2 + ((y - 14) / 14) ** 2 + ((z + 44) / 24) ** 2)
    return np.min([cerebrum, temporal, cerebellum, stem], axis=0) + ripple < 1


def _ellipsoid(place: np.ndarray, centre: tuple, radii: tuple | list, both: bool = False
               ) -> np.ndarray:
    """Signed distance, roughly in mm, positive inside; `both` mirrors it to the other side."""
    x = np.abs(place[0]) if both else place[0]
    r = np.sqrt(sum(((p - c) / s) ** 2
                    for p, c, s in zip((x, place[1], place[2]), centre, radii, strict=True)))
    return (1 - r) * min(radii)
