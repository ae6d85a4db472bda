"""`lesions.tsv`: every lesion of a folder of segmentations, a row each.

Beside each segmentation lies `lesions/<case>.json`, written before it, with what is known of its
lesions while the network's probabilities are at hand. The table is put together from these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelnet_tf.config import StudyConfig
from pixelnet_tf.io.csv_text import csv_text
from pixelnet_tf.io.files import file_digest, read_json_as, write_json, write_text
from pixelnet_tf.io.plain import build
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.lesions import Lesion, LesionVoxels, list_lesions
from pixelnet_tf.volumes.nifti import read_probabilities, read_volume

LESIONS_FILE = "lesions.tsv"
#: Column -> its meaning.
LESION_COLUMNS = {
    "case": "name of the case",
    "region": "name of the region; a case has at least one row for each",
    "lesion": "number of the lesion, 1 for the largest of the region; 0: there is none",
    "volume_ml": "volume in millilitres",
    "x_mm, y_mm, z_mm": "mean place of its voxels along R, A and S of the scanner",
    "touches_border": "yes where a voxel of it is the outermost one of the image along an axis",
    "mean_probability": "mean probability of the region over its voxels",
    "mean_entropy": "mean entropy of the class probabilities over its voxels, in nats",
}
_COLUMNS = tuple(name for names in LESION_COLUMNS for name in names.split(", "))
#: What a value reads that there is none of, or that is unknown.
_NONE = "n/a"
#: Gives label values (x, y, z) uint8 and where they lie: in a grid's order of the voxels, or, of
#: None, in the file's.
ReadLabels = Callable[[VolumeGeometry | None], tuple[np.ndarray, VolumeGeometry]]


@dataclass(frozen=True)
class CaseLesions:
    """What `lesions/<case>.json` holds.

    Attributes:
        labels: SHA-256 of the segmentation's file that the lesions are those of.
        lesions: all of them.
    """

    labels: str
    lesions: tuple[Lesion, ...]

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, asdict(self))


def lesions_of(path: Path, labels: Path, study: StudyConfig, probabilities: Path,
               entropy_map: Path,
               read: ReadLabels | None = None, by_region: bool = False) -> CaseLesions:
    """The lesions of a segmentation in a folder.

    They are those of `lesions/<case>.json`, unless it is missing or the segmentation has been
    replaced since (by hand, say, or by an earlier version): then they are listed anew, with what
    the maps say that are there, and the file is written.

    Args:
        path: `lesions/<case>.json`.
        labels: the segmentation.
        probabilities, entropy_map: the maps, each of which may be missing.
        read: reads a segmentation that is no NIfTI file.
        by_region: the probabilities are those of the study's regions, not of its classes.

    Raises:
        DataError: a file that cannot be read.
    """
    written = file_digest(labels)
    if path.is_file():
        known = read_json_as(path, lambda tree: build(CaseLesions, tree), "remove it")
        if known.labels == written:
            return known
    shares, grid = read_probabilities(probabilities) if probabilities.is_file() else (None, None)
    entropy, grid = read_volume(entropy_map) if entropy_map.is_file() else (None, grid)
    array, geometry = read(grid) if read else read_volume(labels)
    values = array.astype(np.uint8)
    voxels = LesionVoxels.of(values, shares, entropy, by_region)
    found = CaseLesions(written, tuple(list_lesions(values, geometry.affine, study, voxels)))
    found.write(path)
    return found


def write_lesion_table(path: Path, cases: Mapping[str, CaseLesions], study: StudyConfig) -> None:
    """Write `lesions.tsv`, the cases by name."""
    rows = [row for case in sorted(cases)
            for row in lesion_rows(case, cases[case].lesions, study.regions)]
    write_text(path, csv_text([_COLUMNS, *([_cell(row[name]) for name in _COLUMNS]
                                           for row in rows)], delimiter="\t"))


def lesion_rows(case: str, lesions: Sequence[Lesion], regions: Iterable[str]
                ) -> list[dict[str, Any]]:
    """Return a row for each lesion of a case, and one with lesion 0 for a region without any."""
    rows: list[dict[str, Any]] = []
    for region in regions:
        inside = [lesion for lesion in lesions if lesion.region == region]
        rows += [dict(zip(_COLUMNS, (
            case, region, one.number, one.volume_ml, *one.centroid_mm, one.touches_border,
            one.mean_probability, one.mean_entropy), strict=True)) for one in inside]
        if not inside:
            rows.append(dict.fromkeys(_COLUMNS) | {"case": case, "region": region, "lesion": 0,
                                                   "volume_ml": 0.0})
    return rows


def _cell(value: Any) -> Any:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else value
