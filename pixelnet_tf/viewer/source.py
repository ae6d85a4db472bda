"""What the viewer shows: cases, each with its images, labels and probabilities, read when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelnet_tf.cases.labels import judged_alone, lesion_of, whole_bytes
from pixelnet_tf.config import EvaluationConfig, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.label_files import check_same_grid
from pixelnet_tf.evaluation.layers import error_kinds, layer_file, legend
from pixelnet_tf.evaluation.overlap import count_overlaps
from pixelnet_tf.evaluation.protocols import make_protocol
from pixelnet_tf.volumes.geometry import VolumeGeometry

#: Reads an array (x, y, z[, class]) and where it lies.
Reader = Callable[[], tuple[np.ndarray, VolumeGeometry]]
#: Steps between probability 0 and 1, so that one half is a whole number of them.
PROBABILITY_STEPS = 250
#: Of pixels of the background that sampling draws.
_BACKGROUND_COLOUR = "#ffffff"
#: What lies under predictions of which no image is at hand.
_GRID = "grid"


@dataclass(frozen=True)
class ShownCase:
    """A case of the viewer's list.

    Attributes:
        name: as its files call it.
        images: modality -> its reader.
        reference, prediction: readers of label values; None where there is none.
        probabilities: reader of (x, y, z, class); None where there are none.
        samples: sampling strategy -> reader of which pixels it draws, 0 for none of them, else the
            number of the class and 1.
        scores: region -> Dice, as an evaluation found it.
        warnings: what a reader of the picture should know.
        patient: the same for several cases of the list that are one patient's, as it was segmented
            by several networks; the page stays where it is between them.
    """

    name: str
    images: Mapping[str, Reader] = field(default_factory=dict)
    reference: Reader | None = None
    prediction: Reader | None = None
    probabilities: Reader | None = None
    samples: Mapping[str, Reader] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    patient: str = ""

    def layers(self) -> list[dict[str, str]]:
        """What can be drawn of it: key, kind and title of each layer, the images first."""
        found = [{"key": f"image-{number}", "kind": "image", "title": modality}
                 for number, modality in enumerate(self.images)]
        if not found and (self.prediction or self.reference):
            found.append({"key": _GRID, "kind": "image", "title": "no image"})
        kinds = {"reference": self.reference, "prediction": self.prediction,
                 "errors": self.reference and self.prediction,
                 "probabilities": self.probabilities}
        return [*found, *({"key": kind, "kind": kind, "title": kind}
                          for kind, reader in kinds.items() if reader),
                *({"key": strategy, "kind": strategy, "title": f"{strategy} sampling"}
                  for strategy in self.samples)]


@dataclass(frozen=True)
class ViewSource:
    """All that a page shows.

    Attributes:
        title: over the list.
        study: labels, regions and their names.
        evaluation: the rules by which Dice is computed where no scores are given.
        cases: in the order of the list.
        region_based: probabilities are of regions, which may overlap; else of classes.
    """

    title: str
    study: StudyConfig
    evaluation: EvaluationConfig
    cases: tuple[ShownCase, ...]
    region_based: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what the page needs before it draws; case numbers count `cases`."""
        return {
            "title": self.title,
            **legend(self.study),
            "samples": self._sampled(),
            "maps": list(self.study.regions if self.region_based else self.study.labels.values()),
            "regions": list(make_protocol(self.evaluation).regions(self.study)),
            "cases": [{"name": case.name, "patient": case.patient, "layers": case.layers(),
                       "scores": dict(case.scores), "warnings": list(case.warnings)}
                      for case in self.cases]}

    def _sampled(self) -> list[dict[str, Any]]:
        """Values, names and colours of what sampling draws, if it is shown of any case."""
        if not any(case.samples for case in self.cases):
            return []
        return [{"value": number, "name": f"drawn: {label['name']}",
                 "colour": label["colour"] or _BACKGROUND_COLOUR}
                for number, label in enumerate(legend(self.study)["labels"], start=1)]

    def layer(self, number: int, key: str) -> bytes:
        """Return a layer as a NIfTI-1 file that is not packed (`layer_file`).

        Raises:
            KeyError: there is no such case or layer.
            DataError: its file cannot be read or shown.
        """
        if not 0 <= number < len(self.cases):
            raise KeyError(number)
        case = self.cases[number]
        if key not in {layer["key"] for layer in case.layers()}:
            raise KeyError(key)
        if key.startswith("image-"):
            array, geometry = list(case.images.values())[int(key.removeprefix("image-"))]()
            return layer_file(_compact(array), geometry)
        if key == "probabilities":
            array, geometry = _present(case.probabilities)()
            steps = np.rint(np.clip(np.nan_to_num(array), 0, 1) * PROBABILITY_STEPS)
            return layer_file(steps.astype(np.uint8), geometry, 1 / PROBABILITY_STEPS)
        if key == "errors":
            truth, prediction, geometry = self._both(case)
            return layer_file(error_kinds(truth, prediction), geometry, labels=True)
        reader = _present({"reference": case.reference, "prediction": case.prediction,
                           **case.samples}.get(key) or case.prediction or case.reference)
        array, geometry = reader()
        labels = _labels(array)
        if key == _GRID:
            return layer_file(np.zeros_like(labels), geometry)
        return layer_file(labels, geometry, labels=True)

    def measure(self, number: int) -> dict[str, Any]:
        """Return the lesion's volumes in ml, and Dice by region where it is not known.

        What cannot be read is a warning.
        """
        case = self.cases[number]
        found: dict[str, Any] = {"case": number, "warnings": []}
        try:
            if case.reference and case.prediction:
                truth, prediction, geometry = self._both(case)
                found["reference_ml"] = self._ml(truth, geometry)
                found["prediction_ml"] = self._ml(prediction, geometry)
                if not case.scores:
                    rules = make_protocol(self.evaluation)
                    counts = count_overlaps(truth, prediction, rules.regions(self.study))
                    found["scores"] = {region: rules.overlap_values(each)["Dice"]
                                       for region, each in counts.items()}
            else:
                for kind, reader in (("reference", case.reference),
                                     ("prediction", case.prediction)):
                    if reader:
                        array, geometry = reader()
                        found[f"{kind}_ml"] = self._ml(_labels(array), geometry)
        except DataError as error:
            found["warnings"].append(str(error))
        return found

    def _both(self, case: ShownCase) -> tuple[np.ndarray, np.ndarray, VolumeGeometry]:
        """Reference and prediction, of which nothing is left where nobody has judged."""
        truth, grid = _present(case.reference)()
        prediction, geometry = _present(case.prediction)()
        check_same_grid(case.name, grid, geometry, "the reference", "the prediction")
        return (*judged_alone(_labels(truth), _labels(prediction), self.study)[:2], geometry)

    def _ml(self, labels: np.ndarray, geometry: VolumeGeometry) -> float:
        return int(np.count_nonzero(lesion_of(labels, self.study))) * geometry.voxel_mm3 / 1000


def _present(reader: Reader | None) -> Reader:
    if reader is None:
        raise KeyError("no such layer")
    return reader


def _labels(array: np.ndarray) -> np.ndarray:
    """Label values as uint8, whether or not the study names them: they are to be looked at."""
    labels = whole_bytes(np.asarray(array))
    if labels is None:
        raise DataError("holds values that are no labels; these are whole numbers from 0 to 255",
                        hint="give the segmentation, not an image or a map of probabilities")
    return labels


def _compact(array: np.ndarray) -> np.ndarray:
    """An image in the smallest type that holds it exactly; what is not finite becomes 0."""
    array = np.nan_to_num(np.asarray(array, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    for dtype in (np.uint8, np.int16):
        bounds = np.iinfo(dtype)
        if bounds.min <= array.min() and array.max() <= bounds.max:
            small = array.astype(dtype)
            if np.array_equal(small, array):
                return small
    return array
