"""One case: read, corrected, normalised, sliced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import values_to_classes
from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.bias_field import correct_bias_field
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import read_volume
from pixelnet_tf.volumes.normalize import brain_mask, z_score
from pixelnet_tf.volumes.resample import resample
from pixelnet_tf.volumes.slicing import SlicePlan


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A case as the network sees it.

    Attributes:
        name: of the case.
        images: (slice, height, width, channel) float32.
        labels: (slice, height, width) uint8 class indices; None without segmentation.
        brain: (slice, height, width) bool.
        plan: leads slices back to the volume.
        geometry: of the first modality's file.
        normalization: modality -> {mean, std}, in the order of the channels.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    brain: np.ndarray
    plan: SlicePlan
    geometry: VolumeGeometry
    normalization: dict[str, dict[str, float]]


def prepare_case(case: Case, config: Config) -> PreparedVolume:
    """Read a case and do to it all that lies between its files and the network.

    N4, z-score, axial slices, the ISLES rule (paper sections 3.2 and 3.3), as `config.study` and
    `config.prepare` say. The result depends on the files and on those two sections alone.

    Raises:
        DataError: the case lacks a modality, a file cannot be read, or the grids differ while
            `study.resample` is off; the message names the case.
    """
    try:
        return _prepare(case, config)
    except DataError as error:
        raise DataError(f"case {case.name}: {error}") from None


def _prepare(case: Case, config: Config) -> PreparedVolume:
    study, prepare = config.study, config.prepare
    missing = [modality for modality in study.modalities if modality not in case.volumes]
    if missing:
        raise DataError(f"modality {missing[0]!r} is missing; the case has {list(case.volumes)}")
    channels, geometry = None, None
    for number, modality in enumerate(study.modalities):
        path = case.volumes[modality]
        array, own = read_volume(path)
        if geometry is None:
            geometry = own
            channels = np.empty((*array.shape, len(study.modalities)), np.float32)
        channels[..., number] = on_grid(array, own, geometry, study.resample, path)
    labels = None
    if case.segmentation is not None:
        values, own = read_volume(case.segmentation)
        labels = values_to_classes(
            on_grid(values, own, geometry, study.resample, case.segmentation, "nearest"), study)

    mask = brain_mask(channels, study.skull_stripped)
    normalization = {}
    for number, modality in enumerate(study.modalities):
        array = channels[..., number]
        field = prepare.bias_field
        if field.enabled and modality in (field.modalities or study.modalities):
            array = correct_bias_field(array, geometry.spacing_mm, mask, field)
        channels[..., number], mean, std = z_score(array, mask, prepare.region)
        normalization[modality] = {"mean": mean, "std": std}

    plan = SlicePlan(geometry, prepare.slice_size)
    images, brain = plan.to_slices(channels), plan.to_slices(mask, "nearest")
    if prepare.region != "volume":
        # Linear scaling spreads the rim of the brain into the background.
        images[~brain] = 0
    return PreparedVolume(case.name, images,
                          None if labels is None else plan.to_slices(labels, "nearest"),
                          brain, plan, geometry, normalization)


def on_grid(array: np.ndarray, own: VolumeGeometry, first: VolumeGeometry, allowed: bool,
            path: object, order: str = "linear") -> np.ndarray:
    """Return a volume on the first modality's grid, resampled where the study allows it.

    Raises:
        DataError: the grids differ and `allowed` is false; both are named.
    """
    difference = own.difference(first)
    if difference is None:
        return array
    if not allowed:
        raise DataError(f"{path}: not on the grid of the first modality: {difference}; "
                        "set study.resample to true to bring it there")
    return resample(array, own, first, order)
