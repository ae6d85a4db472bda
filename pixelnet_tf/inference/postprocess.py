"""Clean-up of a predicted label volume; every step is off until the configuration asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pixelnet_tf.config import PostprocessConfig, StudyConfig
from pixelnet_tf.config.sections import ENHANCING, NECROSIS
from pixelnet_tf.volumes.lesions import TOUCHING, number_lesions


def postprocess_labels(
    labels: np.ndarray, brain: np.ndarray | None, study: StudyConfig, config: PostprocessConfig
) -> np.ndarray:
    """Clean a label volume up.

    The steps, in order: background outside the brain; small components of each region, or all but
    the largest one; holes of the lesion; BraTS' rule that very little enhancing tumour is none.
    What is removed or filled takes the label that is most frequent among its neighbours, so that
    an island of enhancing tumour inside edema becomes edema and one outside the lesion becomes
    background.

    Args:
        labels: label values of the study's files (0, 1, 2, 4), uint8 `(x, y, z)`; not changed.
        brain: bool, the same shape; needed by `restrict_to_brain` only.
        study: regions and class names.
        config: which steps are done.

    Returns:
        A new array of the same shape and type.

    Raises:
        ConfigError: a region or class that the study does not have.
        ValueError: `restrict_to_brain` without a brain mask.
    """
    config.check_study(study)
    cleaned = labels.copy()
    if config.restrict_to_brain:
        if brain is None:
            raise ValueError("restrict_to_brain needs a brain mask")
        cleaned[~brain] = 0
    for region, minimum in config.minimum_component.items():
        if minimum > 1:
            _remove_small_components(cleaned, study.regions[region], minimum)
    for region in config.largest_component:
        _remove_small_components(cleaned, study.regions[region], None)
    if config.fill_holes:
        _fill_holes(cleaned)
    if config.small_enhancing_tumour:
        values = {name: value for value, name in study.labels.items()}
        enhancing = cleaned == values[ENHANCING]
        if np.count_nonzero(enhancing) < config.small_enhancing_tumour:
            cleaned[enhancing] = values[NECROSIS]
    return cleaned


def _remove_small_components(labels: np.ndarray, values: Sequence[int], minimum: int | None
                             ) -> None:
    """Remove components of fewer than `minimum` voxels; None: of fewer than the largest has."""
    components, count = number_lesions(np.isin(labels, list(values)))
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    if minimum is None:
        minimum = sizes[1:].max(initial=0)
    # Read neighbours before any change, so that the order of components does not matter.
    before = labels.copy()
    for number, box in enumerate(ndimage.find_objects(components), 1):
        if sizes[number] < minimum:
            _take_neighbours_label(labels, before, components, number, box)


def _fill_holes(labels: np.ndarray) -> None:
    lesion = labels > 0
    # What only faces lead out of is no hole.
    holes, _ = ndimage.label(ndimage.binary_fill_holes(lesion) & ~lesion)
    before = labels.copy()
    for number, box in enumerate(ndimage.find_objects(holes), 1):
        _take_neighbours_label(labels, before, holes, number, box, lesion_only=True)


def _take_neighbours_label(
    labels: np.ndarray, before: np.ndarray, components: np.ndarray, number: int,
    box: tuple[slice, ...], lesion_only: bool = False,
) -> None:
    """Give a component the label most frequent around it, the lower value among equals."""
    around = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    inside = components[around] == number
    ring = ndimage.binary_dilation(inside, TOUCHING) & ~inside
    counts = np.bincount(before[around][ring], minlength=256)
    if lesion_only:
        counts[0] = 0
    labels[around][inside] = np.argmax(counts)
