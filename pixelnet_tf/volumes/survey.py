"""A look at a study before anything is computed: sizes, spacing, labels, lesions, skull.

It reads the header of every case and every label volume, and the images of a few cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from pixelnet_tf.cases.case import Case, Source
from pixelnet_tf.cases.labels import whole_values
from pixelnet_tf.errors import DataError
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.raw_volume import RawVolume, geometry_of

#: Cases whose lesions are counted, and cases whose images are looked at for a skull.
_COUNTED, _LOOKED_AT = 32, 3
#: A stripped volume is exactly 0 in this share of its voxels at least, in every image.
_LEAST_AIR = 0.2
#: Just inside its outline, a stripped brain has this share of the image's 99th percentile at least;
#: with skull and noise around it, the outline lies in the air.
_LEAST_RIM = 0.12


@dataclass(frozen=True)
class LabelCount:
    """What the labels of one case hold.

    Attributes:
        case, file: its name, and the file.
        voxels: label value -> voxels, the background left out.
        total: voxels of the volume.
        slices, lesion_slices: axial slices, and those with a lesion.
        masses_ml: volumes of the 26-connected components of all labels together, largest first;
            None where they were not counted.
    """

    case: str
    file: Path
    voxels: dict[float, int]
    total: int
    slices: int
    lesion_slices: int
    masses_ml: tuple[float, ...] | None


@dataclass(frozen=True)
class Survey:
    """What a study holds.

    Attributes:
        cases, with_truth: number of cases, and of those with a segmentation.
        sizes: (columns, rows, slices) in the axial view -> number of cases, the most frequent
            first.
        spacing_mm: median sides of a voxel, left-right, front-back, bottom-top.
        orientations: order of storage, such as "RAS" -> number of cases, the most frequent first.
        labels: what the labels of each case hold.
        stripped: whether the skull is removed; None where no image could be read.
        air, rim: medians of what that was told by: the share of voxels that are 0 in all images,
            and the brightness just inside the outline as a share of the 99th percentile.
        grids_differ: cases whose images, and segmentation, do not lie on one grid.
        unread: cases whose segmentation cannot be read.
    """

    cases: int
    with_truth: int
    sizes: dict[tuple[int, int, int], int]
    spacing_mm: tuple[float, float, float]
    orientations: dict[str, int]
    labels: tuple[LabelCount, ...]
    stripped: bool | None
    air: float
    rim: float
    grids_differ: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def label_values(self) -> tuple[float, ...]:
        """Every value that occurs, the background left out, in order."""
        return tuple(sorted({value for count in self.labels for value in count.voxels}))

    def share(self, value: float) -> float:
        """Share of a label among all voxels of the cases with truth."""
        total = sum(count.total for count in self.labels)
        return sum(count.voxels.get(value, 0) for count in self.labels) / max(total, 1)

    @property
    def lesion_slice_share(self) -> float:
        """Share of the axial slices with a lesion."""
        return (sum(count.lesion_slices for count in self.labels)
                / max(sum(count.slices for count in self.labels), 1))

    @property
    def longest_side(self) -> int:
        """Longest side of a slice, in pixels."""
        return max(max(columns, rows) for columns, rows, _ in self.sizes)

    @property
    def shortest_side(self) -> int:
        """Shortest side of a slice, in pixels."""
        return min(min(columns, rows) for columns, rows, _ in self.sizes)

    @property
    def slices_per_case(self) -> float:
        """Mean number of axial slices of a case."""
        return sum(size[2] * count for size, count in self.sizes.items()) / self.cases

    @property
    def anisotropy(self) -> float:
        """Distance of slices over the larger side of a pixel; 1 for cubes."""
        across, down, along = self.spacing_mm
        return along / max(across, down)


def survey_study(cases: Sequence[Case], ignored: int | None, reporter: Reporter) -> Survey:
    """Look at the cases of a study, which `find_cases` has listed.

    Args:
        ignored: the label value of voxels that nobody has judged; None: there is none.
        reporter: hears of the task "looking", in files.

    Raises:
        DataError: no case has a file that can be read. A case that cannot be read is passed over:
            `prepare` lists what is wrong with it.
    """
    with_truth = [case for case in cases if case.segmentation is not None]
    counted = {case.name for case in _spread(with_truth, _COUNTED)}
    seen = _spread([case for case in cases if case.volumes], _LOOKED_AT)
    total, done = len(cases) + len(with_truth) + len(seen), 0

    def said(detail: str) -> None:
        nonlocal done
        done += 1
        reporter.progress("looking", done, total, detail)

    geometries, differ, fault = [], [], None
    for case in cases:
        try:
            own = [geometry_of(source) for source in case.volumes.values()]
            if own:
                geometries.append(own[0])
            if case.segmentation is not None and own:
                # A truth in NIfTI beside DICOM may have the same voxels in another order.
                own.append(geometry_of(case.segmentation))
            if any(own[0].difference(other) for other in own[1:]):
                differ.append(case.name)
        except DataError as error:
            fault = fault or DataError.of(error, case=case.name)
        said(case.name)
    if not geometries:
        raise fault or DataError("no case has an image", hint="see `pixelnet-tf prepare --dry-run`")

    labels, unread = [], []
    # The time goes into unpacking, which other threads do not wait for.
    with ThreadPoolExecutor(4) as pool:
        for case, count in zip(with_truth, pool.map(
                lambda case: _count(case, ignored, case.name in counted), with_truth),
                strict=True):
            if count is None:
                unread.append(case.name)
            else:
                labels.append(count)
            said(case.name)

    looks = []
    for case in seen:
        look = _air_and_rim(list(case.volumes.values()))
        looks += [] if look is None else [look]
        said(case.name)
    air, rim = np.median(looks, axis=0) if looks else (0.0, 0.0)
    return Survey(
        len(cases), len(with_truth),
        dict(Counter(geometry.view_shape for geometry in geometries).most_common()),
        _median([geometry.view_spacing_mm for geometry in geometries]),
        dict(Counter("".join(nib.aff2axcodes(geometry.affine)) for geometry in geometries
                     ).most_common()),
        tuple(labels), bool(air >= _LEAST_AIR and rim >= _LEAST_RIM) if looks else None,
        float(air), float(rim), tuple(differ), tuple(unread))


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """At most `count` of the cases, evenly from the first to the last."""
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    return [cases[place] for place in places]


def _median(spacings: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    across, down, along = (float(side) for side in np.median(spacings, axis=0))
    return across, down, along


def _count(case: Case, ignored: int | None, masses: bool) -> LabelCount | None:
    """What a label volume holds; None where it cannot be read."""
    path = case.segmentation
    try:
        volume = RawVolume.read(path)  # type: ignore[arg-type]
    except DataError:
        return None
    array = whole_values(volume.array)
    inside = (array != 0) & (array != (0 if ignored is None else ignored))
    values, counts = np.unique(array[inside], return_counts=True)
    view = volume.geometry.to_view(inside)
    return LabelCount(case.name, path,  # type: ignore[arg-type]
                      dict(zip(values.tolist(), counts.tolist(), strict=True)), array.size,
                      view.shape[2], int(view.any(axis=(0, 1)).sum()),
                      _masses(inside, volume.geometry) if masses else None)


def _masses(inside: np.ndarray, geometry: VolumeGeometry) -> tuple[float, ...]:
    box = ndimage.find_objects(inside.astype(np.uint8))
    if not box:
        return ()
    pieces, _ = ndimage.label(inside[box[0]], np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:] * geometry.voxel_mm3 / 1000
    return tuple(np.sort(sizes)[::-1].tolist())


def _air_and_rim(sources: Sequence[Source]) -> tuple[float, float] | None:
    """Share of voxels that are 0 in every image, and the brightness of the outline's inner side.

    Images on another grid than the first are passed over; None where none can be read.
    """
    images: list[RawVolume] = []
    try:
        for source in sources:
            image = RawVolume.read(source)
            if not images or images[0].geometry.difference(image.geometry) is None:
                images.append(image)
    except DataError:
        return None
    views = [images[0].geometry.to_view(image.array) for image in images]
    held = np.any([view != 0 for view in views], axis=0)
    # Of the slice that holds most.
    number = int(held.sum(axis=(0, 1)).argmax())
    mask = ndimage.binary_fill_holes(held[..., number])
    rim = mask & ~ndimage.binary_erosion(mask, iterations=2)
    scaled = [view[..., number] / max(float(np.percentile(view, 99)), 1e-6) for view in views]
    return float(1 - held.mean()), float(np.mean([each[rim].mean() for each in scaled])
                                         if rim.any() else 0.0)
