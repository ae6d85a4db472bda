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
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.normalize import brain_mask
from pixelnet_tf.volumes.raw_volume import RawVolume
from pixelnet_tf.volumes.resample import bring_image


@dataclass(frozen=True, eq=False)
class CaseImage:
    """What is drawn of a case, on the grid of the labels that are drawn over it.

    Attributes:
        image: (x, y, z) float32, any intensities.
        brain: (x, y, z) bool; outside it nothing is shown.
        modality: what the image is.
    """

    image: np.ndarray
    brain: np.ndarray
    modality: str


#: Case and the grid of its labels -> what is drawn of it there; None where there is no such case.
ImageReader = Callable[[str, VolumeGeometry], CaseImage | None]


def image_of(volume: PreparedVolume) -> CaseImage:
    """The first modality of a prepared volume, led back to the grid of its files."""
    return CaseImage(volume.plan.from_slices(volume.images[..., 0]),
                     volume.plan.from_slices(volume.brain), next(iter(volume.normalization)))


def image_reader(data_dir: Path, study: StudyConfig) -> ImageReader:
    """Return a reader of the first modality of a raw or a prepared study.

    The reader raises `DataError`, which names the case, where a file cannot be read, or where the
    image does not lie where the labels lie.

    Raises:
        DataError: the folder is neither.
    """
    data_dir = Path(data_dir)
    if (data_dir / "index.json").is_file():
        return _named(_prepared_reader(data_dir))
    cases = {case.name: case for case in find_cases(data_dir, study, require_segmentation=False)}

    def read(name: str, grid: VolumeGeometry) -> CaseImage | None:
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
        return _on_grid(CaseImage(volumes[0].array, brain, study.modalities[0]), geometry, grid)

    return _named(read)


def _on_grid(shown: CaseImage, geometry: VolumeGeometry, grid: VolumeGeometry) -> CaseImage:
    """Bring what is drawn from its own grid to that of the labels: by the order of the axes alone
    where their voxels coincide, else interpolated."""
    everywhere = np.ones(grid.shape, bool)
    try:
        image, brain = (bring_image(np.asarray(array, np.float32), geometry, grid, everywhere,
                                    keep_zeros=False) for array in (shown.image, shown.brain))
    except DataError:
        raise DataError(
            f"the image does not lie where the labels lie: {geometry.difference(grid)}",
            hint="check the affine of both") from None
    return CaseImage(image, brain > 0.5, shown.modality)


def _named(read: ImageReader) -> ImageReader:
    def read_or_say_which(name: str, grid: VolumeGeometry) -> CaseImage | None:
        try:
            return read(name, grid)
        except DataError as error:
            raise DataError.of(error, case=name) from None

    return read_or_say_which


def _prepared_reader(data_dir: Path) -> ImageReader:
    # TensorFlow takes seconds to start, and a report from raw images does not need it.
    from pixelnet_tf.dataset.prepared import PreparedStudy

    prepared = PreparedStudy.open(data_dir)

    def read(name: str, grid: VolumeGeometry) -> CaseImage | None:
        if name not in prepared.cases:
            return None
        volume = prepared.read_volume(name)
        return _on_grid(image_of(volume), volume.geometry, grid)

    return read
