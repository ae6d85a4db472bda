"""Reading label volumes of any tool, strictly: what cannot be scored is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.labels import (
    label_text,
    truth_values,
    values_in,
    whole_bytes,
    whole_values,
)
from pixelnet_tf.cases.names import image_stem
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.reporting import logger
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.images import read_volume

#: Largest relative difference of voxel sizes that pass as equal.
_SPACING_TOLERANCE = 1e-3


def read_labels(
    path: Path, study: StudyConfig, case: str, reference: bool = False
) -> tuple[np.ndarray, VolumeGeometry]:
    """Read a label volume.

    Args:
        path: image file of any form. In a prediction that is called `*_mask`, as BIDS calls a mask,
            1 stands for the label of a study that has but one.
        study: its `labels` are the values that the file may hold.
        case: name for the messages.
        reference: it is a segmentation by experts: whole numbers stored as a floating type are
            taken, too, and `study.ignore_label`.

    Returns:
        Label values, uint8 `(x, y, z)`, and the geometry.

    Raises:
        DataError: unreadable, stored as a floating type, or with a value that is no label.
    """
    try:
        array, geometry = read_volume(path)
    except DataError as error:
        raise DataError.of(error, case=case) from None
    if geometry.spacing_doubt:
        logger.warning("%s: %s", path, geometry.spacing_doubt)
    if not reference and _is_mask(path, study):
        array = np.where(array == 1, study.label_values[1], array)
    stored = geometry.nifti_header().get_data_dtype()
    if stored.kind == "f" and not reference:
        raise DataError(f"stores labels as {stored.name}; labels are whole numbers", case=case,
                        file=path, value=stored.name,
                        hint="save them as an integer type such as uint8")
    return labels_of(array, study, case, path, reference), geometry


def _is_mask(path: Path, study: StudyConfig) -> bool:
    """Whether a file is BIDS' mask of the one label of a study: 1, whatever the label's value is.
    """
    return (len(study.labels) == 2 and 1 not in study.labels
            and (image_stem(path.name) or "").endswith("_mask"))


def labels_of(array: np.ndarray, study: StudyConfig, case: str, source: str | os.PathLike[str],
              reference: bool = False) -> np.ndarray:
    """Label values, uint8 (x, y, z), of an array of any type; raises as `read_labels`.

    source: its file, or a name of what is in memory.
    """
    labels = whole_bytes(array)
    if labels is None:
        array = whole_values(array)
        with np.errstate(invalid="ignore"):
            labels = array.astype(np.uint8)
        odd = float(array[labels != array][0])
        error = DataError(f"holds the value {label_text(odd)}, which is no label; study.labels "
                          f"names {list(study.label_values)}", case=case, value=odd)
        raise DataError.of(error, source=source)
    known = truth_values(study) if reference else study.label_values
    unknown = [value for value in values_in(labels) if value not in known]
    if unknown:
        error = DataError(f"holds the unknown label {unknown[0]}; study.labels names "
                          f"{list(study.label_values)}", case=case, value=unknown[0],
                          hint="score with the configuration of the study, or add it")
        raise DataError.of(error, source=source)
    return labels


def check_same_grid(
    case: str, reference: VolumeGeometry, prediction: VolumeGeometry,
    reference_path: str | os.PathLike[str], prediction_path: str | os.PathLike[str],
) -> None:
    """Raise `DataError` unless voxels of the two files coincide (shape, spacing, affine)."""
    difference = reference.difference(prediction)
    if difference is None and not np.allclose(
            reference.spacing_mm, prediction.spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
        difference = f"spacing {reference.spacing_mm} mm against {prediction.spacing_mm} mm"
    if difference is not None:
        error = DataError(
            f"is on another grid than the reference, {reference_path}: {difference}", case=case,
            hint=_grid_advice(reference, prediction))
        raise DataError.of(error, source=prediction_path)


def _grid_advice(reference: VolumeGeometry, prediction: VolumeGeometry) -> str:
    if prediction.permutation_to(reference) is not None:
        return ("the same voxels in another order: reorient the prediction, for instance by "
                "nibabel's as_reoriented, without any interpolation")
    if reference.shape == prediction.shape and not prediction.is_placed:
        return ("the prediction's header has lost its place in space, while its shape is the "
                "reference's: write it anew with the reference's affine and header; resampling "
                "would ruin it")
    return "resample the prediction to the reference's grid with nearest neighbours"
