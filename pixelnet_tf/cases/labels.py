"""Label values of a study's files to class indices, and back."""

from __future__ import annotations

import numpy as np

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError

#: A label that was stored as a fraction (after scaling or resampling) may be off by this much.
_ROUNDING = 1e-3


def whole_values(array: np.ndarray) -> np.ndarray:
    """Round the values of a label array that are whole but for rounding; others stay as they are.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return array
    nearest = np.round(array)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(array - nearest) <= _ROUNDING, nearest, array)


def unknown_values(array: np.ndarray, study: StudyConfig) -> list[float]:
    """Return the values of a label array, in order, that `study.labels` does not name.

    A value that is whole but for rounding counts as whole.
    """
    present = np.unique(whole_values(array))
    return [float(value) for value in present[~np.isin(present, study.label_values)]]


def values_to_classes(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn label values into class indices, uint8, of the same shape.

    Args:
        array: label values of any shape; of any type, as long as the values are whole.

    Raises:
        DataError: a value that `study.labels` does not name.
    """
    if unknown := unknown_values(array, study):
        raise DataError(f"unknown label {', '.join(map(label_text, unknown[:5]))}; study.labels "
                        f"names {list(study.label_values)}",
                        value=unknown[0], hint="add it there or correct the file")
    table = np.zeros(256, np.uint8)
    table[list(study.label_values)] = np.arange(len(study.labels))
    return table[whole_values(array).astype(np.uint8)]


def label_text(value: float) -> str:
    """A label value as a reader can tell it from others: whole ones without a point, exactly."""
    return str(int(value)) if np.isfinite(value) and value == int(value) else repr(value)


def classes_to_values(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn class indices into the study's label values, uint8, of the same shape.

    Raises:
        DataError: an index that the study has no class for.
    """
    if array.size and not 0 <= array.min() <= array.max() < len(study.labels):
        raise DataError(f"class index {array.max()} is unknown; the study has "
                        f"{len(study.labels)} classes")
    return np.asarray(study.label_values, np.uint8)[array]
