"""One case: read, brought to one grid, corrected, normalised, sliced."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.labels import values_to_classes
from pixelnet_tf.config import PLANES, NormRegion, PrepareConfig, Register, StudyConfig
from pixelnet_tf.config.sections import BRAIN_MASK
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.ahead import ahead
from pixelnet_tf.io.plain import PlainError, build
from pixelnet_tf.io.processor import own_cores
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.geometry import VolumeGeometry, moved
from pixelnet_tf.volumes.normalize import brain_mask, z_score
from pixelnet_tf.volumes.raw_volume import RawVolume
from pixelnet_tf.volumes.resample import bring_image, bring_labels, resample
from pixelnet_tf.volumes.slicing import SlicePlan, plans_of

#: What a process that prepares cases takes whatever their size: ITK, SciPy, nibabel, and what the
#: allocator keeps of arrays that are gone.
PROGRAM_BYTES = 320 << 20


@dataclass(frozen=True, eq=False)
class OwnGrid:
    """The grid of a modality's own file, which is not the one of the first modality.

    Attributes:
        geometry: as the file has it.
        motion: (4, 4) float64, from a point of the first modality's image in mm to the same point
            of this one: what registration found, else the identity.
    """

    geometry: VolumeGeometry
    motion: np.ndarray

    @property
    def placed(self) -> VolumeGeometry:
        """The grid where it lies in the first modality's image."""
        if (self.motion == np.eye(4)).all():
            return self.geometry
        return moved(self.geometry, self.motion)

    def bring(self, array: np.ndarray, first: VolumeGeometry) -> np.ndarray:
        """Bring labels or maps (x, y, z) or (x, y, z, channel) from the first modality's grid to
        this one, by the nearest voxel; 0 where that does not reach."""
        return _nearest(array, first, self.placed)

    def bring_back(self, array: np.ndarray, first: VolumeGeometry) -> np.ndarray:
        """Undo `bring`, but for what the nearest voxel takes away."""
        return _nearest(array, self.placed, first)

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `from_json` takes them."""
        return {"geometry": self.geometry.to_json(), "motion": self.motion.tolist()}

    @classmethod
    def from_json(cls, tree: Any) -> OwnGrid:
        """Build it from what `to_json` gave; raises `PlainError` for anything else."""
        stored = build(_StoredGrid, tree)
        motion = np.array(stored.motion, np.float64)
        if motion.shape != (4, 4) or not np.isfinite(motion).all() or not np.linalg.det(motion):
            raise PlainError("motion must be a 4 x 4 matrix that has an inverse",
                             value=stored.motion)
        return cls(VolumeGeometry.from_json(stored.geometry), motion)


@dataclass(frozen=True)
class _StoredGrid:
    """An `OwnGrid` as JSON holds it."""

    geometry: dict[str, Any]
    motion: tuple[tuple[float, ...], ...]


def _nearest(array: np.ndarray, geometry: VolumeGeometry, target: VolumeGeometry) -> np.ndarray:
    if array.ndim == 3:
        return resample(array, geometry, target, "nearest")
    return np.stack([resample(array[..., k], geometry, target, "nearest")
                     for k in range(array.shape[-1])], axis=-1)


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A case as the network sees it.

    Attributes:
        name: name of the case.
        images: (slice, height, width, channel) float32.
        labels: (slice, height, width) uint8 class indices, `IGNORED` where nobody has judged; None
            without segmentation.
        brain: (slice, height, width) bool.
        plan: leads slices back to the volume.
        geometry: where the first modality's file lies in space.
        normalization: modality -> {mean, std}, in the order of the channels.
        grids: modality -> its own grid, where that is not the first one's.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    brain: np.ndarray
    plan: SlicePlan
    geometry: VolumeGeometry
    normalization: dict[str, dict[str, float]]
    grids: Mapping[str, OwnGrid] = field(default_factory=dict)

    def in_plane(self, plane: str) -> PreparedVolume:
        """The same volume, of axial slices on its own grid, cut into slices of a plane.

        What is 0 in every channel, as outside the brain, stays so where pixels are divided.

        Raises:
            DataError: as `SlicePlan`.
        """
        if plane == self.plan.plane:
            return self
        plan = SlicePlan(self.geometry, plane=plane)

        def cut(slices: np.ndarray, order: str = "nearest") -> np.ndarray:
            return plan.view_to_slices(np.moveaxis(slices, (0, 1, 2), (2, 1, 0)), order)

        images = cut(self.images, "linear")
        np.copyto(images, 0, where=~cut((self.images != 0).any(axis=-1))[..., None])
        return replace(self, images=images, plan=plan, brain=cut(self.brain),
                       labels=None if self.labels is None else cut(self.labels))


def prepare_case(case: Case, study: StudyConfig, prepare: PrepareConfig,
                 reporter: Reporter | None = None) -> PreparedVolume:
    """Read a case and do to it all that lies between its files and the network.

    reporter: hears how many modalities are corrected and normalised.

    Raises:
        DataError: the case lacks a modality, a file cannot be read, or the grids differ while
            `study.resample` is off; the message names the case.
    """
    if case.faults:
        raise DataError.of(case.faults[0], case=case.name)
    volumes = {modality: partial(RawVolume.read, path) for modality, path in case.volumes.items()}
    segmentation = None if case.segmentation is None else partial(RawVolume.read,
                                                                  case.segmentation)
    return prepare_volumes(case.name, volumes, study, prepare, segmentation, case.missing, reporter)


def memory_to_prepare(geometry: VolumeGeometry, study: StudyConfig, prepare: PrepareConfig,
                      planes: Sequence[str] = PLANES[:1], cores: int = 1) -> int:
    """Bytes that preparing a case and compressing its slices take at most, beside the program's
    own (`PROGRAM_BYTES`).

    Counted from the arrays of a voxel that are there at once: the volume of the grid and the one
    that was read last, all channels, mask and classes, and beside them either what finds the head,
    what N4 and the z-score take for each channel in work, or the slices, as arrays and compressed.

    Args:
        geometry: of the first modality.
        planes: that it is cut along.
        cores: that the process has for it, by which channels are corrected side by side.
    """
    channels = len(study.modalities)
    voxels = math.prod(geometry.shape)
    pixels = max(plan.slices * plan.height * plan.width
                 for plan in plans_of(geometry, prepare.slice_size, planes))
    head = 0 if study.skull_stripped or study.has_brain_mask else 14 * channels
    correcting = 20 * _side_by_side(channels, cores)
    slices = (12 if prepare.slice_size else 8) * channels + 6
    return voxels * (10 + 4 * channels) + max(voxels * max(head, correcting), pixels * slices)


def _side_by_side(channels: int, cores: int) -> int:
    """How many channels are corrected at once: more than there are cores, so that three on two
    cores come to their end together, and no core is idle while the last one is corrected."""
    return 1 if cores == 1 else min(channels, 2 * cores)


def prepare_volumes(name: str, volumes: Mapping[str, Callable[[], RawVolume]],
                    study: StudyConfig, prepare: PrepareConfig,
                    segmentation: Callable[[], RawVolume] | None = None,
                    missing: Collection[str] = (), reporter: Reporter | None = None
                    ) -> PreparedVolume:
    """Do to the volumes of a case all that lies between them and the network.

    N4, z-score, axial slices, the ISLES rule (paper sections 3.2 and 3.3), as the two sections say.
    The result depends on the volumes and on them alone, and not on the order in which a file stores
    its axes.

    Args:
        name: name of the case, which messages give.
        volumes: name (`StudyConfig.inputs`) -> function that gives the volume; each is called once,
            in turn, so that no more than one volume as it came is held.
        segmentation: the same for label values; None: there are none.
        missing: modalities that are not there and whose channels are 0, which is the mean of the
            brain and the value outside it; the grid is that of the first one that is there.
        reporter: hears how many modalities are corrected and normalised.

    Raises:
        DataError: a modality is missing, or the grids differ while `study.resample` is off; the
            message names the case.
    """
    try:
        return _prepare(name, volumes, segmentation, study, prepare, missing,
                        reporter_or_log(reporter))
    except DataError as error:
        raise DataError.of(error, case=name) from None


def _prepare(name: str, volumes: Mapping[str, Callable[[], RawVolume]],
             segmentation: Callable[[], RawVolume] | None, study: StudyConfig,
             prepare: PrepareConfig, missing: Collection[str], reporter: Reporter
             ) -> PreparedVolume:
    absent = [name for name in study.inputs if name not in volumes and name not in missing]
    if absent:
        raise DataError(f"modality {absent[0]!r} is missing; the case has {list(volumes)}"
                        if absent[0] in study.modalities else "its brain mask is missing",
                        value=absent[0])
    there = [number for number, modality in enumerate(study.modalities) if modality in volumes]
    if not there:
        raise DataError("has no image of any modality", value=list(missing),
                        hint=f"give some of {list(study.modalities)}")
    first = volumes[study.modalities[there[0]]]()
    geometry = first.geometry
    plan = SlicePlan(geometry, prepare.slice_size)
    channels = np.zeros((*geometry.view_shape, len(study.modalities)), np.float32)
    grids = {}
    for number in there:
        modality, is_first = study.modalities[number], number == there[0]
        volume = first if is_first else volumes[modality]()
        if not is_first and study.register == Register.RIGID:
            motion = find_motion(volume, first)
        else:
            motion = np.eye(4)
        channels[..., number] = geometry.to_view(image_on_grid(volume, first, study, motion))
        own = OwnGrid(volume.geometry, motion)
        if own.placed.difference(geometry) is not None or (motion != np.eye(4)).any():
            grids[modality] = own
    labels = None
    if segmentation is not None:
        labels = geometry.to_view(classes_on_grid(segmentation(), geometry, study))

    if study.has_brain_mask:
        mask = geometry.to_view(mask_on_grid(volumes[BRAIN_MASK](), geometry, study))
    else:
        mask = brain_mask(channels if not missing else channels[..., there],
                          study.skull_stripped)
    normalization = {modality: {"mean": 0.0, "std": 0.0} for modality in study.modalities}
    field = prepare.bias_field
    if field.enabled:
        # SimpleITK takes 0.1 GB, which nothing here needs it for but this.
        from pixelnet_tf.volumes.bias_field import correct_bias_field

    def corrected(number: int) -> tuple[float, float]:
        """Correct and normalise a channel in its place; returns what the z-score took out."""
        array = channels[..., number]
        if field.enabled and study.modalities[number] in (field.modalities or study.modalities):
            array = correct_bias_field(array, geometry.view_spacing_mm, mask, field)
        channels[..., number], mean, std = z_score(array, mask, prepare.region)
        return mean, std

    # N4 keeps little more than one core busy, and leaves the interpreter's lock.
    found = ahead(corrected, there, _side_by_side(len(there), own_cores()))
    for done, number in enumerate(there):
        modality = study.modalities[number]
        reporter.progress("correcting", done, len(there), modality)
        mean, std = next(found)
        normalization[modality] = {"mean": mean, "std": std}

    images, brain = plan.view_to_slices(channels), plan.view_to_slices(mask, "nearest")
    if prepare.region != NormRegion.VOLUME:
        # Linear scaling spreads the rim of the brain into the background. By the mask itself:
        # an index holds 24 bytes a voxel.
        np.copyto(images, 0, where=~brain[..., None])
    return PreparedVolume(name, images,
                          None if labels is None else plan.view_to_slices(labels, "nearest"),
                          brain, plan, geometry, normalization, grids)


def find_motion(volume: RawVolume, first: RawVolume) -> np.ndarray:
    """Register an image to the first modality; returns an `OwnGrid.motion`.

    Raises:
        DataError: either image cannot be used, or the registration fails; the message names the
            file.
    """
    from pixelnet_tf.volumes.registration import register_rigid
    for each in (first, volume):
        check_image(each)
    try:
        return register_rigid(volume.array, volume.geometry, first.array, first.geometry)
    except DataError as error:
        raise volume.named(error) from None


def image_on_grid(volume: RawVolume, first: RawVolume, study: StudyConfig,
                  motion: np.ndarray | None = None) -> np.ndarray:
    """Check an image, and return it on the grid of the first modality.

    Args:
        motion: (4, 4), where registration found the image (`OwnGrid`); None or the identity: it
            lies where its header says.

    Returns:
        (x, y, z) float32 on the first one's grid, where every voxel is finite and not all are
        equal.

    Raises:
        DataError: the image holds NaN, infinity or one value alone, the grids differ while
            `study.resample` is off, or the two images do not lie at one place; the message names
            the file.
    """
    check_image(volume)
    geometry = volume.geometry if motion is None else OwnGrid(volume.geometry, motion).placed
    may = study.resample or study.register == Register.RIGID
    try:
        if volume is first or _is_on(geometry, first.geometry, may):
            return volume.array
        return bring_image(volume.array, geometry, first.geometry, first.array != 0,
                           study.skull_stripped)
    except DataError as error:
        raise volume.named(error) from None


def classes_on_grid(volume: RawVolume, grid: VolumeGeometry, study: StudyConfig) -> np.ndarray:
    """Check label values, and return them as class indices on the grid of the first modality.

    Returns:
        (x, y, z) uint8 on the grid.

    Raises:
        DataError: a label that the study does not name, grids that differ while `study.resample` is
            off, or most of the labelled voxels lie outside of the grid; the message names the file.
    """
    try:
        classes = values_to_classes(volume.array, study)
        if _is_on(volume.geometry, grid, study.resample):
            return classes
        return bring_labels(classes, volume.geometry, grid)
    except DataError as error:
        raise volume.named(error) from None


def mask_on_grid(volume: RawVolume, grid: VolumeGeometry, study: StudyConfig) -> np.ndarray:
    """Check a brain mask, and return it on the grid of the first modality.

    A voxel is brain where the value is above one half, so that shares of a voxel serve as well as
    0 and 1, or 0 and 255.

    Returns:
        (x, y, z) bool on the grid.

    Raises:
        DataError: no voxel is brain, grids that differ while `study.resample` is off, or most of
            the brain lies outside of the grid; the message names the file.
    """
    try:
        mask = volume.array > 0.5
        if not mask.any():
            raise DataError("no voxel of the brain mask is above 0.5",
                            hint="write 1 where the brain is, or leave `mask` out of study.files")
        if _is_on(volume.geometry, grid, study.resample):
            return mask
        return bring_labels(mask.astype(np.uint8), volume.geometry, grid, "brain") > 0
    except DataError as error:
        raise volume.named(error) from None


def check_image(volume: RawVolume) -> None:
    """Raise `DataError` where an image holds NaN, infinity or one value alone; it names the file.
    """
    array = volume.array
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise volume.named(DataError(
            f"{int((~finite).sum())} voxels are NaN or infinite, the first at {where}",
            value=int((~finite).sum()), hint="replace them"))
    if array.min() == array.max():
        raise volume.named(DataError(
            f"every voxel is {array.flat[0]:g}; the volume is empty", value=float(array.flat[0]),
            hint="fetch or convert it again"))


def _is_on(geometry: VolumeGeometry, grid: VolumeGeometry, may: bool) -> bool:
    """Whether a volume is on a grid; raises `DataError` where it is not and may not be brought."""
    difference = geometry.difference(grid)
    if difference is None:
        return True
    where = f"not on the grid of the first modality: {difference}"
    if geometry.permutation_to(grid) is not None:
        where += "; the same voxels in another order"
        advice = "set study.resample to true, which reorders them without any interpolation"
    elif grid.is_placed and not geometry.is_placed:
        # Where nothing is known of a place, no resampling finds it.
        raise DataError(f"{where}; its header does not tell where the volume lies",
                        hint="if it stores its voxels in the first modality's order, write it anew "
                             "with that affine")
    else:
        advice = "set study.resample to true to bring it there"
    if not may:
        raise DataError(where, hint=advice)
    return False
