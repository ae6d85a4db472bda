"""Reading checks of a study: everything that can be found out before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import unknown_values
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import read_volume
from pixelnet_tf.volumes.slicing import SlicePlan


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used; the message names the file and the next step."""

    case: str
    message: str


@dataclass(frozen=True)
class CheckResult:
    """What reading a case showed.

    Attributes:
        image_problems, segmentation_problems: what is wrong with either.
        has_lesion: whether the segmentation holds more than background.
        plan: how the case is cut into slices; None where its images cannot be read.
    """

    image_problems: tuple[Problem, ...]
    segmentation_problems: tuple[Problem, ...]
    has_lesion: bool
    plan: SlicePlan | None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong."""
        return self.image_problems + self.segmentation_problems


def check_cases(cases: Iterable[Case], study: StudyConfig,
                each: Callable[[Case], None] = lambda case: None, slice_size: int = 0
                ) -> list[Problem]:
    """Read every file of every case and list all that is wrong, in one pass.

    Every modality is there, all on one grid (unless `study.resample`), three-dimensional, finite
    and not constant; the segmentation holds known labels only. When no case has a lesion, that
    is a problem of each case that is otherwise sound.

    Args:
        cases: as `find_cases` lists them.
        study: modalities, labels, `resample`.
        each: called before a case is read, to show progress.
        slice_size: `prepare.slice_size`, into which every slice must fit.
    """
    problems, sound, lesions = [], [], 0
    for case in cases:
        each(case)
        result = check_case(case, study, slice_size)
        problems += result.problems
        lesions += result.has_lesion
        if not result.problems and case.segmentation is not None:
            sound.append(case)
    return problems + no_lesion(sound if not lesions else [], study)


def check_case(case: Case, study: StudyConfig, slice_size: int = 0) -> CheckResult:
    """Read every file of one case, as `check_cases` does."""
    images, segmentation = list(case.faults), list(case.segmentation_faults)
    first: VolumeGeometry | None = None
    plan: SlicePlan | None = None
    has_lesion = False
    for path in case.files:
        messages = segmentation if path == case.segmentation else images
        try:
            array, geometry = read_volume(path)
        except DataError as error:
            messages.append(str(error))
            continue
        if first is None:
            first = geometry
            try:
                plan = SlicePlan(geometry, slice_size)
            except DataError as error:
                images.append(f"{path}: {error}")
        difference = None if study.resample else geometry.difference(first)
        if difference:
            messages.append(f"{path}: not on the grid of {case.files[0].name}: {difference}; set "
                            "study.resample to true to bring it there")
        if path == case.segmentation:
            messages += _label_problems(path, array, study)
            has_lesion = bool(array.any())
        else:
            messages += _image_problems(path, array)
    return CheckResult(*(tuple(Problem(case.name, message) for message in messages)
                         for messages in (images, segmentation)), has_lesion, plan)


def no_lesion(cases: Iterable[Case], study: StudyConfig) -> list[Problem]:
    """Word the problem of a study in which no case has a lesion, once for each case."""
    return [Problem(case.name, f"{case.segmentation}: no label but the background, as in every "
                    f"other case: there is nothing to learn; labels {list(study.label_values)[1:]}"
                    " were looked for") for case in cases]


def problems_message(problems: Iterable[Problem], total: int) -> str:
    """Write all problems as one message, by case."""
    problems = list(problems)
    lines = [f"  {problem.case}: {problem.message}" for problem in problems]
    bad = len({problem.case for problem in problems})
    return "\n".join([f"{bad} of {total} cases cannot be used:", *lines])


def _image_problems(path: Path, array: np.ndarray) -> list[str]:
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        return [f"{path}: {int((~finite).sum())} voxels are NaN or infinite, the first at {where}; "
                "replace them"]
    if array.min() == array.max():
        return [f"{path}: every voxel is {array.flat[0]:g}; the volume is empty"]
    return []


def _label_problems(path: Path, array: np.ndarray, study: StudyConfig) -> list[str]:
    unknown = unknown_values(array, study)
    if not unknown:
        return []
    known = list(study.label_values)
    return [f"{path}: unknown label {', '.join(f'{value:g}' for value in unknown[:5])}; "
            f"study.labels names {known}; add it there or correct the file"]
