"""What the viewers draw: images, labels and errors, as NIfTI files, and their colours."""

from __future__ import annotations

import base64
import gzip
import math
from typing import Any

import nibabel as nib
import numpy as np

from pixelnet_tf.cases.labels import judged_alone
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.evaluation.case_images import CaseImage
from pixelnet_tf.evaluation.colours import ERRORS, class_colours
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import nifti_bytes

#: Voxels of a case in a report: an image of so many takes some 0.8 MB of the HTML file.
MOST_VOXELS = 750_000
#: What is left around the head, in voxels.
_MARGIN = 2


def legend(study: StudyConfig) -> dict[str, list[dict[str, Any]]]:
    """Return values, names and colours of the labels, and of the errors that `error_kinds` gives.
    """
    colours = class_colours(study)
    return {"labels": [{"value": value, "name": name, "colour": colours.get(value, "")}
                       for value, name in study.labels.items()],
            "errors": [{"value": value, "name": name, "colour": colour}
                       for value, (name, colour) in enumerate(ERRORS.items(), start=1)]}


def error_kinds(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return what is wrong at each voxel, uint8: 0 nothing, else as `legend` counts the errors."""
    kinds = ((truth > 0) & (prediction == 0), (truth == 0) & (prediction > 0),
             (truth > 0) & (prediction > 0) & (truth != prediction))
    return np.select(kinds, range(1, len(ERRORS) + 1), 0).astype(np.uint8)


def layer_file(array: np.ndarray, geometry: VolumeGeometry, slope: float = 1.0,
               labels: bool = False) -> bytes:
    """Return a layer as a NIfTI-1 file that is not packed.

    Its header states the affine of the product's own reader as qform and sform, so that a page
    places it where everything else here does, whichever of the two it would prefer.
    """
    data = nifti_bytes("layer.nii", array, VolumeGeometry.of(geometry.shape, geometry.affine))
    size = nib.Nifti1Header.template_dtype.itemsize
    header = nib.Nifti1Header(data[:size])
    header["scl_slope"] = slope
    if labels:
        # By it NiiVue draws whole numbers, and nothing between two of them.
        header.set_intent("label")
    return header.binaryblock + data[size:]


def embedded_case(shown: CaseImage, truth: np.ndarray, prediction: np.ndarray,
                  geometry: VolumeGeometry, study: StudyConfig,
                  most_voxels: int = MOST_VOXELS) -> list[dict[str, str]]:
    """Return the layers of a case as a report holds them, down-sampled to `most_voxels`.

    The head alone is kept. Where voxels are joined, an image has their mean, in 256 greys, and
    labels and errors what most of the joined voxels are.

    Args:
        shown: the image and its brain.
        truth, prediction: (x, y, z) uint8 label values on the same grid.
        geometry: of that grid.

    Returns:
        Key, kind and title of each layer, and its NIfTI file, packed, in Base64 (`data`).
    """
    truth, prediction = judged_alone(truth, prediction, study)[:2]
    inside = shown.brain | (truth > 0) | (prediction > 0)
    image = np.nan_to_num(np.asarray(shown.image, np.float32), posinf=0, neginf=0)
    low, high = np.percentile(image[inside], (0.5, 99.5)) if inside.any() else (0.0, 1.0)
    grey = np.rint(np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    grey[~inside] = 0
    box = _box(inside)
    steps = _steps(tuple(part.stop - part.start for part in box), geometry.spacing_mm, most_voxels)
    corner = [part.start + (step - 1) / 2 for part, step in zip(box, steps, strict=True)]
    affine = geometry.affine @ np.vstack([np.column_stack([np.diag(steps), corner]), [0, 0, 0, 1]])
    layers = []
    for kind, title, array in (("image", shown.modality, grey), ("reference", "reference", truth),
                               ("prediction", "prediction", prediction),
                               ("errors", "errors", error_kinds(truth, prediction))):
        part = array[box]
        joined = _mean(part, steps) if kind == "image" else _most(part, steps)
        file = layer_file(joined, VolumeGeometry.of(joined.shape, affine), labels=kind != "image")
        layers.append({"key": kind, "kind": kind, "title": title, "data": base64.b64encode(
            gzip.compress(file, mtime=0)).decode()})
    return layers


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    """The part of a volume that holds a mask, and a margin; all of it where the mask is empty."""
    found = []
    for axis, side in enumerate(inside.shape):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(inside.any(axis=others))
        found.append(slice(max(places[0] - _MARGIN, 0), min(places[-1] + 1 + _MARGIN, side))
                     if len(places) else slice(0, side))
    return tuple(found)


def _steps(sides: tuple[int, ...], spacing_mm: tuple[float, ...], most: int) -> list[int]:
    """How many voxels are joined along each axis: the finest axis gives way first."""
    steps = [1, 1, 1]
    while math.prod(-(-side // step) for side, step in zip(sides, steps, strict=True)) > most:
        # An axis of one voxel has nothing left to give.
        axis = min((axis for axis in range(3) if steps[axis] < sides[axis]),
                   key=lambda axis: steps[axis] * spacing_mm[axis])
        steps[axis] += 1
    return steps


def _blocks(array: np.ndarray, steps: list[int]) -> np.ndarray:
    """(x, y, z, joined voxel); the last block is filled up by its edge."""
    padded = np.pad(array, [(0, -side % step) for side, step in zip(array.shape, steps,
                                                                    strict=True)], "edge")
    sides = [side // step for side, step in zip(padded.shape, steps, strict=True)]
    parts = padded.reshape(sides[0], steps[0], sides[1], steps[1], sides[2], steps[2])
    return parts.transpose(0, 2, 4, 1, 3, 5).reshape(*sides, -1)


def _mean(array: np.ndarray, steps: list[int]) -> np.ndarray:
    return np.rint(_blocks(array, steps).mean(axis=-1)).astype(np.uint8)


def _most(array: np.ndarray, steps: list[int]) -> np.ndarray:
    """The value that most of the joined voxels have; of several the one that is no background."""
    blocks = _blocks(array, steps)
    values = sorted(np.unique(array).tolist(), reverse=True)
    shares = np.stack([(blocks == value).mean(axis=-1) for value in values])
    return np.array(values, np.uint8)[shares.argmax(axis=0)]
