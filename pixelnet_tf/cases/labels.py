"""Label values of a study's files to class indices, and back."""

from __future__ import annotations

import numpy as np

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError

#: Class index of a voxel that nobody has judged (`study.ignore_label`). No class has it: a study
#: has 255 classes at most.
IGNORED = 255
#: A label that was stored as a fraction (after scaling or resampling) may be off by this much.
_ROUNDING = 1e-3
#: As many values as a label array is taken to have.
_FEW = 8


def whole_values(array: np.ndarray) -> np.ndarray:
    """Round the values of a label array that are whole but for rounding; others stay as they are.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return array
    nearest = np.round(array)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(array - nearest) <= _ROUNDING, nearest, array)


def whole_bytes(array: np.ndarray) -> np.ndarray | None:
    """The values of a label array as uint8; None where they are not whole (but for rounding) from 0
    to 255."""
    found = _bytes(array)
    # Rounding takes several times as long as seeing that nothing is to be rounded.
    if found is None and np.issubdtype(array.dtype, np.floating):
        found = _bytes(whole_values(array))
    return found


def _bytes(array: np.ndarray) -> np.ndarray | None:
    with np.errstate(invalid="ignore"):
        found = array.astype(np.uint8)
    return found if np.array_equal(found, array) else None


def values_in(labels: np.ndarray) -> list[int]:
    """The values that occur in an array uint8, in order."""
    left = labels.ravel(order="K")
    found: list[int] = []
    # Labels are few, and a comparison of all voxels takes a tenth of counting them.
    while left.size and len(found) < _FEW:
        found.append(int(left[0]))
        left = left[left != left[0]]
    return sorted([*found, *np.flatnonzero(np.bincount(left, minlength=256)).tolist()])


def unknown_values(array: np.ndarray, study: StudyConfig) -> list[float]:
    """Return the values of a label array, in order, that neither `study.labels` nor
    `study.ignore_label` names.

    A value that is whole but for rounding counts as whole.
    """
    labels = whole_bytes(array)
    present = (np.unique(whole_values(array)) if labels is None
               else np.array(values_in(labels), np.uint8))
    return [float(value) for value in present[~np.isin(present, truth_values(study))]]


def truth_values(study: StudyConfig) -> tuple[int, ...]:
    """Every value that a segmentation by experts may hold: those of the classes, and the ignored.
    """
    ignored = () if study.ignore_label is None else (study.ignore_label,)
    return (*study.label_values, *ignored)


def values_to_classes(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn label values into class indices, uint8, of the same shape; `IGNORED` where nobody has
    judged.

    Args:
        array: label values of any shape; of any type, as long as the values are whole.

    Raises:
        DataError: a value that is neither among `study.labels` nor `study.ignore_label`.
    """
    if unknown := unknown_values(array, study):
        raise DataError(f"unknown label {', '.join(map(label_text, unknown[:5]))}; study.labels "
                        f"names {list(study.label_values)}",
                        value=unknown[0], hint="add it there, name it as study.ignore_label where "
                        "it marks voxels that are not to count, or correct the file")
    table = np.zeros(256, np.uint8)
    table[list(study.label_values)] = np.arange(len(study.labels))
    if study.ignore_label is not None:
        table[study.ignore_label] = IGNORED
    labels = whole_bytes(array)
    assert labels is not None
    return table[labels]


def lesion_of(values: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Where label values say that a lesion is: neither background nor `study.ignore_label`."""
    lesion = values != 0
    if study.ignore_label is not None:
        lesion &= whole_values(values) != study.ignore_label
    return lesion


def lesion_classes(classes: np.ndarray) -> np.ndarray:
    """Where class indices say that a lesion is: neither background nor `IGNORED`."""
    return (classes != 0) & (classes != IGNORED)


def label_text(value: float) -> str:
    """A label value as a reader can tell it from others: whole ones without a point, exactly."""
    return str(int(value)) if np.isfinite(value) and value == int(value) else repr(value)


def classes_to_values(array: np.ndarray, study: StudyConfig) -> np.ndarray:
    """Turn class indices into the study's label values, uint8, of the same shape.

    Raises:
        DataError: an index that the study has no class for.
    """
    table = np.full(256, -1, np.int16)
    table[:len(study.labels)] = study.label_values
    if study.ignore_label is not None:
        table[IGNORED] = study.ignore_label
    values = table[array] if not array.size or 0 <= array.min() <= array.max() <= 255 else None
    if values is None or (values < 0).any():
        raise DataError(f"class index {array.max()} is unknown; the study has "
                        f"{len(study.labels)} classes")
    return values.astype(np.uint8)


def judged_alone(truth: np.ndarray, prediction: np.ndarray, study: StudyConfig
                 ) -> tuple[np.ndarray, np.ndarray, int]:
    """Both label volumes with background where the truth says `study.ignore_label`.

    Nothing there is right or wrong; the third value is the number of such voxels, which belong to
    no count of background either.
    """
    if study.ignore_label is None:
        return truth, prediction, 0
    ignored = truth == study.ignore_label
    return (np.where(ignored, 0, truth).astype(truth.dtype),
            np.where(ignored, 0, prediction).astype(prediction.dtype),
            int(np.count_nonzero(ignored)))
