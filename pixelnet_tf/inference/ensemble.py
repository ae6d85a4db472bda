"""Several trained networks as one: their scores, averaged."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pixelnet_tf.errors import ModelError
from pixelnet_tf.inference.segmenter import SliceSegmenter


class Ensemble:
    """Segments slices by the mean of the corrected scores of several networks.

    The mean of scores is, after the softmax, the normalised geometric mean of the networks'
    probabilities. Each network brings its own correction of the prior. In use like a
    `SliceSegmenter`.

    Raises:
        ModelError: there is no network, or they have other numbers of classes.
    """

    def __init__(self, members: Sequence[SliceSegmenter]):
        if len({member.classes for member in members}) != 1:
            raise ModelError("an ensemble needs networks of the same classes, got "
                             f"{[member.classes for member in members]} classes")
        self.members = tuple(members)
        self.classes = self.members[0].classes
        self.background = self.members[0].background

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor | None = None
               ) -> tf.Tensor:
        """Mean scores (batch, height, width, class) float32; called as `SliceSegmenter.scores`."""
        # One after the other: no more than one network's intermediate results are held.
        total = self.members[0].scores(image, domain, read_out)
        for member in self.members[1:]:
            total += member.scores(image, domain, read_out)
        return total / len(self.members)
