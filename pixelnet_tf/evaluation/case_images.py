"""The picture under an overlay: one modality of a case and its brain, raw or as it was prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import Register, StudyConfig
from pixelnet_tf.config.sections import BRAIN_MASK
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.case_volume import PreparedVolume, image_on_grid, mask_on_grid
from pixelnet_tf.volumes.normalize import brain_mask
from pixelnet_tf.volumes.raw_volume import RawVolume


@dataclass(frozen=True, eq=False)
class CaseImage:
    """What is drawn of a case, on the grid of its first modality.

    Attributes:
        image: (x, y, z) float32, any intensities.
        brain: (x, y, z) bool; outside it nothing is shown.
        modality: what the image is.
    """

    image: np.ndarray
    brain: np.ndarray
    modality: str


#: Case -> what is drawn of it, or None where there is no such case.
ImageReader = Callable[[str], CaseImage | None]


def image_of(volume: PreparedVolume) -> CaseImage:
    """The first modality of a prepared volume, led back to the grid of its files."""
    return CaseImage(volume.plan.from_slices(volume.images[..., 0]),
                     volume.plan.from_slices(volume.brain), next(iter(volume.normalization)))


def image_reader(data_dir: Path, study: StudyConfig) -> ImageReader:
    """Return a reader of the first modality of a raw or a prepared study.

    Raises:
        DataError: the folder is neither.
    """
    data_dir = Path(data_dir)
    if (data_dir / "index.json").is_file():
        return _prepared_reader(data_dir)
    cases = {case.name: case for case in find_cases(data_dir, study, require_segmentation=False)}

    def read(name: str) -> CaseImage | None:
        case = cases.get(name)
        if case is None or study.modalities[0] not in case.volumes:
            return None
        # Of images that are registered the first one alone lies in place.
        modalities = study.modalities[:1 if study.register == Register.RIGID else None]
        volumes = [RawVolume.read(case.volumes[modality]) for modality in modalities
                   if modality in case.volumes]
        geometry = volumes[0].geometry
        # The mask of the training: the case's own, or one that takes every modality.
        if BRAIN_MASK in case.volumes and study.has_brain_mask:
            brain = mask_on_grid(RawVolume.read(case.volumes[BRAIN_MASK]), geometry, study)
        else:
            brain = geometry.from_view(brain_mask(
                np.stack([geometry.to_view(image_on_grid(volume, volumes[0], study))
                          for volume in volumes], axis=-1), study.skull_stripped))
        return CaseImage(volumes[0].array, brain, study.modalities[0])

    return read


def _prepared_reader(data_dir: Path) -> ImageReader:
    # TensorFlow takes seconds to start, and a report from raw images does not need it.
    from pixelnet_tf.dataset.prepared import PreparedStudy

    prepared = PreparedStudy.open(data_dir)

    def read(name: str) -> CaseImage | None:
        if name not in prepared.cases:
            return None
        try:
            return image_of(prepared.read_volume(name))
        except DataError as error:
            raise DataError.of(error, case=name) from None

    return read
