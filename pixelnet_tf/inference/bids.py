"""BIDS: segmentations as a derivative data set, with the names that its sources have.

Brain Imaging Data Structure, "Derivatives": `_mask` for one label, `_dseg` with a table of its
labels for several, `_probseg` for probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pixelnet_tf import __version__
from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.names import image_stem
from pixelnet_tf.config import OutputForm, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.inference.outputs import Output
from pixelnet_tf.io.files import write_json, write_text
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.nifti import nifti_bytes, write_probabilities

#: The version of BIDS whose names these are.
BIDS_VERSION = "1.10.0"
#: A name in BIDS: subject, session, other entities, and the suffix, which says what a file is.
_NAME = re.compile(r"(?P<sub>sub-[0-9A-Za-z]+)(?P<ses>_ses-[0-9A-Za-z]+)?"
                   r"(?P<others>(?:_[a-z]+-[0-9A-Za-z]+)*)(?P<suffix>_[0-9A-Za-z]+)?")
#: Kinds of images whose segmentations have a place beside them; those of others are put to anat.
_KINDS = ("anat", "dwi")
#: What is none of BIDS' files. The validator takes a folder by its name without a `/`.
_IGNORED = ("manifest.jsonl", "prediction.json", "overlays", "uncertainty", "lesions",
            "lesions.tsv", ".lock", ".*.tmp")


class BidsOutput(Output):
    """`sub-01/[ses-02/]anat/<names of the source>_dseg.nii.gz` and what belongs to it."""

    form = OutputForm.BIDS

    def __init__(self, out: Path, study: StudyConfig, cases: Mapping[str, Case]):
        super().__init__(out, study, cases)
        self._one = len(study.labels) == 2
        self._stems = {name: self._stem(name, case) for name, case in cases.items()}

    @property
    def suffix(self) -> str:
        """What the files of labels are: a mask of one label, or a segmentation of several."""
        return "mask" if self._one else "dseg"

    def check(self) -> list[str]:
        """As of `Output`; it is said which names are made, and two cases of one are refused."""
        owners: dict[str, str] = {}
        for name, stem in self._stems.items():
            other = owners.setdefault(stem.lower(), name)
            if other != name:
                raise DataError(f"would have the same name in BIDS as {other}, {Path(stem).name}",
                                case=name, value=Path(stem).name, hint="rename one of the cases")
        made = [f"{name} as {Path(stem).name}" for name, stem in self._stems.items()
                if not _NAME.fullmatch(name)]
        more = f" and {len(made) - 5} more" if len(made) > 5 else ""
        return ["these cases have no names of BIDS and are written under others: "
                + ", ".join(made[:5]) + more] if made else []

    def files(self, name: str) -> tuple[Path, ...]:
        endings = ["nii.gz", "json"] if self._one else ["nii.gz", "tsv", "json"]
        return tuple(self._file(name, self.suffix, ending) for ending in endings)

    def maps(self, name: str) -> tuple[Path, ...]:
        return tuple(self._file(name, "probseg", ending) for ending in ("nii.gz", "json"))

    def places(self) -> dict[str, str]:
        return {name: self.files(name)[0].relative_to(self.out).as_posix() for name in self.cases}

    def begin(self) -> None:
        write_json(self.out / "dataset_description.json", {
            "Name": f"Segmentations of {self.study.name} by pixelnet-tf",
            "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "pixelnet-tf", "Version": __version__,
                             "Description": "Class-Balanced PixelNet, as prediction.json says"}]})
        write_text(self.out / ".bidsignore", "".join(f"{line}\n" for line in _IGNORED))
        write_text(self.out / "README.md", _README.format(suffix=self.suffix))

    def data(self, name: str, labels: np.ndarray, geometry: VolumeGeometry, made_from: str
             ) -> bytes:
        # A mask holds 0 and 1, whatever the value of the label is.
        values = (labels != 0).astype(np.uint8) if self._one else labels
        return nifti_bytes(self.files(name)[0], values, geometry)

    def write_beside(self, name: str) -> None:
        about = {"Description": f"Segmentation of {self.study.name} by pixelnet-tf {__version__}"}
        write_json(self._file(name, self.suffix, "json"),
                   about | ({"Type": "Lesion"} if self._one else {"Manual": False}))
        if not self._one:
            rows = "".join(f"{value}\t{label}\n" for value, label in self.study.labels.items())
            write_text(self._file(name, self.suffix, "tsv"), f"index\tname\n{rows}")

    def write_maps(self, name: str, probabilities: np.ndarray,
                   geometry: VolumeGeometry, names: Sequence[str]) -> None:
        image, about = self.maps(name)
        what = "class" if tuple(names) == self.study.class_names else "region"
        write_json(about, {"Description": f"Probability of each {what}, along the fourth axis",
                           "LabelMap": list(names)})
        write_probabilities(image, probabilities, geometry)

    def read(self, name: str, grid: VolumeGeometry | None = None
             ) -> tuple[np.ndarray, VolumeGeometry]:
        labels, geometry = super().read(name, grid)
        return labels * np.uint8(self.study.label_values[1]) if self._one else labels, geometry

    def _file(self, name: str, suffix: str, ending: str) -> Path:
        stem = self._stems.get(name)
        if stem is None and name in self.recalled:
            stem = self.recalled[name].removesuffix(f"_{self.suffix}.nii.gz")
        return self.out / f"{stem or self._stem(name, Case(name))}_{suffix}.{ending}"

    def _stem(self, name: str, case: Case) -> str:
        """Path of a case's files within the data set, without suffix and ending.

        The entities are those of the file of the first modality that is there, else those of the
        case's name; where neither is a name of BIDS, the case's letters and digits make a subject.
        """
        source = next((case.volumes[each] for each in self.study.modalities
                       if each in case.volumes), None)
        kind = "anat"
        match = None
        if isinstance(source, Path):
            match = _NAME.fullmatch(image_stem(source.name) or "")
            if match and match["suffix"] and source.parent.name in _KINDS:
                kind = source.parent.name
        match = match or _NAME.fullmatch(name)
        if match is None:
            label = "".join(char for char in name if char.isascii() and char.isalnum())
            if not label:
                raise DataError("has no ASCII letter or digit in its name, of which a name of BIDS "
                                "could be made", case=name, value=name, hint="rename it")
            return f"sub-{label}/{kind}/sub-{label}"
        subject, session = match["sub"], match["ses"] or ""
        folder = "/".join(filter(None, [subject, session[1:], kind]))
        return f"{folder}/{subject}{session}{match['others']}"


_README = """\
# Segmentations by pixelnet-tf

Made by a network, for research use only; `prediction.json` says by which one, of which images and
by which settings. The files `*_{suffix}.nii.gz` lie on the grid of the first modality.
"""
