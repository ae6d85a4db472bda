"""Reading checks of a study: everything that can be found out before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import label_text, unknown_values
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.prepare import RawVolume, image_on_grid, labels_on_grid
from pixelnet_tf.volumes.slicing import SlicePlan

#: A skull-stripped volume has air around the brain; one that is fuller than this most likely has a
#: background that is not exactly 0.
_MOST_FILLED = 0.97


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
        doubts: what a reader should look at, though the case can be used.
        voxels: SHA-256 of each image's voxels, whatever its file's header and compression are.
    """

    image_problems: tuple[Problem, ...]
    segmentation_problems: tuple[Problem, ...]
    has_lesion: bool
    plan: SlicePlan | None
    doubts: tuple[Problem, ...] = ()
    voxels: tuple[str, ...] = ()

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
    images, segmentation, doubts = list(case.faults), list(case.segmentation_faults), []
    first: RawVolume | None = None
    plan: SlicePlan | None = None
    has_lesion, filled, voxels = False, None, []
    for path in case.files:
        labels = path == case.segmentation
        messages = segmentation if labels else images
        try:
            volume = RawVolume.read(path)
        except DataError as error:
            messages.append(str(error))
            continue
        if volume.geometry.spacing_doubt:
            doubts.append(f"{path}: {volume.geometry.spacing_doubt}")
        if first is None:
            first = volume
            try:
                plan = SlicePlan(volume.geometry, slice_size)
            except DataError as error:
                images.append(f"{path}: {error}")
        found = (_label_problems if labels else _image_problems)(path, volume.array, study)
        messages += found
        if labels:
            has_lesion = bool(volume.array.any())
        else:
            # Transposed, an array from a file lies in memory in C's order and is not copied.
            voxels.append(hashlib.sha256(np.ascontiguousarray(volume.array.T)).hexdigest())
        if found:
            continue
        try:
            array = (labels_on_grid(volume, first.geometry, study) if labels
                     else image_on_grid(volume, first, study))
        except DataError as error:
            messages.append(str(error))
            continue
        if not labels:
            filled = array != 0 if filled is None else filled | (array != 0)
    if study.skull_stripped and filled is not None and filled.mean() > _MOST_FILLED:
        doubts.append(f"{filled.mean():.1%} of the voxels are not 0 in every modality, so nearly "
                      "all of the volume counts as brain: set study.skull_stripped to false where "
                      "the skull is there, or set the background to exactly 0")
    return CheckResult(*(tuple(Problem(case.name, message) for message in messages)
                         for messages in (images, segmentation)), has_lesion, plan,
                       tuple(Problem(case.name, doubt) for doubt in doubts), tuple(voxels))


def equal_images(voxels: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Return the sets of cases that share an image: one patient under several names.

    voxels: case -> what `CheckResult.voxels` says of it. Every set is sorted; two sets may overlap.
    """
    owners: dict[str, set[str]] = {}
    for case, images in voxels.items():
        for image in images:
            owners.setdefault(image, set()).add(case)
    return sorted({tuple(sorted(cases)) for cases in owners.values() if len(cases) > 1})


def check_volumes(volumes: Iterable[RawVolume], study: StudyConfig, slice_size: int = 0
                  ) -> list[str]:
    """Say what is wrong with the images of one case that are in memory, as `check_case` does."""
    messages: list[str] = []
    first: RawVolume | None = None
    for volume in volumes:
        if first is None:
            first = volume
            try:
                SlicePlan(volume.geometry, slice_size)
            except DataError as error:
                messages.append(f"{volume.source}: {error}")
        found = _image_problems(volume.source, volume.array, study)
        messages += found
        if not found:
            try:
                image_on_grid(volume, first, study)
            except DataError as error:
                messages.append(str(error))
    return messages


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


def _image_problems(path: Path | str, array: np.ndarray, study: StudyConfig) -> list[str]:
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
    return [f"{path}: unknown label {', '.join(map(label_text, unknown[:5]))}; "
            f"study.labels names {known}; add it there or correct the file"]
