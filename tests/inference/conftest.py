"""Narrow networks and images of several kinds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.pixelnet import PixelNet
from tests.random_weights import with_random_biases

NARROW = {"widths": (3, 4, 6, 20, 20), "fc_width": 24, "head_widths": (18, 10), "dropout": 0.5,
          "head_filler": "he", "border": 100}

#: The original, its linear form with BatchNorm, and the variants of fc7, border and head.
VARIANTS = {
    "original": {},
    "linear": {"head": "linear", "batch_norm": True},
    "batch norm": {"fc7": "none", "batch_norm": True},
    "aligned": {"fc7": "aligned", "border": 48},
    "without fc7": {"fc7": "none", "border": 16},
    "without border": {"fc7": "none", "border": 0},
}


@pytest.fixture(scope="session")
def narrow_net():
    """A function from fields of ModelConfig to a PixelNet with random weights; equal fields give
    one and the same model, which is not to be changed."""

    @cache
    def make(**fields) -> PixelNet:
        model = PixelNet(ModelConfig(**{**NARROW, **fields}), 2, 3, seed=4)
        return with_random_biases(model, 4)

    return make


def slices(kind: str, height: int, width: int, batch: int = 1) -> np.ndarray:
    """(batch, height, width, 2) float32 noise: `inner`, at the `edge`, `full` or `empty`."""
    rng = np.random.default_rng(0)
    filled = np.zeros((batch, height, width, 1), bool)
    if kind == "inner":
        filled[:, height // 4:-height // 4, width // 3:-width // 4] = True
    elif kind == "edge":
        filled[:, :height // 2, width // 3:] = True
    elif kind == "full":
        filled[:] = True
    else:
        assert kind == "empty"
    return (rng.normal(0, 1, (batch, height, width, 2)) * filled).astype(np.float32)
