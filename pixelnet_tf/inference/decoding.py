"""From the scores of a pixel to probabilities and a class.

Three ways: the most probable class of a softmax (the paper's); a softmax whose regions are cut out
by thresholds, the probability of a region being the sum of its classes'; and regions that the
network scores itself, each with a sigmoid (`model.region_based`). Whatever region is cut out, its
pixels receive its class, one region after the other as `StudyConfig.region_order` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import PredictionConfig, StudyConfig

#: A region's probability above which a pixel is in it, where no threshold is named.
HALF = 0.5
#: Of a pixel that is background by definition: far below all that a network says.
_CERTAIN = -1e4
#: Pixels of an array that are decided at a time: indices of 8 bytes and the odds of regions take
#: several times the memory of the scores, of which a whole volume has 0.14 GB.
_PART = 2**18


@dataclass(frozen=True)
class Decoding:
    """What the scores of a pixel stand for, and how its class follows.

    Attributes:
        scores: how many there are.
        sigmoid: whether each is a region's own, in the order of `study.regions`; else they are
            those of the classes, before the softmax.
        regions: class indices of each region that is cut out, in the order of `study.regions`;
            empty: the most probable class is taken.
        thresholds: of each region, the probability above which a pixel is in it.
        order: region number and class index, in the order in which pixels receive the class.
    """

    scores: int
    sigmoid: bool = False
    regions: tuple[tuple[int, ...], ...] = ()
    thresholds: tuple[float, ...] = ()
    order: tuple[tuple[int, int], ...] = ()

    @classmethod
    def plain(cls, scores: int, sigmoid: bool) -> Decoding:
        """That of a network alone: its scores can be worked with, but regions have no classes."""
        if not sigmoid:
            return cls(scores)
        return cls(scores, True, tuple((number,) for number in range(scores)), (HALF,) * scores)

    @classmethod
    def of(cls, study: StudyConfig, prediction: PredictionConfig, region_based: bool) -> Decoding:
        """That of a study, as the section `prediction` has it.

        Raises:
            ConfigError: regions are to be cut out, and do not lead back to labels.
        """
        cuts = prediction.region_thresholds
        if not (region_based or cuts):
            return cls(len(study.labels))
        names = list(study.regions)
        return cls(len(names) if region_based else len(study.labels), region_based,
                   tuple(study.region_classes.values()),
                   tuple(cuts.get(name, HALF) for name in names),
                   tuple((names.index(region), study.label_values.index(value))
                         for region, value in study.region_order().items()))

    @property
    def background(self) -> np.ndarray:
        """Scores (score,) float32 of a pixel that is background by definition."""
        found = np.full(self.scores, _CERTAIN, np.float32)
        if not self.sigmoid:
            found[0] = 0
        return found

    @cached_property
    def cuts(self) -> np.ndarray:
        """Log-odds (region,) float32 of the thresholds."""
        shares = np.array(self.thresholds)
        return np.log(shares / (1 - shares)).astype(np.float32)

    def probabilities(self, scores: tf.Tensor) -> tf.Tensor:
        """Probabilities of the classes, or of the regions that have scores, (..., score) float32.
        """
        return tf.sigmoid(scores) if self.sigmoid else tf.nn.softmax(scores)

    def odds(self, scores: tf.Tensor) -> tf.Tensor:
        """Log-odds (..., region) of each region that is cut out."""
        if self.sigmoid:
            return scores
        odds = []
        for inside in self.regions:
            outside = [index for index in range(self.scores) if index not in inside]
            odds.append(tf.reduce_logsumexp(tf.gather(scores, inside, axis=-1), axis=-1)
                        - tf.reduce_logsumexp(tf.gather(scores, outside, axis=-1), axis=-1))
        return tf.stack(odds, axis=-1)

    def margins(self, scores: tf.Tensor) -> tf.Tensor:
        """Log-odds (..., region) of each region that is cut out, less those of its threshold."""
        return self.odds(scores) - self.cuts

    def classes(self, scores: tf.Tensor) -> tf.Tensor:
        """Class indices (...) int64 of scores (..., score)."""
        if not self.regions:
            return tf.argmax(scores, axis=-1)
        inside = self.margins(scores) > 0
        found = tf.zeros(tf.shape(scores)[:-1], tf.int64)
        for region, index in self.order:
            found = tf.where(inside[..., region], tf.constant(index, tf.int64), found)
        return found

    def decided(self, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What decides a pixel, and by how much in log-odds it could be otherwise.

        Returns:
            (..., n) int32, equal where two pixels have one class for sure, and (...) float32: the
            lead of the best class, or the smallest distance of a region from its threshold.
        """
        if self.regions:
            margins = self.margins(scores)
            return tf.cast(margins > 0, tf.int32), tf.reduce_min(tf.abs(margins), axis=-1)
        best = tf.math.top_k(scores, 2)
        return best.indices[..., :1], best.values[..., 0] - best.values[..., 1]

    def class_numbers(self, scores: np.ndarray) -> np.ndarray:
        """Class indices (...) uint8 of an array of scores."""
        pixels = scores.reshape(-1, scores.shape[-1])
        found = np.empty(len(pixels), np.uint8)
        for start in range(0, len(pixels), _PART):
            part = pixels[start:start + _PART]
            found[start:start + _PART] = (self.classes(tf.constant(part)).numpy() if self.regions
                                          else part.argmax(axis=-1))
        return found.reshape(scores.shape[:-1])

    def cut_out(self, odds: np.ndarray) -> np.ndarray:
        """Class indices (...) uint8 of the log-odds (..., region) of regions that are cut out."""
        inside = odds - self.cuts > 0
        found = np.zeros(odds.shape[:-1], np.uint8)
        for region, index in self.order:
            found[inside[..., region]] = index
        return found

    def shares(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities (..., score) float32 of an array of scores."""
        if self.sigmoid:
            return tf.sigmoid(scores).numpy()
        shifted = scores - scores.max(axis=-1, keepdims=True)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(axis=-1, keepdims=True)
        return shifted
