"""`dataset.json`, by which nnU-Net and the Medical Segmentation Decathlon describe a data set."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelnet_tf.cases.names import IMAGE_ENDINGS, image_stem
from pixelnet_tf.config import StudyConfig
from pixelnet_tf.errors import ConfigError, shown
from pixelnet_tf.io.files import read_json_as
from pixelnet_tf.io.plain import PlainError, convert

DATASET_FILE = "dataset.json"
_ADVICE = "correct it, or write it anew as nnU-Net describes it"
_IGNORE = "ignore"


@dataclass(frozen=True)
class DatasetJson:
    """What the file says; whatever is absent is empty.

    Attributes:
        path: where the file is, or would be.
        channels: number of a channel -> name of its modality (`channel_names`, or `modality`).
        labels: label value -> name, with 0 first.
        regions: name -> label values, where `labels` unites several under one name; with
            `regions_class_order` every name but the background's is a region.
        regions_class_order: region -> the label value that its voxels get, in this order, of a data
            set that is meant for region-based training.
        ignore_label: the value of voxels that are not learned from.
        file_ending: ending of the images' names.
        training_cases: `numTraining`.
        training: names of the cases that `training` lists.
        listed: name of a case -> its images in the order of the channels, and its segmentation
            (None: it has none), where `dataset` says where they lie.
    """

    path: Path
    channels: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    regions_class_order: dict[str, int] = field(default_factory=dict)
    ignore_label: int | None = None
    file_ending: str | None = None
    training_cases: int | None = None
    training: tuple[str, ...] = ()
    listed: dict[str, tuple[tuple[Path, ...], Path | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> DatasetJson:
        """Read the file in a folder; empty where there is none.

        Raises:
            DataError: the file holds something else.
        """
        path = Path(folder) / DATASET_FILE
        if not path.is_file():
            return cls(path)
        return read_json_as(path, lambda tree: cls._of(path, tree), _ADVICE)

    @classmethod
    def _of(cls, path: Path, tree: Any) -> DatasetJson:
        tree = convert(dict[str, Any], tree, "the whole")
        key = "channel_names" if "channel_names" in tree else "modality"
        named = convert(dict[str, str], tree.get(key) or {}, key)
        channels = {_whole(number, f"a key of {key}"): name for number, name in named.items()}
        if sorted(channels) != list(range(len(channels))):
            raise PlainError(f"{key} must number the channels from 0 on, got {sorted(channels)}",
                             value=sorted(channels))
        named_labels = convert(dict[str, Any], tree.get("labels") or {}, "labels")
        labels, regions, ignore = _labels(named_labels)
        order: dict[str, int] = {}
        if (listed := tree.get("regions_class_order")) is not None:
            regions, order = _ordered(named_labels, labels, convert(
                tuple[int, ...], listed, "regions_class_order"))
        ending = convert(str | None, tree.get("file_ending"), "file_ending")
        if ending is not None and ending.lower() not in IMAGE_ENDINGS:
            raise PlainError(f"file_ending {ending!r} is none of {', '.join(IMAGE_ENDINGS)}, which "
                             "are read", value=ending)
        listed = tree.get("training") or ()
        training = []
        for place, entry in enumerate(listed if isinstance(listed, list) else ()):
            image = entry.get("image") if isinstance(entry, dict) else entry
            name = Path(convert(str, image, f"training[{place}].image")).name
            training.append(image_stem(name) or name)
        stated = tree.get("numTraining")
        return cls(path, dict(sorted(channels.items())), labels, regions, order, ignore, ending,
                   None if stated is None else _whole(stated, "numTraining"), tuple(training),
                   _listed(path.parent, tree.get("dataset")))


def _labels(tree: dict[str, Any]) -> tuple[dict[int, str], dict[str, tuple[int, ...]], int | None]:
    """Value -> name, regions and the value to ignore, of either way that labels are written in.

    nnU-Net writes name -> value, or name -> values of a region; before its second version, and in
    the Decathlon, value -> name. A value that regions alone name is called as the smallest of them,
    with the value behind it where others are called so, too.
    """
    labels: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    if tree and all(re.fullmatch(r"-?[0-9]+", key) for key in tree):
        labels = {_whole(key, "a key of labels"): convert(str, name, f"labels.{key}")
                  for key, name in tree.items()}
    else:
        for name, value in tree.items():
            if isinstance(value, list):
                regions[name] = tuple(_whole(each, f"labels.{name}") for each in value)
            else:
                labels[_whole(value, f"labels.{name}")] = name
    ignore = next((value for value, name in labels.items() if name.lower() == _IGNORE), None)
    if ignore is not None:
        del labels[ignore]
    for name, values in sorted(regions.items(), key=lambda region: len(region[1])):
        unnamed = [value for value in dict.fromkeys(values) if value not in labels]
        for value in unnamed:
            labels[value] = name if len(unnamed) == 1 else f"{name}_{value}"
    if same := [name for name, count in Counter(labels.values()).items() if count > 1]:
        raise PlainError(f"labels calls several values {same[0]!r}: "
                         f"{sorted(value for value in labels if labels[value] == same[0])}",
                         value=same[0])
    if labels and 0 not in labels:
        raise PlainError("labels must name 0, the background", value=sorted(labels))
    return dict(sorted(labels.items())), regions, ignore


def _listed(folder: Path, tree: Any) -> dict[str, tuple[tuple[Path, ...], Path | None]]:
    """The files of each case, as nnU-Net's second version lists them; empty for anything else.

    The form: {name: {images: [...], label: ...}}, with paths from the folder of dataset.json.
    """
    if not isinstance(tree, dict):
        return {}
    cases = {}
    for name, entry in tree.items():
        entry = convert(dict[str, Any], entry, f"dataset.{name}")
        images = convert(tuple[str, ...], entry.get("images"), f"dataset.{name}.images")
        label = convert(str | None, entry.get("label"), f"dataset.{name}.label")
        if not images:
            raise PlainError(f"dataset.{name}.images is empty", value=name)
        cases[name] = (tuple(folder / image for image in images),
                       None if label is None else folder / label)
    return cases


def _ordered(tree: dict[str, Any], labels: dict[int, str], order: tuple[int, ...]
             ) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The regions of region-based training, and the label value that each gets, in their order.

    nnU-Net lists a value for each name of `labels` but those of the background and of what is to be
    ignored, a single value being a region, too.
    """
    regions = {}
    for name, value in tree.items():
        values = tuple(_whole(each, f"labels.{name}")
                       for each in (value if isinstance(value, list) else [value]))
        if values != (0,) and name.lower() != _IGNORE:
            regions[name] = values
    if len(order) != len(regions):
        raise PlainError(f"regions_class_order has {len(order)} values, and labels names "
                         f"{len(regions)} regions: {list(regions)}", value=order)
    found = dict(zip(regions, order, strict=True))
    try:
        StudyConfig(labels=labels, regions=regions, regions_class_order=found)
    except ConfigError as error:
        raise PlainError(f"regions_class_order: {error.text}", value=order) from None
    return regions, found


def _whole(value: Any, where: str) -> int:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise PlainError(f"{where} must be a whole number, got {shown(value)}", value=value)
    return int(text)
