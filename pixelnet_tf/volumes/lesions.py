"""Lesions of a segmentation, one by one: connected components of a region.

Voxels that share a face, an edge or a corner are of one lesion (26 neighbours). Whatever counts,
lists or cleans up lesions takes this rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import entr

from pixelnet_tf.config import StudyConfig

#: Voxels that touch, by a face, an edge or a corner.
TOUCHING = np.ones((3, 3, 3), bool)


def number_lesions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the lesions of a mask, bool (x, y, z).

    Returns:
        int32 of the same shape, 0 outside every lesion, and how many lesions there are.
    """
    return ndimage.label(mask, TOUCHING)


def bounding_box(*volumes: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around all non-zero voxels of the volumes (empty: no voxel)."""
    box = []
    for axis in range(volumes[0].ndim):
        others = tuple(a for a in range(volumes[0].ndim) if a != axis)
        used = np.zeros(volumes[0].shape[axis], bool)
        for volume in volumes:
            used |= volume.any(axis=others)
        where = np.flatnonzero(used)
        box.append(slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0))
    return tuple(box)


def entropy(probabilities: np.ndarray, by_region: bool = False) -> np.ndarray:
    """Entropy of distributions over the classes, in nats.

    It is 0 where one class is certain and log(classes) where all are equally probable.

    Args:
        probabilities: (..., class).
        by_region: they are those of overlapping regions, (..., region): the mean of the entropies
            of being in each of them or not, at most log(2).

    Returns:
        float32 (...).
    """
    if by_region:
        return (entr(probabilities) + entr(1 - probabilities)).mean(axis=-1).astype(np.float32)
    return entr(probabilities).sum(axis=-1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class LesionVoxels:
    """What a network said of the voxels of a volume whose label is no background.

    Attributes:
        probabilities: (voxel, class) float32, the voxels in the order of `labels[labels > 0]`.
        entropy: (voxel,) float32 in nats; None where it is unknown.
        by_region: the probabilities are those of the study's regions, (voxel, region).
    """

    probabilities: np.ndarray
    entropy: np.ndarray | None
    by_region: bool = False

    @classmethod
    def of(cls, labels: np.ndarray, probabilities: np.ndarray | None,
           entropy_map: np.ndarray | None, by_region: bool = False) -> LesionVoxels | None:
        """Take them out of whole volumes, (x, y, z, class) and (x, y, z); None without any."""
        if probabilities is None:
            return None
        inside = labels > 0
        return cls(probabilities[inside], None if entropy_map is None else entropy_map[inside],
                   by_region)


@dataclass(frozen=True)
class Lesion:
    """One lesion of one region.

    Attributes:
        region: its name.
        number: 1 for the largest of the region; lesions of one size in the order of the voxels.
        volume_ml: its volume in millilitres.
        centroid_mm: mean place of its voxels, along R, A and S of the scanner.
        touches_border: whether a voxel of it is the outermost one of the image along some axis, so
            that a part of the lesion may lie outside.
        mean_probability: mean probability of the region over its voxels; None where it is unknown.
        mean_entropy: mean entropy of the class probabilities over its voxels, in nats; None where
            it is unknown.
    """

    region: str
    number: int
    volume_ml: float
    centroid_mm: tuple[float, float, float]
    touches_border: bool
    mean_probability: float | None = None
    mean_entropy: float | None = None


def list_lesions(labels: np.ndarray, affine: np.ndarray, study: StudyConfig,
                 voxels: LesionVoxels | None = None) -> list[Lesion]:
    """List every lesion of every region, the regions in their order, the largest lesion first.

    Args:
        labels: label values, uint8 (x, y, z).
        affine: (4, 4), voxel index to mm along R, A, S.
        study: its labels and regions.
        voxels: what the network said of the voxels that are no background.
    """
    # A crop serves: what is said of the voxels stays in their order.
    box = bounding_box(labels)
    crop = labels[box]
    return [lesion for region, values in study.regions.items()
            for lesion in _of_region(crop, box, labels.shape, affine, region,
                                     [value for value in values if value], study, voxels)]


def _of_region(crop: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...],
               affine: np.ndarray, region: str, values: Sequence[int], study: StudyConfig,
               voxels: LesionVoxels | None) -> Iterator[Lesion]:
    mask = np.isin(crop, values)
    numbers, count = number_lesions(mask)
    if not count:
        return
    lesion = numbers[mask] - 1
    places = [axis + span.start for axis, span in zip(np.nonzero(mask), box, strict=True)]
    sizes = np.bincount(lesion, minlength=count)

    def mean(per_voxel: np.ndarray) -> np.ndarray:
        return np.bincount(lesion, np.asarray(per_voxel, np.float64), count) / sizes

    centres = np.stack([mean(axis) for axis in places], axis=-1)
    centroids = centres @ affine[:3, :3].T + affine[:3, 3]
    outermost = np.any([(axis == 0) | (axis == length - 1)
                        for axis, length in zip(places, shape, strict=True)], axis=0)
    touching = np.bincount(lesion, outermost, count) > 0
    said: dict[str, np.ndarray] = {}
    if voxels is not None:
        chosen = ([list(study.regions).index(region)] if voxels.by_region else
                  [index for index, value in enumerate(study.label_values) if value in values])
        inside = mask[crop > 0]
        said["mean_probability"] = mean(voxels.probabilities[inside][:, chosen].sum(axis=-1))
        if voxels.entropy is not None:
            said["mean_entropy"] = mean(voxels.entropy[inside])
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    for place, index in enumerate(np.argsort(-sizes, kind="stable"), start=1):
        x, y, z = (float(along) for along in centroids[index])
        yield Lesion(region, place, float(sizes[index] * voxel_ml), (x, y, z),
                     bool(touching[index]),
                     **{key: float(found[index]) for key, found in said.items()})
