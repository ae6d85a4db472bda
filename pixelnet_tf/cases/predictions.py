"""`prediction.json`: what stands beside segmentations, and says what they were made from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pixelnet_tf.config import OutputForm
from pixelnet_tf.io.files import (
    begin_folder,
    check_written,
    read_json_as,
    replacing,
    replacing_folder,
    write_json,
)
from pixelnet_tf.io.plain import build, convert

PREDICTION_FILE = "prediction.json"


@dataclass(frozen=True)
class NetworkRecord:
    """A network that segmented.

    Attributes:
        model: where it came from: a run, or a server's URL.
        weights, file: SHA-256 of its weights and of the model's file; None where they are unknown.
        correction: what was added to its scores, a number for each class.
        version: number of an export's version.
    """

    model: str = ""
    weights: str | None = None
    file: str | None = None
    correction: tuple[float, ...] = ()
    version: int | None = None


@dataclass(frozen=True)
class LeftOutRecord:
    """A case that was asked for and cannot be used, and why."""

    case: str
    reason: str


@dataclass(frozen=True)
class MadeFrom:
    """What a segmentation was made from.

    Attributes:
        images: modality -> SHA-256 of its file; text or None where a prepared study says no more.
        preparation, networks, prediction: digests of how the images were prepared, of the weights
            and corrections of all networks, and of the settings of the prediction.
    """

    images: Any = None
    preparation: str | None = None
    networks: str | None = None
    prediction: str | None = None


@dataclass(frozen=True)
class PredictionRecord:
    """What `prediction.json` holds; whatever is absent is empty.

    Attributes:
        cases: the cases that were asked for, the ones that were left out among them;
            None: nothing says it.
        left_out: what is wrong with some of them.
        trained_on: the ones that a network has learned from, or was chosen by.
        networks: several were averaged.
        prior, mode: prior and mode of the last call.
        config: its whole configuration, as `config_to_json` gave it.
        made_from: case -> what its segmentation was made from.
        output: the form of the segmentations.
        files: case -> its segmentation within the folder, where that is not `<case>.nii.gz`.
        grid: modality on whose own grid they are; empty: the first.
        missing: case -> modalities that it lacks and was segmented without.
    """

    cases: tuple[str, ...] | None = None
    left_out: tuple[LeftOutRecord, ...] = ()
    trained_on: tuple[str, ...] = ()
    networks: tuple[NetworkRecord, ...] = ()
    prior: str | None = None
    mode: str | None = None
    config: dict[str, Any] | None = None
    made_from: dict[str, MadeFrom] = field(default_factory=dict)
    output: OutputForm = OutputForm.NIFTI
    files: dict[str, str] = field(default_factory=dict)
    grid: str = ""
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def by_region(self) -> bool:
        """Whether the probabilities are those of overlapping regions, not of classes."""
        model = (self.config or {}).get("model")
        return isinstance(model, dict) and model.get("region_based") is True

    @classmethod
    def read(cls, folder: Path, advice: str = "predict again or remove it") -> PredictionRecord:
        """Read the file in a folder of segmentations; an empty record where there is none.

        Keys that this version does not know are passed over.

        Raises:
            DataError: the file holds something else; the message ends with `advice`.
        """
        path = Path(folder) / PREDICTION_FILE
        if not path.is_file():
            return cls()

        def known(tree: Any) -> PredictionRecord:
            tree = convert(dict[str, Any], tree, "the whole")
            return build(cls, {each.name: tree[each.name] for each in fields(cls)
                               if each.name in tree})

        return read_json_as(path, known, advice)

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return asdict(self)


def merge_predictions(parts: Mapping[Path, Sequence[str]], target: Path) -> None:
    """Put segmentations of several networks into one folder, with what they were made from.

    Args:
        parts: folder of segmentations -> the cases that are taken from it.
        target: what was there is replaced.

    Raises:
        DataError: a segmentation is not the one that was written. RunError: writing failed.
    """
    records = [PredictionRecord.read(part) for part in parts]
    merged = replace(
        records[0], cases=sum((record.cases or () for record in records), ()),
        left_out=sum((record.left_out for record in records), ()),
        trained_on=sum((record.trained_on for record in records), ()),
        networks=sum((record.networks for record in records), ()),
        made_from={case: made for record in records for case, made in record.made_from.items()})
    with replacing_folder(target) as folder:
        begin_folder(folder)
        for part, names in parts.items():
            for name in names:
                check_written(part / f"{name}.nii.gz", "run the same command again")
                with replacing(folder / f"{name}.nii.gz") as copy:
                    shutil.copyfile(part / f"{name}.nii.gz", copy)
        write_json(folder / PREDICTION_FILE, merged.to_json())
