"""A volume segmented by a signature instead of a model in this process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixelnet_tf.config import Config
from pixelnet_tf.inference.volume import PredictionGrid, SegmentedVolume, clean_up
from pixelnet_tf.volumes.case_volume import PreparedVolume

#: Slices (batch, height, width, channel) and their domain (batch, height, width) bool to label
#: values (batch, height, width) uint8, and probabilities (batch, height, width, class), or None
#: where none are asked for.
SegmentSlices = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def segment_remotely(segment_slices: SegmentSlices, volume: PreparedVolume, config: Config,
                     probabilities: bool = False) -> SegmentedVolume:
    """What `inference.volume.segment_volume` returns, from labels of slices.

    The same slices in the same batches and with the same domain; outside it is background,
    whatever the answer says of it.
    """
    grid, plan = PredictionGrid.of(volume, config), volume.plan
    shape = (plan.slices, *plan.native_size)
    labels = np.zeros(shape, np.uint8)
    maps = np.zeros((*shape, len(config.study.labels) if probabilities else 0), np.float32)
    maps[..., :1] = 1
    for rows in grid.batches(config.prediction.batch_slices):
        found, shares = segment_slices(volume.images[rows], grid.domain[rows])
        inside = plan.read_voxels(grid.domain[rows])
        labels[rows] = np.where(inside, plan.read_voxels(found), 0)
        if shares is not None:
            maps[rows] = np.where(inside[..., None], plan.read_voxels(shares), maps[rows])
    return SegmentedVolume(clean_up(plan.to_volume(labels), volume, config),
                           plan.to_volume(maps) if probabilities else None)
