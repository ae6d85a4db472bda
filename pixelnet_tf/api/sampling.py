"""The paper's pixel sampling on an array: what a training draws from a slice."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import SamplingConfig, Strategy
from pixelnet_tf.dataset import sampler


def sample_pixels(labels: np.ndarray, pixels: int = 2000, strategy: str = "balanced",
                  allowed: np.ndarray | None = None, seed: int = 0
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Draw pixels of one slice as the training does (paper section 2.1).

    Parameters
    ----------
    labels
        (height, width) class indices, 0 the background.
    pixels
        N, the number of pixels.
    strategy
        "balanced" draws N/K of each of the K classes present, "uniform" draws N at random.
    allowed
        (height, width) bool, where background may be drawn; by default everywhere.
    seed
        The same seed draws the same pixels.

    Returns
    -------
    pixels_yx, classes
        (N, 2) int32 rows of y, x, and (N,) int32 class indices.

    Examples
    --------
    >>> import numpy as np, pixelnet_tf as px
    >>> labels = np.zeros((64, 64), int)
    >>> labels[20:24, 30:36] = 1
    >>> pixels_yx, classes = px.sample_pixels(labels, pixels=40)
    >>> int((classes == 1).sum())
    20
    """
    labels = np.asarray(labels)
    inside = np.ones(labels.shape, bool) if allowed is None else np.asarray(allowed, bool)
    drawn = sampler.sample_pixels(
        tf.constant(labels, tf.int32), tf.constant(inside), tf.constant([seed, 0]),
        classes=int(labels.max()) + 1,
        config=SamplingConfig(strategy=Strategy.of(strategy, "sampling.strategy"), pixels=pixels))
    return drawn[0].numpy(), drawn[1].numpy()
