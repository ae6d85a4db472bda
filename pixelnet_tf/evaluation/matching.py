"""Predictions and references on disk, matched by the name of the case."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.names import case_name, image_files, image_stem, nifti_stem
from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.config import OutputForm, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.reporting import Reporter


@dataclass(frozen=True)
class Matching:
    """Which cases can be scored.

    Attributes:
        pairs: case -> (reference file, prediction file), ordered by name.
        without_prediction: cases with a reference that should have been predicted.
        without_reference: predicted cases that have no reference.
        reasons: case -> why it lacks one or the other, where that is known.
    """

    pairs: dict[str, tuple[Path, Path]]
    without_prediction: tuple[str, ...]
    without_reference: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """Say what is missing on either side, one case a line; empty when nothing is."""
        lines = []
        for names, what in ((self.without_prediction, "a prediction"),
                            (self.without_reference, "a reference")):
            if names:
                lines += [f"{len(names)} without {what}:"]
                lines += [f"  {name}" + (f" ({self.reasons[name]})" if name in self.reasons else "")
                          for name in names]
        return "\n".join(lines)


def match_cases(
    predictions_dir: Path, references_dir: Path, study: StudyConfig, allow_missing: bool = False,
    reporter: Reporter | None = None,
) -> Matching:
    """Match a folder of predictions with a study, or with a flat folder of label volumes.

    Where `prediction.json` lists the cases that were asked for (a test split, say), only these
    are expected; without it every case of the references is.

    Raises:
        DataError: a missing or empty folder, two files of one case, nothing in common, a
            prediction that is its own reference, or names missing on either side unless
            `allow_missing`.
    """
    predictions = predictions_in(predictions_dir)
    references, reasons = find_references(references_dir, study, reporter)
    about = PredictionRecord.read(predictions_dir)
    reasons |= {entry.case: f"left out: {entry.reason}" for entry in about.left_out}
    expected = about.cases
    wanted = set(references) if expected is None else set(expected)
    common = sorted(set(predictions) & set(references))
    matching = Matching(
        {name: (references[name], predictions[name]) for name in common},
        tuple(sorted(wanted - set(predictions))),
        tuple(sorted(set(predictions) - set(references))),
        reasons,
    )
    same = [name for name, paths in matching.pairs.items()
            if all(path.exists() for path in paths) and os.path.samefile(*paths)]
    if same:
        raise DataError(f"is both the prediction and the reference ({len(same)} such cases); it "
                        "would be scored against itself", case=same[0],
                        file=matching.pairs[same[0]][1],
                        hint="give the study or folder that holds the expert's segmentations as "
                             "references")
    if not common:
        raise DataError(
            f"no case in common: predictions in {predictions_dir} are {sorted(predictions)[:5]}, "
            f"references in {references_dir} are {sorted(references)[:5]}; a prediction is named "
            "<case>.nii.gz", file=predictions_dir)
    if matching.missing and not allow_missing:
        raise DataError(f"the cases do not match those of {references_dir}:\n{matching.missing}",
                        file=predictions_dir,
                        value=[*matching.without_prediction, *matching.without_reference],
                        hint="add them; `pixelnet-tf evaluate --allow-missing` scores the "
                             f"{len(common)} common cases alone")
    return matching


def predictions_in(folder: Path) -> dict[str, Path]:
    """Map case -> file for a folder of predictions, in the form that `prediction.json` tells of.

    Raises:
        DataError: as `volumes_by_case`; or they are DICOM segmentations.
    """
    folder = Path(folder)
    about = PredictionRecord.read(folder)
    if about.output == OutputForm.DICOM_SEG:
        raise DataError("holds DICOM segmentations, and volumes are read here", file=folder,
                        value=about.output,
                        hint="run `pixelnet-tf predict` again into a new --out, without --output")
    places = {case_name(name): folder / place for name, place in sorted(about.files.items())}
    found = {name: path for name, path in places.items() if path.is_file()}
    return found or volumes_by_case(folder, "predictions")


def volumes_by_case(folder: Path, what: str) -> dict[str, Path]:
    """Map case -> file for a flat folder of `<case>.nii.gz`, or of another form of images.

    Raises:
        DataError: no such folder, no volume in it, or two files of one case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", file=folder,
                        hint=f"give the folder that holds the {what}")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder, below=False):
        found[case_name(image_stem(path.name) or "")].append(path)
    if not found:
        raise DataError(f"holds no {what}; expected <case>.nii.gz or <case>.nii", file=folder)
    for name, paths in found.items():
        # What lies beside a NIfTI file in another form is a copy of it.
        found[name] = paths = [path for path in paths if nifti_stem(path.name)] or paths
        if len(paths) > 1:
            raise DataError(f"is there twice, as {[p.name for p in paths]}", case=name,
                            file=folder, hint="remove one of them")
    return {name: paths[0] for name, paths in sorted(found.items())}


def find_references(folder: Path, study: StudyConfig, reporter: Reporter | None = None
                    ) -> tuple[dict[str, Path], dict[str, str]]:
    """Find case -> file with the truth, and case -> why it has none.

    In a study the truth lies in the folders of its cases; volumes beside those are not it. A folder
    without such cases is flat.

    Raises:
        DataError: no such folder, or no truth in it.
    """
    folder = Path(folder)
    flat = folder.is_dir() and bool(image_files(folder, below=False))
    try:
        # Only the segmentation matters here: a case may lack a modality and still be scored.
        cases = find_cases(folder, study, require_segmentation=False, reporter=reporter)
    except DataError:
        if not flat:
            raise
        cases = []
    references = {case.name: case.segmentation for case in cases if case.segmentation}
    reasons = {case.name: str(case.segmentation_faults[0]) for case in cases
               if case.segmentation_faults}
    if references:
        return references, reasons
    if flat:
        return volumes_by_case(folder, "references"), {}
    raise DataError(f"none of its {len(cases)} cases has a segmentation to score against"
                    + "".join(f"\n  {name}: {reason}" for name, reason in reasons.items()),
                    file=folder, hint="check study.layout and study.files")
