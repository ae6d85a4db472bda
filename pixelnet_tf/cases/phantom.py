"""Synthetic cases with known truth: BraTS-like tumours and ISLES-like strokes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Part of the signal of (white, grey, deep grey, fluid, necrosis, edema, enhancing).
_BRATS_CONTRAST = {
    "t1": (1.00, 0.74, 0.84, 0.30, 0.46, 0.70, 0.72),
    "t1ce": (1.00, 0.75, 0.84, 0.31, 0.45, 0.71, 1.45),
    "t2": (0.42, 0.60, 0.50, 1.05, 0.92, 0.84, 0.70),
    "flair": (0.50, 0.66, 0.58, 0.16, 0.55, 1.00, 0.84),
}
#: Of (white, grey, deep grey, fluid, infarct, low perfusion): DWI in parts of its brightest
#: tissue, ADC in 1e-6 mm2/s, CBF in ml per 100 g and minute.
_ISLES_CONTRAST = {
    "dwi": (0.52, 0.62, 0.58, 0.20, 1.05, 0.60),
    "adc": (740, 830, 780, 2900, 430, 760),
    "cbf": (23, 58, 50, 3, 6, 17),
}

#: Millimetres that the grid covers, along left, posterior, superior.
FIELD_OF_VIEW_MM = (200.0, 200.0, 144.0)

#: Centre and semi-axes in mm, along left, posterior, superior; a pair stands for both sides.
_VENTRICLES = (((9, -4, 11), (4, 23, 5)), ((11, -24, 7), (5, 10, 8)), ((19, 27, 5), (6, 16, 6)),
               ((24, 16, -6), (4, 12, 5)))
_THIRD_VENTRICLE = ((0, 2, -3), (2.0, 12, 8))
_DEEP_GREY = (((10, 9, 0), (8, 13, 8)), ((14, -13, 6), (5, 12, 7)), ((26, -5, -1), (6, 16, 9)))


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A drawn case.

    Attributes:
        volumes: modality -> (x, y, z) int16; axes run left, posterior, superior.
        labels: (x, y, z) uint8, the challenge's label values.
        spacing_mm: voxel side.
    """

    volumes: dict[str, np.ndarray]
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]


def draw_brats_case(seed: int, number: int, shape: tuple[int, int, int]) -> PhantomCase:
    """Draw a skull-stripped brain with a tumour: 1 necrosis, 2 edema, 4 enhancing.

    An irregular necrosis lies in a broken enhancing rim, that in edema which follows the white
    matter. Bright spots and rims of healthy ageing, and vessels that take up contrast, are
    there to be told from it. The draw depends on the arguments alone.
    """
    rng = np.random.default_rng([seed, number, 1])
    spacing = _spacing(shape)
    side = rng.choice((-1, 1))
    centre = np.array([side * rng.uniform(22, 38), rng.uniform(-38, 38), rng.uniform(0, 26)],
                      np.float32)
    core_mm = rng.uniform(12, 19)
    anatomy = draw_anatomy(rng, shape, spacing, centre, core_mm)
    necrosis, edema, enhancing = _tumour(rng, anatomy, centre, core_mm)
    labels = np.zeros(shape, np.uint8)
    for label, part in ((2, edema), (4, enhancing), (1, necrosis)):
        labels[part > 0.5] = label
    labels[~anatomy.brain] = 0

    spots = _spots(rng, anatomy)
    vessels = _vessels(rng, anatomy)
    texture = smooth_field(rng, shape, spacing, 5)
    volumes = {}
    for modality, contrast in _BRATS_CONTRAST.items():
        signal = _mix(anatomy, contrast)
        for part, value in ((edema, contrast[5]), (enhancing, contrast[6]),
                            (necrosis, contrast[4])):
            signal = signal * (1 - part) + value * (1 + 0.07 * texture) * part
        if modality in ("flair", "t2"):
            signal += (contrast[5] - contrast[0]) * 0.8 * np.maximum(spots, 0.7 * anatomy.rim) * (
                1 - np.maximum(np.maximum(edema, enhancing), necrosis))
        if modality == "t1ce":
            signal += 0.7 * vessels
        volumes[modality] = _acquire(rng, anatomy, signal, noise=0.028,
                                     scale=rng.uniform(350, 900)) * anatomy.brain
    return PhantomCase(volumes, labels, spacing)


def draw_isles_case(seed: int, number: int, shape: tuple[int, int, int]) -> PhantomCase:
    """Draw a head with an infarct (1): bright in DWI, dark in ADC, in a wider field of low CBF.

    DWI shows the scalp, as scans that are not skull-stripped do. The draw depends on the
    arguments alone.
    """
    rng = np.random.default_rng([seed, number, 2])
    spacing = _spacing(shape)
    anatomy = draw_anatomy(rng, shape, spacing)
    infarct, penumbra = _stroke(rng, anatomy)
    # Experts draw an infarct as one area, over the sulci in it.
    area = ndimage.binary_closing(infarct > 0.5, np.ones((5, 5, 1), bool))
    labels = (area & anatomy.brain).astype(np.uint8)
    scalp_mm = ndimage.distance_transform_edt(~anatomy.brain, sampling=spacing)
    scalp = soft(2.5 - np.abs(scalp_mm - 9), 2) * ~anatomy.brain
    volumes = {}
    for modality, contrast in _ISLES_CONTRAST.items():
        signal = _mix(anatomy, contrast)
        for part, value in ((penumbra, contrast[5]), (infarct, contrast[4])):
            signal = signal * (1 - part) + value * part
        if modality == "dwi":
            volumes[modality] = _acquire(rng, anatomy, signal + 0.3 * scalp, noise=0.03, scale=600)
        else:
            noise = 0.06 * contrast[1] * smooth_field(rng, shape, spacing, 2)
            volumes[modality] = (np.clip(signal + noise, 1, None) * anatomy.brain).astype(np.int16)
    return PhantomCase(volumes, labels, spacing)


def _spacing(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    # In plane the voxels are square: a grid that is not square covers less of the shorter side.
    in_plane = max(side / n for side, n in zip(FIELD_OF_VIEW_MM[:2], shape[:2], strict=True))
    return (in_plane, in_plane, FIELD_OF_VIEW_MM[2] / shape[2])


def _tumour(rng: np.random.Generator, anatomy: Anatomy, centre: np.ndarray, core_mm: float
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts in [0, 1] of necrosis, edema and enhancing tumour in each voxel."""
    shape, spacing = anatomy.brain.shape, anatomy.spacing_mm
    stretch = rng.uniform(0.85, 1.15, (3, 1, 1, 1))
    arm = (anatomy.position_mm - centre.reshape(3, 1, 1, 1)) * stretch
    radius = np.sqrt((arm ** 2).sum(0))
    lobes = smooth_field(rng, shape, spacing, 9)
    core = core_mm * (1 + 0.16 * lobes) - radius
    rim_mm = np.clip(rng.uniform(4.0, 6.0) * (1 + 0.45 * smooth_field(rng, shape, spacing, 8)),
                     0.5, 8.0)
    spread = core_mm + rng.uniform(12, 20)
    fingers = 0.20 * smooth_field(rng, shape, spacing, 10) + 0.10 * lobes
    # Edema runs along the white matter and stops at cortex and ventricles.
    halo = spread * (1 + fingers) - radius - 9 * np.clip(anatomy.grey + anatomy.deep, 0, 1)
    solid = anatomy.brain * (1 - 0.98 * soft(anatomy.fluid - 0.5, 0.3) * (core < 0))
    edema = soft(halo, 3.0) * solid
    tumour = soft(core, 2.0) * anatomy.brain
    necrosis = soft(core - rim_mm, 2.0) * tumour
    return necrosis, np.maximum(edema, tumour), tumour


def _stroke(rng: np.random.Generator, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Parts in [0, 1] of infarct and of low perfusion: a wedge of one middle cerebral artery."""
    shape, spacing = anatomy.brain.shape, anatomy.spacing_mm
    side = rng.choice((-1, 1))
    centre = np.array([side * rng.uniform(34, 48), rng.uniform(-20, 22), rng.uniform(-2, 26)])
    arm = anatomy.position_mm - centre.reshape(3, 1, 1, 1)
    # Wider towards the surface, as the territory is.
    outward = np.clip(side * arm[0] / 30, -1, 1)
    radius = np.sqrt((arm[0] / 1.3) ** 2 + arm[1] ** 2 + arm[2] ** 2) / (1 + 0.35 * outward)
    lobes = smooth_field(rng, shape, spacing, 8)
    size = rng.uniform(11, 20)
    tissue = (1 - soft(anatomy.fluid - 0.5, 0.3)) * anatomy.brain
    return (soft(size * (1 + 0.25 * lobes) - radius, 3) * tissue,
            soft(size * (1.7 + 0.25 * lobes) - radius, 5) * tissue)


def _spots(rng: np.random.Generator, anatomy: Anatomy) -> np.ndarray:
    """Small bright foci of the white matter, as age brings them."""
    field = smooth_field(rng, anatomy.brain.shape, anatomy.spacing_mm, 3)
    return soft((field - rng.uniform(2.6, 3.2)) * 4, 2) * anatomy.white


def _vessels(rng: np.random.Generator, anatomy: Anatomy) -> np.ndarray:
    """Thin lines: where the zero surfaces of two fields meet, near the surface."""
    one, other = (smooth_field(rng, anatomy.brain.shape, anatomy.spacing_mm, 9) for _ in range(2))
    line = soft(0.22 - np.hypot(one, other), 0.15)
    return line * np.clip(anatomy.grey + anatomy.fluid, 0, 1)


def _mix(anatomy: Anatomy, contrast: tuple[float, ...]) -> np.ndarray:
    parts = (anatomy.white, anatomy.grey, anatomy.deep, anatomy.fluid)
    return sum((part * value for part, value in zip(parts, contrast, strict=False)),
               start=np.zeros_like(anatomy.white))


def _acquire(rng: np.random.Generator, anatomy: Anatomy, signal: np.ndarray, noise: float,
             scale: float) -> np.ndarray:
    """Smooth bias field, partial volume and Rician noise; int16, at least 1."""
    shape = anatomy.brain.shape
    bias = np.exp(0.13 * smooth_field(rng, shape, anatomy.spacing_mm, 60))
    blurred = ndimage.gaussian_filter(signal, 0.45) * bias
    real = blurred + noise * rng.standard_normal(shape)
    return np.clip(scale * np.hypot(real, noise * rng.standard_normal(shape)), 1, 32767
                   ).astype(np.int16)


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
