"""A volume as it came, of a file of any form or of a DICOM series.

Whoever reads one and does no more to it, such as the scores, loads no SimpleITK.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.case import Channel, Source
from pixelnet_tf.cases.dicom_series import DicomSeries
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.dicom import read_series, series_geometry
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.images import read_geometry, read_volume


@dataclass(frozen=True, eq=False)
class RawVolume:
    """A volume as it came: array (x, y, z), where it lies, and its file or series, or the name that
    messages give to one in memory."""

    array: np.ndarray
    geometry: VolumeGeometry
    source: Source | str

    @classmethod
    def read(cls, source: str | os.PathLike[str] | Source) -> RawVolume:
        """Read a file, a volume of one or a DICOM series; raises as `read_volume` and
        `read_series`."""
        if isinstance(source, DicomSeries):
            return cls(*read_series(source), source)
        if isinstance(source, Channel):
            return cls(*read_volume(source.path, source.number, source.of), source)
        return cls(*read_volume(Path(source)), Path(source))

    def named(self, error: DataError) -> DataError:
        """What is wrong with the volume, with its file or name."""
        return DataError.of(error, source=self.source)


def geometry_of(source: Source) -> VolumeGeometry:
    """Where a file or a DICOM series lies, without its voxels; raises as `RawVolume.read`."""
    if isinstance(source, DicomSeries):
        return series_geometry(source)
    if isinstance(source, Channel):
        return read_geometry(source.path, source.of)
    return read_geometry(source)
