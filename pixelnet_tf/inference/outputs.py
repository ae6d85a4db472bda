"""The forms that segmentations are written in, behind one interface; NIfTI, the plain one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import OutputForm, StudyConfig
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import nifti_bytes, read_volume, write_probabilities

#: Folder of the probabilities.
MAPS = "probabilities"


class Output(ABC):
    """Where the files of a case are, and what they hold.

    The first of `files` says that a case is finished; it is written last, and removed first.
    """

    form: ClassVar[OutputForm]

    def __init__(self, out: Path, study: StudyConfig, cases: Mapping[str, Case]):
        self.out, self.study, self.cases = Path(out), study, cases
        self.recalled: dict[str, str] = {}

    def check(self) -> list[str]:
        """See that the cases can be written in this form, before any work.

        Returns:
            What a user should know of it, in sentences.

        Raises:
            PixelNetError: a case cannot be written so.
        """
        return []

    @abstractmethod
    def files(self, name: str) -> tuple[Path, ...]:
        """The files of a case's labels."""

    def maps(self, name: str) -> tuple[Path, ...]:
        """The files of its probabilities."""
        return (self.out / MAPS / f"{name}.nii.gz",)

    def places(self) -> dict[str, str]:
        """Case -> file of its labels within the folder, where that is not `<case>.nii.gz`."""
        return {}

    def recall(self, places: Mapping[str, str]) -> None:
        """Hear what `places` gave in earlier calls, of cases that are not among those of now."""
        self.recalled = dict(places)

    def settings(self) -> Any:
        """What shapes the files beside the labels and their names, as JSON values; None: nothing.
        """
        return None

    def begin(self) -> None:
        """Write what the folder holds as a whole."""
        return None

    @abstractmethod
    def data(self, name: str, labels: np.ndarray, geometry: VolumeGeometry, made_from: str
             ) -> bytes:
        """Return what the first of `files` holds.

        Args:
            labels: label values (x, y, z) uint8.
            made_from: digest of the images, the network and the settings: equal ones give equal
                labels.
        """

    def write_beside(self, name: str) -> None:
        """Write the others of `files`, which belong to it."""
        return None

    def write_maps(self, name: str, probabilities: np.ndarray, geometry: VolumeGeometry,
                   names: Sequence[str]) -> None:
        """Write probabilities (x, y, z, n) float32; names: of the n classes or regions."""
        write_probabilities(self.maps(name)[0], probabilities, geometry)

    def read(self, name: str, grid: VolumeGeometry | None = None
             ) -> tuple[np.ndarray, VolumeGeometry]:
        """Read label values (x, y, z) uint8 back, and where they lie; raises `DataError`.

        grid: in this order of the same voxels; None: in the file's.
        """
        array, geometry = read_volume(self.files(name)[0])
        return array.astype(np.uint8), geometry


class NiftiOutput(Output):
    """`<case>.nii.gz`, uint8, with exactly the geometry of the input."""

    form = OutputForm.NIFTI

    def files(self, name: str) -> tuple[Path, ...]:
        return (self.out / f"{name}.nii.gz",)

    def data(self, name: str, labels: np.ndarray, geometry: VolumeGeometry, made_from: str
             ) -> bytes:
        return nifti_bytes(self.files(name)[0], labels, geometry)


def output_of(form: OutputForm, out: Path, study: StudyConfig, cases: Mapping[str, Case]) -> Output:
    """The writer of a form.

    Args:
        cases: those that are to be written, as found on disk; of a prepared study, names alone.
    """
    # A form loads what it needs when it is asked for.
    if form == OutputForm.DICOM_SEG:
        from pixelnet_tf.inference.dicom_seg import DicomSegOutput
        return DicomSegOutput(out, study, cases)
    if form == OutputForm.BIDS:
        from pixelnet_tf.inference.bids import BidsOutput
        return BidsOutput(out, study, cases)
    return NiftiOutput(out, study, cases)
