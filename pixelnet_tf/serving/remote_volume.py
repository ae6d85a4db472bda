"""A volume segmented by a signature instead of a model in this process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixelnet_tf.config import Config
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.volume import SegmentedVolume, wanted_pixels
from pixelnet_tf.volumes.prepare import PreparedVolume

#: Slices (batch, height, width, channel) to label values (batch, height, width) uint8, and
#: probabilities (batch, height, width, class), or None where none are asked for.
SegmentSlices = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def segment_remotely(segment_slices: SegmentSlices, volume: PreparedVolume, config: Config,
                     probabilities: bool = False) -> SegmentedVolume:
    """What `inference.volume.segment_volume` returns, from labels of slices.

    The same slices in the same batches; pixels that local prediction leaves out are background
    here too, whatever the answer says of them.
    """
    wanted = wanted_pixels(volume, config)
    labels = np.zeros(wanted.shape, np.uint8)
    maps = np.zeros((*wanted.shape, len(config.study.labels) if probabilities else 0), np.float32)
    maps[..., :1] = 1
    busy = np.flatnonzero(wanted.any(axis=(1, 2)))
    for start in range(0, len(busy), config.prediction.batch_slices):
        rows = busy[start:start + config.prediction.batch_slices]
        found, shares = segment_slices(volume.images[rows])
        inside = wanted[rows]
        labels[rows] = np.where(inside, found, 0)
        if probabilities:
            maps[rows] = np.where(inside[..., None], shares, maps[rows])
    brain = volume.plan.from_slices(volume.brain.astype(np.uint8)) > 0
    cleaned = postprocess_labels(volume.plan.from_slices(labels), brain, config.study,
                                 config.prediction.postprocess)
    return SegmentedVolume(cleaned, volume.plan.from_slices(maps) if probabilities else None)
