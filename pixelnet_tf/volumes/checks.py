"""Reading checks of a study: everything that can be found out before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import lesion_classes, lesion_of
from pixelnet_tf.cases.layouts import SEGMENTATION
from pixelnet_tf.config import PLANES, Register, StudyConfig
from pixelnet_tf.config.sections import BRAIN_MASK
from pixelnet_tf.errors import DataError, PixelNetError
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.case_volume import (
    check_image,
    classes_on_grid,
    image_on_grid,
    mask_on_grid,
)
from pixelnet_tf.volumes.raw_volume import RawVolume
from pixelnet_tf.volumes.resample import fraction_within
from pixelnet_tf.volumes.slicing import SlicePlan, plans_of

#: A skull-stripped volume has air around the brain; one that is fuller than this most likely has a
#: background that is not exactly 0.
_MOST_FILLED = 0.97


@dataclass(frozen=True, eq=False)
class Problem:
    """Why a case cannot be used, or what is doubtful about it."""

    case: str
    fault: DataError

    @classmethod
    def of(cls, case: str, error: PixelNetError) -> Problem:
        """What an error says of a case."""
        return cls(case, DataError.of(error, case=case))

    @property
    def message(self) -> str:
        """The text without the case; it names the file and the next step."""
        return self.fault.text


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
                slice_size: int = 0, reporter: Reporter | None = None,
                planes: Sequence[str] = PLANES[:1]) -> list[Problem]:
    """Read every file of every case and list all that is wrong, in one pass.

    Every modality is there, all on one grid (unless `study.resample`), three-dimensional, finite
    and not constant; the segmentation holds known labels only. When no case has a lesion, that
    is a problem of each case that is otherwise sound.

    Args:
        cases: the cases as `find_cases` lists them.
        study: modalities, labels, `resample`.
        slice_size: `prepare.slice_size`, into which every slice must fit.
        reporter: hears of the task "checking", in cases.
        planes: `model.planes`, along each of which a volume is to be cut.
    """
    reporter, cases = reporter_or_log(reporter), list(cases)
    problems: list[Problem] = []
    sound, lesions = [], 0
    for number, case in enumerate(cases, start=1):
        result = check_case(case, study, slice_size, planes)
        problems += result.problems
        lesions += result.has_lesion
        if not result.problems and case.segmentation is not None:
            sound.append(case)
        reporter.progress("checking", number, len(cases), case.name)
    return problems + no_lesion(sound if not lesions else [], study)


def check_case(case: Case, study: StudyConfig, slice_size: int = 0,
               planes: Sequence[str] = PLANES[:1]) -> CheckResult:
    """Read every file of one case, as `check_cases` does."""
    images, segmentation = list(case.faults), list(case.segmentation_faults)
    doubts: list[DataError] = []
    first: RawVolume | None = None
    plan: SlicePlan | None = None
    has_lesion, filled = False, None
    voxels: dict[str, str] = {}
    for name, path in (*case.volumes.items(), (SEGMENTATION, case.segmentation)):
        if path is None:
            continue
        labels = name == SEGMENTATION
        try:
            volume = RawVolume.read(path)
            if volume.geometry.spacing_doubt:
                doubts.append(DataError(volume.geometry.spacing_doubt, file=path))
            if first is None:
                first = volume
                try:
                    plan, *_ = plans_of(volume.geometry, slice_size, planes)
                except DataError as error:
                    images.append(DataError.of(error, file=path))
            if labels:
                lesion = lesion_of(volume.array, study)
                has_lesion = bool(lesion.any())
                left = np.count_nonzero(
                    lesion_classes(classes_on_grid(volume, first.geometry, study)))
                outside = 1 - fraction_within(lesion, volume.geometry, first.geometry)
                if has_lesion and (outside or not left):
                    doubts.append(DataError(f"{outside if left else 1:.1%} of the lesion is not on "
                                            "the first modality's grid and is lost", file=path))
            elif study.has_brain_mask and name == BRAIN_MASK:
                mask_on_grid(volume, first.geometry, study)
            else:
                # Transposed, an array from a file lies in memory in C's order and is not copied.
                own = hashlib.sha256(np.ascontiguousarray(volume.array.T).data).hexdigest()
                if same := [other for other, known in voxels.items() if known == own]:
                    doubts.append(DataError(
                        f"{name} is {same[0]} again, voxel for voxel, as some data sets fill in a "
                        "modality that a case lacks", file=path, hint="leave the case out, above "
                        "all where settings are chosen, or give it its own image"))
                voxels[name] = own
                if volume is not first and study.register == Register.RIGID:
                    # Where it lies is found when the case is prepared, not by reading.
                    check_image(volume)
                    continue
                held = image_on_grid(volume, first, study) != 0
                filled = held if filled is None else filled | held
        except DataError as error:
            (segmentation if labels else images).append(error)
    if (study.skull_stripped and not study.has_brain_mask and filled is not None
            and filled.mean() > _MOST_FILLED):
        doubts.append(DataError(
            f"{filled.mean():.1%} of the voxels are not 0 in every modality, so nearly all of the "
            "volume counts as brain", hint="set study.skull_stripped to false where the skull is "
            "there, or set the background to exactly 0"))
    image_problems, segmentation_problems, noted = (
        tuple(Problem.of(case.name, fault) for fault in faults)
        for faults in (images, segmentation, doubts))
    return CheckResult(image_problems, segmentation_problems, has_lesion, plan, noted,
                       tuple(voxels.values()))


def equal_images(voxels: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Return the sets of cases that share an image: one patient under several names.

    voxels: case -> what `CheckResult.voxels` says of it. Every set is sorted; two sets may overlap.
    """
    owners: dict[str, set[str]] = {}
    for case, images in voxels.items():
        for image in images:
            owners.setdefault(image, set()).add(case)
    return sorted({tuple(sorted(cases)) for cases in owners.values() if len(cases) > 1})


def check_volumes(volumes: Mapping[str, RawVolume], study: StudyConfig, slice_size: int = 0,
                  planes: Sequence[str] = PLANES[:1]) -> list[DataError]:
    """Say what is wrong with the images of one case that are in memory, as `check_case` does.

    volumes: name (`StudyConfig.inputs`) -> volume, in that order.
    """
    faults: list[DataError] = []
    first: RawVolume | None = None
    for name, volume in volumes.items():
        if first is None:
            first = volume
            try:
                plans_of(volume.geometry, slice_size, planes)
            except DataError as error:
                faults.append(volume.named(error))
        try:
            if study.has_brain_mask and name == BRAIN_MASK:
                mask_on_grid(volume, first.geometry, study)
            elif volume is not first and study.register == Register.RIGID:
                check_image(volume)
            else:
                image_on_grid(volume, first, study)
        except DataError as error:
            faults.append(error)
    return faults


def no_lesion(cases: Iterable[Case], study: StudyConfig) -> list[Problem]:
    """Word the problem of a study in which no case has a lesion, once for each case."""
    return [Problem(case.name, DataError(
        "no label but the background, as in every other case: there is nothing to learn; labels "
        f"{list(study.label_values)[1:]} were looked for", case=case.name, file=case.segmentation))
        for case in cases]


def refusal(problems: Iterable[Problem], total: int, hint: str | None = None) -> DataError:
    """One error that lists all problems by case, and what to do about them."""
    problems = list(problems)
    bad = len({problem.case for problem in problems})
    return DataError.listing([problem.fault for problem in problems],
                             f"{bad} of {total} cases cannot be used:", by_case=True, hint=hint)
