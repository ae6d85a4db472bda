"""The archive that a challenge takes, and everything that it would refuse."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.evaluation.label_files import check_same_grid, read_labels
from pixelnet_tf.evaluation.matching import predictions_in
from pixelnet_tf.io.disk import sync
from pixelnet_tf.io.files import replacing
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import nifti_bytes
from pixelnet_tf.volumes.raw_volume import geometry_of

CHALLENGES = ("brats2017", "isles2017")
#: Label values that the challenges' servers know.
_LABELS = {"brats2017": (0, 1, 2, 4), "isles2017": (0, 1)}
#: The same instant in every archive, so that equal predictions give equal bytes.
_DATE = (2017, 1, 1, 0, 0, 0)


def write_submission(
    challenge: str,
    predictions_dir: Path,
    study_dir: Path,
    study: StudyConfig,
    out: Path,
    description: str = "pixelnet",
    dry_run: bool = False,
) -> list[str]:
    """Check predictions and write the archive.

    `brats2017`: one multi-label `<case>.nii.gz` a case. `isles2017`: `SMIR.<description>.<id>.nii`,
    the id from the case's SMIR folder. Every prediction is checked before the first is written;
    the archive appears whole or not at all.

    Args:
        challenge: one of `CHALLENGES`.
        predictions_dir: a volume a case, named after it.
        study_dir: the cases that the challenge asks for; they need no segmentation.
        study: layout and labels.
        out: the zip file.
        description: part of the names in an ISLES archive.
        dry_run: check, write nothing.

    Returns:
        The names in the archive.

    Raises:
        ConfigError: an unknown challenge, or a description that a file name cannot hold.
        DataError: every case with another grid, an unknown label, labels stored as a floating
            type, or a name that is missing, there twice, or not asked for.
    """
    if challenge not in CHALLENGES:
        raise ConfigError(f"the challenge must be one of {list(CHALLENGES)}, got {challenge!r}",
                          value=challenge)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", description):
        raise ConfigError("the description may hold letters, digits, '_' and '-', got "
                          f"{description!r}", value=description)
    predictions = predictions_in(predictions_dir)
    cases = find_cases(study_dir, study, require_segmentation=False)
    faults = _missing_names(predictions, cases)
    names: dict[str, str] = {}
    for case in cases:
        if case.name in predictions:
            try:
                names[case.name] = _archive_name(challenge, case, description)
                _read_checked(challenge, case, predictions[case.name], study)
            except DataError as error:
                faults.append(error)
    faults += [DataError(f"{name} would stand in the archive twice: two cases have one SMIR number",
                         value=name)
               for name in sorted(_twice(list(names.values())))]
    if faults:
        raise DataError.listing(faults, "the submission is refused:")
    if not dry_run:
        _write_archive(challenge, cases, predictions, names, study, Path(out))
    return list(names.values())


def _missing_names(predictions: dict[str, Path], cases: Sequence[Case]) -> list[DataError]:
    asked = {case.name for case in cases}
    return [DataError("there is no prediction", case=name)
            for name in sorted(asked - set(predictions))
            ] + [DataError("is no case of the study", case=name, file=predictions[name])
                 for name in sorted(set(predictions) - asked)]


def _archive_name(challenge: str, case: Case, description: str) -> str:
    if challenge == "brats2017":
        return f"{case.name}.nii.gz"
    if case.smir_id is None:
        raise DataError("no SMIR number in the names of its folders, as in "
                        "VSD.Brain.XX.O.MR_4DPWI.127014; the server finds cases by it",
                        case=case.name)
    return f"SMIR.{description}.{case.smir_id}.nii"


def _read_checked(challenge: str, case: Case, path: Path, study: StudyConfig
                  ) -> tuple[np.ndarray, VolumeGeometry]:
    """Read a prediction and return it with the geometry of the case's own images."""
    labels, geometry = read_labels(path, study, case.name)
    strange = sorted(set(np.unique(labels).tolist()) - set(_LABELS[challenge]))
    if strange:
        raise DataError(f"holds label {strange[0]}; {challenge} takes {list(_LABELS[challenge])}",
                        case=case.name, file=path, value=strange[0])
    source = next((case.volumes[m] for m in study.modalities if m in case.volumes),
                  case.segmentation)
    if source is None:
        reasons = "; ".join(fault.text for fault in case.faults)
        raise DataError(f"has no image to compare the grid with; {reasons}", case=case.name)
    reference = geometry_of(source)
    check_same_grid(case.name, reference, geometry, source, path)
    return labels, reference


def _write_archive(challenge: str, cases: Sequence[Case], predictions: dict[str, Path],
                   names: dict[str, str], study: StudyConfig, out: Path) -> None:
    # It takes long, in a folder that nobody sweeps: what a kill leaves is removed by the next one.
    with replacing(out) as temporary, scratch_folder(out.parent) as folder:
        whole = folder / "archive.zip"
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for case in cases:
                labels, geometry = _read_checked(challenge, case, predictions[case.name], study)
                name = names[case.name]
                # The server compares headers: the file takes those of the case's own image.
                archive.writestr(zipfile.ZipInfo(name, _DATE),
                                 nifti_bytes(name, np.asarray(labels, np.uint8), geometry),
                                 zipfile.ZIP_DEFLATED)
        sync(whole)
        whole.replace(temporary)


def _twice(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}
