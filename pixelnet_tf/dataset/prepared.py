"""A prepared study on disk: its configuration, split, index and slices."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.split import SPLIT_ADVICE, DrawnSplit, Split
from pixelnet_tf.config import Config, config_from_yaml
from pixelnet_tf.dataset.encode import decode
from pixelnet_tf.dataset.index import PREPARE_AGAIN, SliceIndex, read_case_record
from pixelnet_tf.dataset.shards import read_record
from pixelnet_tf.errors import DataError
from pixelnet_tf.io import remote
from pixelnet_tf.io.files import digest, read_json_as, read_text
from pixelnet_tf.io.plain import PlainError
from pixelnet_tf.volumes.case_volume import OwnGrid, PreparedVolume
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan

if TYPE_CHECKING:
    from pixelnet_tf.dataset.prepare_study import PrepareSummary


class PreparedStudy:
    """What `pixelnet-tf prepare` wrote.

    Attributes
    ----------
    path
        Folder of the prepared study.
    config
        The resolved configuration of `prepare`.
    split
        Training, validation and test cases, and folds.
    index
        One row a slice.
    summary
        What the call that prepared it did; None where it was opened later.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> prepared = px.PreparedStudy.open("prepared")
    >>> prepared.split.test
    ('phantom_003',)
    >>> prepared.read_volume("phantom_003").images.shape        # (slice, height, width, channel)
    (16, 28, 30, 3)
    """

    def __init__(self, path: str, config: Config, split: Split, index: SliceIndex,
                 summary: PrepareSummary | None = None):
        self.path = path
        self.config = config
        self.split = split
        self.index = index
        self.summary = summary

    @classmethod
    def open(cls, path: str | os.PathLike, summary: PrepareSummary | None = None
             ) -> PreparedStudy:
        """Open a prepared study, which may also be in an object store: "s3://bucket/prepared".

        Raises
        ------
        DataError
            The folder is missing or not a prepared study, or preparing has not ended.
        """
        path = remote.local(path)
        if not tf.io.gfile.exists(os.path.join(path, "index.json")):
            raise DataError("not a prepared study, or one that is not finished (no index.json)",
                            file=path,
                            hint="run `pixelnet-tf prepare --config CONFIG --data STUDY --out "
                                 f"{remote.named(path)}` to its end")
        source = os.path.join(path, "config.yaml")
        config = config_from_yaml(read_text(source), source)
        drawn = read_json_as(os.path.join(path, "split.json"), DrawnSplit.from_json, SPLIT_ADVICE)
        index = read_json_as(os.path.join(path, "index.json"), SliceIndex.from_json, PREPARE_AGAIN)
        classes = len(config.study.labels)
        if len(index) and index.class_counts.shape[1] != classes:
            raise DataError(f"index.json counts {index.class_counts.shape[1]} classes, "
                            f"config.yaml names {classes}", file=path, hint=PREPARE_AGAIN)
        return cls(path, config, drawn.split, index, summary)

    @property
    def cases(self) -> tuple[str, ...]:
        """Case names, in the order of the index."""
        return self.index.cases

    @cached_property
    def labelled(self) -> bool:
        """Whether the cases have segmentations."""
        return bool(self.index.class_counts.any())

    def case_details(self, case: str) -> dict[str, Any]:
        """Return what `cases/<case>.json` holds: geometry, normalization, SMIR number.

        Raises
        ------
        DataError
            No such case.
        """
        self.index.rows_of([case])
        return read_case_record(os.path.join(self.path, "cases", f"{case}.json"))

    def digest(self, case_names: Iterable[str]) -> str:
        """Return a digest of some cases' slices, and of the contents that they were made from.

        Raises
        ------
        DataError
            A name that the study does not have.
        """
        names = sorted(case_names)
        return digest([self.index.digest(names),
                       [self.case_details(name).get("made_from") for name in names]])

    def geometry(self, case: str) -> VolumeGeometry:
        """Where a case's volume lies in space.

        Raises
        ------
        DataError
            No such case, or its JSON file is broken.
        """
        try:
            return VolumeGeometry.from_json(self.case_details(case)["geometry"])
        except PlainError as error:
            raise DataError.of(error, case=case, file=self.path, hint=PREPARE_AGAIN) from None

    def check_shard(self, case: str) -> None:
        """Raise `DataError` where a case's shard is not the one that was written with its JSON."""
        details = self.case_details(case)
        path = os.path.join(self.path, details["shard"])
        if (not tf.io.gfile.exists(path)
                or tf.io.gfile.stat(path).length != details["shard_bytes"]):
            raise DataError("missing or cut short", file=path,
                            hint="run `pixelnet-tf prepare` again")

    def read_record_bytes(self, row: int) -> bytes:
        """Read the record of an index row, for `parse_record`.

        Raises
        ------
        DataError
            As `read_record`.
        """
        index = self.index
        return read_record(os.path.join(self.path, str(index.shard[row])), int(index.offset[row]),
                           int(index.length[row]))

    def read_volume(self, case: str) -> PreparedVolume:
        """Read every slice of a case.

        Returns
        -------
        PreparedVolume
            The volume as `prepare_case` gave it; `labels` is None without segmentation.

        Raises
        ------
        DataError
            No such case, or its shard is broken.
        """
        details = self.case_details(case)
        geometry = self.geometry(case)
        try:
            grids = {modality: OwnGrid.from_json(tree)
                     for modality, tree in details.get("grids", {}).items()}
        except PlainError as error:
            raise DataError.of(error, case=case, file=self.path, hint=PREPARE_AGAIN) from None
        plan = SlicePlan(geometry, self.config.prepare.slice_size)
        shape = (plan.slices, plan.height, plan.width)
        rows = self.index.rows_of([case])
        if sorted(self.index.slice[rows]) != list(range(plan.slices)):
            raise DataError(f"the index has {len(rows)} slices of the case, its geometry "
                            f"{plan.slices}", case=case, file=self.path, hint=PREPARE_AGAIN)
        images = np.empty((*shape, len(details["normalization"])), np.float32)
        labels, brain = np.empty(shape, np.uint8), np.empty(shape, bool)
        for row in rows:
            streams = tf.train.Example.FromString(self.read_record_bytes(row)).features.feature
            number = self.index.slice[row]
            for array, name, dtype in ((images, "image", "<f4"), (labels, "labels", "u1"),
                                       (brain, "brain", "u1")):
                try:
                    array[number] = decode(streams[name].bytes_list.value[0], dtype,
                                           array.shape[1:])
                except ValueError:
                    raise DataError(f"slice {number} has another shape than the case's geometry "
                                    f"and modalities say ({array.shape[1:]})", case=case,
                                    file=self.path, hint=PREPARE_AGAIN) from None
        return PreparedVolume(case, images, labels if details["labelled"] else None, brain, plan,
                              geometry, details["normalization"], grids)
