"""One case of a study: its files, by modality."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelnet_tf.cases.dicom_series import DicomSeries
from pixelnet_tf.errors import DataError, MissingVolume


@dataclass(frozen=True)
class Channel:
    """A volume of a file of four dimensions; as a path it is the file.

    Attributes:
        path: the file.
        number: which volume of it, from 0.
        of: how many the study says that it holds.
    """

    path: Path
    number: int
    of: int

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return f"{self.path} (volume {self.number} of {self.of})"


#: What a volume of a case is read from.
Source = Path | DicomSeries | Channel


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes:
        name: unique in its study; predictions are named after it.
        volumes: modality -> file, volume of a file, or DICOM series, in the order of
            `study.modalities`, and last the brain mask, as `mask`, where the study has such files
            (`StudyConfig.inputs`).
        segmentation: file of expert labels; None where there is none or none is wanted.
        smir_id: number of the SMIR folder that a submission to ISLES is named after.
        faults: what is wrong with the images in the case's folder, for `check_cases` to report.
        segmentation_faults: what is wrong with its segmentation there.
        test: the study's layout sets it aside as a test case (nnU-Net's imagesTs), which is
            prepared without a segmentation where it has none.
        missing: modalities that it lacks and is to be segmented without.
    """

    name: str
    volumes: Mapping[str, Source] = field(default_factory=dict)
    segmentation: Path | None = None
    smir_id: str | None = None
    faults: tuple[DataError, ...] = ()
    segmentation_faults: tuple[DataError, ...] = ()
    test: bool = False
    missing: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Source, ...]:
        """What each volume is read from, then the segmentation."""
        return (*self.volumes.values(), *([self.segmentation] if self.segmentation else []))

    @property
    def lacks(self) -> tuple[str, ...]:
        """Modalities of which there is no file, where that is all that is wrong and there is one of
        another; else empty."""
        names = tuple(str(fault.value) for fault in self.faults if isinstance(fault, MissingVolume))
        return names if self.volumes and len(names) == len(self.faults) else ()

    def holds(self, modality: str) -> bool:
        """Whether it has a file of a modality, or several of which none was chosen."""
        return modality in self.volumes or any(
            fault.value == modality and not isinstance(fault, MissingVolume)
            for fault in self.faults)

    def allowing_missing(self) -> Case:
        """Return the case as one that is to be segmented without the modalities that it lacks."""
        return replace(self, faults=(), missing=self.lacks) if self.lacks else self

    def allowing_unlabelled(self) -> Case:
        """Return the case as one that may be without a segmentation: that it lacks one is no fault,
        that several fit still is."""
        kept = tuple(fault for fault in self.segmentation_faults
                     if not isinstance(fault, MissingVolume))
        return replace(self, segmentation_faults=kept)

    def without_segmentation(self) -> Case:
        """Return the images alone, for what needs no truth; nothing of a segmentation is left."""
        return replace(self, segmentation=None, segmentation_faults=())
