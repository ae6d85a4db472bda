"""From normalised slices to labels and probabilities, in one graph that serving exports too."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import Config, GuidedFilterConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.adaptive import adaptive_scores
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.inference.guided_filter import refine_scores
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork

MODES = ("exact", "adaptive", "reference")


class Segmenter(tf.Module):
    """Segments slices of any size and number without retracing.

    Args:
        model: trained network.
        correction: (class,) added to the scores (`ClassPriors.correction`); None: nothing.
        mode: `exact`, `adaptive`, or `reference` (the plain hypercolumn of every pixel).
        precision: `float32` or `bfloat16`; the reference is always float32.
        smoothing: the guided filter; by default it is off.
    """

    def __init__(self, model: PixelNet, correction: np.ndarray | None = None, mode: str = "exact",
                 precision: str = "float32", smoothing: GuidedFilterConfig | None = None):
        super().__init__()
        if mode not in MODES:
            raise ConfigError(f"prediction.mode must be one of {list(MODES)}, got {mode!r}")
        self.mode = mode
        self.smoothing = smoothing or GuidedFilterConfig()
        self.scorer = DenseScorer(model, precision)
        self.classes = model.classes
        zeros = np.zeros(model.classes, np.float32)
        self.correction = tf.constant(zeros if correction is None else correction, tf.float32)
        image = tf.TensorSpec([None, None, None, model.channels], tf.float32)
        self.scores = tf.function(self.scores, autograph=True, input_signature=[
            image, tf.TensorSpec([None, None, None], tf.bool)])

    @classmethod
    def of(cls, config: Config, network: TrainedNetwork) -> Segmenter:
        """The segmenter that a configuration's section `prediction` asks for."""
        asked = config.prediction
        return cls(network.model, network.correction, asked.mode, asked.precision,
                   asked.guided_filter)

    def scores(self, image: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Corrected scores (batch, height, width, class) float32.

        image (batch, height, width, channel) float32 normalised slices; wanted (batch, height,
        width) bool. A pixel that is not wanted is background beyond doubt.
        """
        background = tf.one_hot(0, self.classes, on_value=0.0, off_value=-1e4)
        scores = self._plain_scores(image, wanted, background)
        if not self.smoothing.radius:
            return scores
        scores = refine_scores(scores, image, self.smoothing.radius, self.smoothing.epsilon)
        return tf.where(wanted[..., None], scores, background)

    def _plain_scores(self, image: tf.Tensor, wanted: tf.Tensor, background: tf.Tensor
                      ) -> tf.Tensor:
        if self.mode == "adaptive":
            return adaptive_scores(self.scorer, image, wanted, self.correction)[0]
        if self.mode == "reference":
            scores = self.scorer.reference(image) + self.correction
            return tf.where(wanted[..., None], scores, background)
        pixels, values = self.scorer.exact(self.scorer.taps(image), wanted)
        shape = tf.concat([tf.shape(wanted), [self.classes]], 0)
        return tf.tensor_scatter_nd_update(tf.broadcast_to(background, shape), pixels,
                                           values + self.correction)
