"""The picture under an overlay: one modality of a case, raw or as it was prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.nifti import read_volume

#: Case -> image `(x, y, z)` float32 on the grid of the case, or None where there is none.
ImageReader = Callable[[str], np.ndarray | None]


def image_reader(data_dir: Path, study: StudyConfig) -> ImageReader:
    """Return a reader of the first modality of a raw or a prepared study.

    Raises:
        DataError: the folder is neither.
    """
    data_dir = Path(data_dir)
    if (data_dir / "index.json").is_file():
        return _prepared_reader(data_dir)
    cases = {case.name: case for case in find_cases(data_dir, study, require_segmentation=False)}

    def read(name: str) -> np.ndarray | None:
        case = cases.get(name)
        path = case.volumes.get(study.modalities[0]) if case else None
        return read_volume(path)[0] if path else None

    return read


def _prepared_reader(data_dir: Path) -> ImageReader:
    # TensorFlow takes seconds to start, and a report from raw images does not need it.
    from pixelnet_tf.dataset.prepared import PreparedStudy

    prepared = PreparedStudy.open(data_dir)

    def read(name: str) -> np.ndarray | None:
        if name not in prepared.cases:
            return None
        try:
            volume = prepared.read_volume(name)
        except DataError as error:
            raise DataError(f"case {name!r}: {error}") from None
        return volume.plan.from_slices(volume.images[..., 0])

    return read
