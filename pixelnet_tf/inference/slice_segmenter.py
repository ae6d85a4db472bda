"""From normalised slices to labels and probabilities, in one graph that serving exports too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig, Mode, Precision, PredictionConfig, StudyConfig
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.inference.adaptive import adaptive_scores
from pixelnet_tf.inference.dense import DenseScorer, certain_background
from pixelnet_tf.inference.guided_filter import refine_scores
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork


class SliceSegmenter(tf.Module):
    """Segments slices of any size and number without retracing.

    Args:
        model: trained network.
        correction: (class,) added to the scores (`ClassPriors.correction`); None: nothing.
        mode: `exact`, `adaptive`, or `reference` (the plain hypercolumn of every pixel).
        precision: `float32` or `bfloat16`; the reference is always float32.
        smoothing: the guided filter; by default it is off.
        flips: take the mean of the scores of each slice and of its mirror image, left and right.
    """

    def __init__(self, model: PixelNet, correction: np.ndarray | None = None,
                 mode: str = Mode.EXACT, precision: str = Precision.FLOAT32,
                 smoothing: GuidedFilterConfig | None = None, flips: bool = False):
        super().__init__()
        if mode not in Mode.texts():
            raise ConfigError(f"prediction.mode must be one of {Mode.texts()}, got {mode!r}",
                              value=mode)
        self.mode, self.flips = mode, flips
        self.smoothing = smoothing or GuidedFilterConfig()
        self.scorer = DenseScorer(model, precision)
        self.classes = model.classes
        self.background = certain_background(model.classes)
        zeros = np.zeros(model.classes, np.float32)
        self.correction = tf.constant(zeros if correction is None else correction, tf.float32)
        image = tf.TensorSpec([None, None, None, model.channels], tf.float32)
        mask = tf.TensorSpec([None, None, None], tf.bool)
        #: The one graph of all shapes.
        self.graph = tf.function(self._scores, autograph=True, input_signature=[image, mask, mask])

    @property
    def members(self) -> tuple[SliceSegmenter, ...]:
        """The segmenters of single networks: this one, as those of an `Ensemble`."""
        return (self,)

    @classmethod
    def of(cls, prediction: PredictionConfig, network: TrainedNetwork) -> SliceSegmenter:
        """The segmenter that a configuration's section `prediction` asks for."""
        return cls(network.model, network.correction, prediction.mode, prediction.precision,
                   prediction.guided_filter, prediction.flips)

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor | None = None
               ) -> tf.Tensor:
        """Corrected scores (batch, height, width, class) float32.

        Args:
            image: (batch, height, width, channel) float32, normalised slices.
            domain: (batch, height, width) bool. A pixel outside it is background beyond doubt, and
                nothing of it reaches the pixels inside but by the network's own view of the image.
            read_out: (batch, height, width) bool, the pixels of the domain whose scores are used;
                None takes all. The others are computed only where these need them, and else stay
                at the background's scores.
        """
        return self.graph(image, domain, domain if read_out is None else read_out)

    def _scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor) -> tf.Tensor:
        if not self.smoothing.radius:
            return self._mean_scores(image, domain, domain & read_out)
        # The filter reads every pixel of the windows around the ones that are used.
        scores = self._mean_scores(image, domain, domain)
        scores = refine_scores(scores, image, domain, self.smoothing.radius,
                               self.smoothing.epsilon)
        return tf.where(domain[..., None], scores, self.background)

    def _mean_scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor) -> tf.Tensor:
        """Scores of the slices, or their mean with those of the mirrored ones."""
        scores = self._plain_scores(image, domain, read_out)
        if not self.flips:
            return scores
        # One after the other: no more than one pass's intermediate results are held.
        with tf.control_dependencies([scores]):
            image = tf.reverse(image, [2])
        mirrored = self._plain_scores(image, tf.reverse(domain, [2]), tf.reverse(read_out, [2]))
        return (scores + tf.reverse(mirrored, [2])) / 2

    def _plain_scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor
                      ) -> tf.Tensor:
        if self.mode == Mode.ADAPTIVE:
            return adaptive_scores(self.scorer, image, domain, read_out, self.correction)[0]
        if self.mode == Mode.REFERENCE:
            scores = self.scorer.reference(image) + self.correction
            return tf.where(domain[..., None], scores, self.background)
        # Each pixel for itself: no other than those that are used.
        pixels, values = self.scorer.exact(self.scorer.taps(image), read_out)
        shape = tf.concat([tf.shape(domain), [self.classes]], 0)
        return tf.tensor_scatter_nd_update(tf.broadcast_to(self.background, shape), pixels,
                                           values + self.correction)


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
                             f"{[member.classes for member in members]} classes",
                             value=[member.classes for member in members])
        self.members = tuple(members)
        self.classes = self.members[0].classes
        self.background = self.members[0].background

    def scores(self, image: tf.Tensor, domain: tf.Tensor, read_out: tf.Tensor | None = None
               ) -> tf.Tensor:
        """Mean scores (batch, height, width, class) float32; called as `SliceSegmenter.scores`."""
        # One after the other: no more than one network's intermediate results are held.
        total = self.members[0].scores(image, domain, read_out)
        for member in self.members[1:]:
            with tf.control_dependencies([total]):
                image = tf.identity(image)
            total += member.scores(image, domain, read_out)
        return total / len(self.members)

    def uncertain_scores(self, image: tf.Tensor, domain: tf.Tensor,
                         read_out: tf.Tensor | None = None
                         ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean scores as `scores` gives them, and how sure the networks are of each pixel.

        The mean probability is here the arithmetic mean of the networks' probabilities, the
        mixture that the predictive entropy and the mutual information are defined by.

        Returns:
            The scores, and (batch, height, width) float32 in nats each: the entropy of the mean
            probability, and the mutual information, which is that entropy less the mean of the
            networks' own.
        """
        scores, shares, entropies = 0.0, 0.0, 0.0
        for member in self.members:
            found = member.scores(image, domain, read_out)
            logs = tf.nn.log_softmax(found)
            scores += found
            shares += tf.exp(logs)
            entropies -= tf.reduce_sum(tf.exp(logs) * logs, axis=-1)
        count = len(self.members)
        total = -tf.reduce_sum(tf.math.xlogy(shares / count, shares / count), axis=-1)
        # Rounding alone would let it be negative.
        return scores / count, total, tf.maximum(total - entropies / count, 0.0)


def segmenter_of(networks: Sequence[TrainedNetwork], study: StudyConfig,
                 prediction: PredictionConfig) -> SliceSegmenter | Ensemble:
    """What segments slices with one network, or with several, as the section `prediction` says.

    Raises:
        ModelError: the study has other numbers of modalities or labels than a network.
    """
    for network in networks:
        network.model.check_study(study)
    members = [SliceSegmenter.of(prediction, network) for network in networks]
    return members[0] if len(members) == 1 else Ensemble(members)
