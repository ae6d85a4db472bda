"""Narrow networks with weights that leave no response at zero."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.pixelnet import PixelNet
from tests.random_weights import with_random_biases

NARROW = {"widths": (3, 4, 4, 5, 5), "fc_width": 6, "head_widths": (7, 6), "dropout": 0.0,
          "head_filler": "he"}


@pytest.fixture(scope="session")
def narrow_net():
    """A function from fields of ModelConfig to a PixelNet with random biases and statistics.

    Equal fields give one and the same model, which is not to be changed.
    """

    @cache
    def make(channels: int = 2, classes: int = 3, seed: int = 1, **fields) -> PixelNet:
        model = PixelNet(ModelConfig(**{**NARROW, **fields}), channels, classes, seed=seed)
        return with_random_biases(model, seed)

    return make


@pytest.fixture(scope="session")
def images():
    """A function (kind, height, width, batch) -> (batch, height, width, 2) float32.

    Kinds: `inner` (zeros around the head), `edge` (the head touches two edges), `full`, `empty`,
    `corner` (one pixel), `mixed` (each image of the batch has its own).
    """

    def make(kind: str, height: int, width: int, batch: int = 1, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        filled = np.zeros((batch, height, width, 1), bool)
        if kind == "inner":
            filled[:, height // 4:-height // 4, width // 3:-width // 4] = True
        elif kind == "edge":
            filled[:, :height // 2, width // 3:] = True
        elif kind == "full":
            filled[:] = True
        elif kind == "corner":
            filled[:, -1, -1] = True
        elif kind == "mixed":
            for n in range(batch):
                filled[n, n * 5:n * 5 + 9, height // 3:] = True
        else:
            assert kind == "empty"
        return (rng.normal(0, 1, (batch, height, width, 2)) * filled).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def scores_and_gradients():
    """Factory: scores (pixel, class) of a form of the network, and the gradients of their weighted
    sum by every trained variable."""

    def of(model: PixelNet, scores_of: Callable[[], tf.Tensor]
           ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            scores = scores_of()
            # Enough different weights that no error of a pixel or a class cancels out.
            weights = np.random.default_rng(1).normal(0, 1, scores.shape)
            total = tf.reduce_sum(scores * tf.constant(weights, tf.float32))
        return scores, [tf.convert_to_tensor(g) for g in tape.gradient(total, variables)]

    return of
