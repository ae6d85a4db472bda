"""Label values of a study's files to class indices, and back."""

from __future__ import annotations

import numpy as np

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError


def unknown_values(array: np.ndarray, study: StudyConfig) -> list[float]:
    """Return the values of a label array, in order, that `study.labels` does not name."""
    present = np.unique(array)
    return [float(value) for value in present[~np.isin(present, study.label_values)]]


def values_to_classes(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn label values into class indices, uint8, of the same shape.

    Args:
        array: label values of any shape; of any type, as long as the values are whole.

    Raises:
        DataError: a value that `study.labels` does not name.
    """
    if unknown := unknown_values(array, study):
        raise DataError(f"label {unknown[0]:g} is unknown; study.labels names "
                        f"{list(study.label_values)}")
    table = np.zeros(256, np.uint8)
    table[list(study.label_values)] = np.arange(len(study.labels))
    return table[array.astype(np.uint8)]


def classes_to_values(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn class indices into the study's label values, uint8, of the same shape.

    Raises:
        DataError: an index that the study has no class for.
    """
    if array.size and not 0 <= array.min() <= array.max() < len(study.labels):
        raise DataError(f"class index {array.max()} is unknown; the study has "
                        f"{len(study.labels)} classes")
    return np.asarray(study.label_values, np.uint8)[array]
