"""One case of a study: its files, by modality."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes:
        name: unique in its study; predictions are named after it.
        volumes: modality -> file, in the order of `study.modalities`.
        segmentation: file of expert labels; None where there is none or none is wanted.
        smir_id: number of the SMIR folder that a submission to ISLES is named after.
        faults: what was wrong with the case's folder, for `check_cases` to report.
    """

    name: str
    volumes: dict[str, Path] = field(default_factory=dict)
    segmentation: Path | None = None
    smir_id: str | None = None
    faults: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the case: the volumes, then the segmentation."""
        return (*self.volumes.values(), *([self.segmentation] if self.segmentation else []))
