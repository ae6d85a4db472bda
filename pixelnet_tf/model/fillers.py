"""Caffe's weight fillers as a Keras initialiser."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.errors import ModelError

FILLERS = (
    "constant", "uniform", "gaussian", "xavier", "msra", "positive_unitball", "bilinear",
)
VARIANCE_NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")
#: Numbers drawn at once: the draw of a whole fc6 kernel would take three times its 411 MB, which
#: TensorFlow's allocator keeps.
_PART = 2**22


@keras.saving.register_keras_serializable("pixelnet_tf")
class Undrawn(keras.initializers.Initializer):
    """Allocates weights and draws nothing, for weights that are read from a file next.

    What they hold until then is undefined. The system gives memory that nobody has written to only
    once it is written, so that building a network of 2 GB takes neither this memory nor the
    seconds of a draw.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        return tf.raw_ops.Empty(shape=tuple(int(size) for size in shape),
                                dtype=dtype or keras.config.floatx())


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeFiller(keras.initializers.Initializer):
    """One of Caffe's fillers (`include/caffe/filler.hpp`), with the fields of `FillerParameter`.

    Called with a Keras shape: `(height, width, in, out)`, `(in, out)` or `(out,)`, whose last axis
    is the first of Caffe's blob and whose last but one is Caffe's second; fans are Caffe's. One
    filler with one seed gives one result for one shape, so every layer needs a seed of its own.

    Raises `ModelError` for an unknown type or norm, or `bilinear` on other than a square kernel.
    """

    def __init__(
        self,
        type: str = "constant",
        *,
        value: float = 0.0,
        min: float = 0.0,
        max: float = 1.0,
        mean: float = 0.0,
        std: float = 1.0,
        sparse: int = -1,
        variance_norm: str = "FAN_IN",
        seed: int | None = None,
    ):
        if type not in FILLERS:
            raise ModelError(f"filler type must be one of {list(FILLERS)}, got {type!r}",
                             value=type)
        if variance_norm not in VARIANCE_NORMS:
            raise ModelError(f"variance_norm must be one of {list(VARIANCE_NORMS)}, got "
                             f"{variance_norm!r}", value=variance_norm)
        self.type = type
        self.value = value
        self.min = min
        self.max = max
        self.mean = mean
        self.std = std
        self.sparse = sparse
        self.variance_norm = variance_norm
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        names = (
            "type", "value", "min", "max", "mean", "std", "sparse", "variance_norm", "seed",
        )
        return {name: getattr(self, name) for name in names}

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        sizes = tuple(int(size) for size in shape)
        dtype = dtype or keras.config.floatx()
        return tf.cast(getattr(self, f"_{self.type}")(sizes), dtype)

    def _constant(self, shape: tuple[int, ...]) -> tf.Tensor:
        return tf.fill(shape, tf.constant(self.value, tf.float32))

    def _uniform(self, shape: tuple[int, ...]) -> tf.Tensor:
        return self._draw_uniform(shape, self.min, self.max)

    def _gaussian(self, shape: tuple[int, ...]) -> tf.Tensor:
        values = self._draw_normal(shape, self.mean, self.std)
        if self.sparse < 0:
            return values
        # Caffe keeps on average `sparse` non-zero inputs for each output.
        seed = None if self.seed is None else self.seed + 1
        kept = keras.random.uniform(shape, seed=seed) < self.sparse / shape[-1]
        return values * tf.cast(kept, tf.float32)

    def _xavier(self, shape: tuple[int, ...]) -> tf.Tensor:
        limit = math.sqrt(3 / self._fan(shape))
        return self._draw_uniform(shape, -limit, limit)

    def _msra(self, shape: tuple[int, ...]) -> tf.Tensor:
        std = math.sqrt(2 / self._fan(shape))
        return self._draw_normal(shape, 0.0, std)

    def _positive_unitball(self, shape: tuple[int, ...]) -> tf.Tensor:
        values = self._draw_uniform(shape, 0.0, 1.0)
        return values / tf.reduce_sum(values, axis=list(range(len(shape) - 1)), keepdims=True)

    def _bilinear(self, shape: tuple[int, ...]) -> tf.Tensor:
        if len(shape) != 4 or shape[0] != shape[1]:
            raise ModelError(f"filler 'bilinear' needs a square kernel, got shape {shape}",
                             value=shape)
        factor = math.ceil(shape[1] / 2)
        centre = (shape[1] - 1) / (2.0 * factor)
        line = 1 - tf.abs(tf.range(shape[1], dtype=tf.float32) / factor - centre)
        return tf.broadcast_to((line[:, None] * line[None, :])[:, :, None, None], shape)

    def _draw_uniform(self, shape: tuple[int, ...], low: float, high: float) -> tf.Tensor:
        return self._draw(shape, lambda part, seed: tf.random.stateless_uniform(
            part, seed, low, high))

    def _draw_normal(self, shape: tuple[int, ...], mean: float, std: float) -> tf.Tensor:
        return self._draw(shape, lambda part, seed: tf.random.stateless_normal(
            part, seed, mean, std))

    def _draw(self, shape: tuple[int, ...],
              draw: Callable[[list[int], list[int]], tf.Tensor]) -> tf.Tensor:
        """Draw in parts of whole rows, each with a seed of its own; small kernels are one part."""
        seed = random.randrange(2**31) if self.seed is None else self.seed
        rows, step = math.prod(shape[:-1]), max(1, _PART // shape[-1])
        parts = [draw([min(step, rows - start), shape[-1]], [seed, number])
                 for number, start in enumerate(range(0, rows, step))]
        return tf.reshape(tf.concat(parts, axis=0), shape)

    def _fan(self, shape: tuple[int, ...]) -> float:
        count = math.prod(shape)
        fan_in = count / shape[-1]
        fan_out = count / shape[-2] if len(shape) > 1 else count
        return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[
            self.variance_norm
        ]
