"""A case to compressed slices; runs in worker processes, so nothing here imports TensorFlow."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import IGNORED
from pixelnet_tf.config import PLANES, PrepareConfig, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.ahead import ahead
from pixelnet_tf.io.processor import own_cores
from pixelnet_tf.volumes.case_volume import PreparedVolume, prepare_case

#: Float images hardly shrink further at higher levels, and level 1 keeps reading fast.
_LEVEL = 1


@dataclass(frozen=True)
class EncodedSlice:
    """One slice: its arrays as zlib streams, and what the index keeps of it.

    Attributes:
        image: (height, width, channel) float32, little-endian.
        labels: (height, width) uint8 class indices, `IGNORED` where nobody has judged; zeros
            without segmentation.
        brain: (height, width) uint8, 0 or 1.
        class_counts: pixels of each class; zeros without segmentation.
        brain_fraction: part of the pixels that is brain, without those that nobody has judged:
            what background may be drawn from.
        plane, number: where the slice lies in the volume (`SlicePlan`).
    """

    height: int
    width: int
    image: bytes
    labels: bytes
    brain: bytes
    class_counts: tuple[int, ...]
    brain_fraction: float
    plane: str = PLANES[0]
    number: int = 0


@dataclass(frozen=True)
class EncodedCase:
    """A prepared case, ready to be written; `details` is what its JSON file holds of it."""

    name: str
    slices: tuple[EncodedSlice, ...]
    details: dict[str, Any]


def encode_case(case: Case, study: StudyConfig, prepare: PrepareConfig,
                planes: Sequence[str] = PLANES[:1]) -> EncodedCase:
    """Prepare a case and compress its slices, plane by plane; raises as `prepare_case` and
    `PreparedVolume.in_plane`."""
    volume = prepare_case(case, study, prepare)
    slices = [each for plane in planes
              for each in encode_slices(volume.in_plane(plane), len(study.labels), plane)]
    return EncodedCase(case.name, tuple(slices), {
        "case": case.name,
        "smir_id": case.smir_id,
        "labelled": volume.labels is not None,
        "geometry": volume.geometry.to_json(),
        "normalization": volume.normalization,
        "grids": {modality: grid.to_json() for modality, grid in volume.grids.items()},
    })


def encode_or_say_why(case: Case, study: StudyConfig, prepare: PrepareConfig,
                      planes: Sequence[str] = PLANES[:1]) -> EncodedCase | DataError:
    """As `encode_case`; what is wrong with the case is returned, not raised."""
    try:
        return encode_case(case, study, prepare, planes)
    except DataError as error:
        return error


def encode_slices(volume: PreparedVolume, classes: int, plane: str = PLANES[0]
                  ) -> tuple[EncodedSlice, ...]:
    """Compress the slices of a prepared volume, in their order."""
    def encode(number: int) -> EncodedSlice:
        image, brain = volume.images[number], volume.brain[number]
        labels, counts = np.zeros(brain.shape, np.uint8), np.zeros(classes, np.int64)
        if volume.labels is not None:
            labels = volume.labels[number]
            counts = np.bincount(labels.ravel(), minlength=classes)[:classes]
        height, width = brain.shape
        return EncodedSlice(
            height, width, _compress(image.astype("<f4")), _compress(labels),
            _compress(brain.astype(np.uint8)), tuple(int(n) for n in counts),
            float((brain & (labels != IGNORED)).mean()), plane, number)

    return tuple(ahead(encode, range(len(volume.images)), own_cores()))


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decompress one array of a slice."""
    return np.frombuffer(zlib.decompress(data), dtype).reshape(shape)


def _compress(array: np.ndarray) -> bytes:
    return zlib.compress(np.ascontiguousarray(array).tobytes(), _LEVEL)
