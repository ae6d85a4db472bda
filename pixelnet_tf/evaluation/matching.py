"""Predictions and references on disk, matched by the name of the case."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pixelnet_tf.cases.layouts import case_name, find_cases
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import read_json_object

_SUFFIXES = (".nii.gz", ".nii")
#: Written by `predict` beside the volumes: the configuration and the cases it was asked for.
PREDICTION_FILE = "prediction.json"


@dataclass(frozen=True)
class Matching:
    """Which cases can be scored.

    Attributes:
        pairs: case -> (reference file, prediction file), ordered by name.
        without_prediction: cases with a reference that should have been predicted.
        without_reference: predicted cases that have no reference.
    """

    pairs: dict[str, tuple[Path, Path]]
    without_prediction: tuple[str, ...]
    without_reference: tuple[str, ...]

    @property
    def missing(self) -> str:
        """Say what is missing on either side, one case a line; empty when nothing is."""
        lines = []
        if self.without_prediction:
            lines += [f"{len(self.without_prediction)} without a prediction:"]
            lines += [f"  {name}" for name in self.without_prediction]
        if self.without_reference:
            lines += [f"{len(self.without_reference)} without a reference:"]
            lines += [f"  {name}" for name in self.without_reference]
        return "\n".join(lines)


def match_cases(
    predictions_dir: Path, references_dir: Path, study: StudyConfig, allow_missing: bool = False
) -> Matching:
    """Match a folder of predictions with a study, or with a flat folder of label volumes.

    Where `prediction.json` lists the cases that were asked for (a test split, say), only these
    are expected; without it every case of the references is.

    Raises:
        DataError: a missing or empty folder, two files of one case, nothing in common, or names
            missing on either side unless `allow_missing`.
    """
    predictions = volumes_by_case(predictions_dir, "predictions")
    references = _references(references_dir, study)
    expected = asked_for(predictions_dir)
    wanted = set(references) if expected is None else set(expected)
    common = sorted(set(predictions) & set(references))
    matching = Matching(
        {name: (references[name], predictions[name]) for name in common},
        tuple(sorted(wanted - set(predictions))),
        tuple(sorted(set(predictions) - set(references))),
    )
    if not common:
        raise DataError(
            f"no case in common: predictions in {predictions_dir} are {sorted(predictions)[:5]}, "
            f"references in {references_dir} are {sorted(references)[:5]}; a prediction is named "
            "<case>.nii.gz")
    if matching.missing and not allow_missing:
        raise DataError(
            f"cases do not match between {predictions_dir} and {references_dir}:\n"
            f"{matching.missing}\nadd them, or score the {len(common)} common cases with "
            "--allow-missing")
    return matching


def volumes_by_case(folder: Path, what: str) -> dict[str, Path]:
    """Map case -> file for a flat folder of `<case>.nii.gz` or `<case>.nii`.

    Raises:
        DataError: no such folder, no volume in it, or two files of one case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder that holds the {what}")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix and path.is_file() and not path.name.startswith("."):
            found[case_name(path.name[:-len(suffix)])].append(path)
    if not found:
        raise DataError(f"{folder}: holds no {what}; expected <case>.nii.gz or <case>.nii")
    for name, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"{folder}: case {name!r} is there twice, as "
                            f"{[p.name for p in paths]}; remove one of them")
    return {name: paths[0] for name, paths in sorted(found.items())}


def asked_for(predictions_dir: Path) -> list[str] | None:
    """Return the cases that `prediction.json` lists, None where it is absent or lists none."""
    return read_prediction_file(predictions_dir).get("cases")


def read_prediction_file(predictions_dir: Path) -> dict:
    """Read `prediction.json` beside predictions; an empty dictionary where there is none.

    Raises:
        DataError: the file is no JSON object.
    """
    path = Path(predictions_dir) / PREDICTION_FILE
    if not path.is_file():
        return {}
    return read_json_object(path, "predict again or remove it")


def _references(folder: Path, study: StudyConfig) -> dict[str, Path]:
    folder = Path(folder)
    if folder.is_dir() and any(p.name.endswith(_SUFFIXES) for p in folder.iterdir()):
        return volumes_by_case(folder, "references")
    # Only the segmentation matters here: a case may lack a modality and still be scored.
    cases = find_cases(folder, study, require_segmentation=False)
    references = {case.name: case.segmentation for case in cases if case.segmentation}
    if not references:
        raise DataError(f"{folder}: none of its {len(cases)} cases has a segmentation to score "
                        "against; check study.layout and study.files")
    return references
