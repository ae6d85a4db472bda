"""Weights that a fresh network lacks: biases and BatchNorm statistics other than 0."""

from __future__ import annotations

import numpy as np

from pixelnet_tf.model.pixelnet import PixelNet


def with_random_biases(model: PixelNet, seed: int) -> PixelNet:
    """Give a network random biases and BatchNorm statistics, in place; returns it."""
    rng = np.random.default_rng(seed)
    for name, layer in model.parts.items():
        if hasattr(layer, "kernel") and layer.bias is None:
            # Of slices beside, which start at zero.
            layer.kernel.assign(rng.normal(0, 0.3, layer.kernel.shape))
        elif hasattr(layer, "kernel"):
            layer.bias.assign(rng.normal(0.1, 0.3, layer.bias.shape))
        elif name.startswith("bn_"):
            layer.mean_sum.assign(rng.normal(0, 1, layer.mean_sum.shape))
            layer.variance_sum.assign(rng.uniform(1, 3, layer.variance_sum.shape))
            layer.factor.assign([2.0])
    return model
