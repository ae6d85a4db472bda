"""Random numbers that are a function of their seed: the same on every device and compiler.

TensorFlow's stateless draws by the Philox generator. Left to itself TensorFlow chooses a generator
by the device; and XLA makes other floating-point numbers of the same bits, so that a compiled
training step would draw others than the pipeline does. The bits are the same everywhere. So the
numbers are made of them here, as TensorFlow's own kernels do it.

A seed is (2,) int32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import tensorflow as tf

Shape: TypeAlias = tf.Tensor | Sequence[int]
Seed: TypeAlias = tf.Tensor | Sequence[int]

#: As their namesakes of `tf.random`.
split = partial(tf.random.split, alg="philox")
fold_in = partial(tf.random.fold_in, alg="philox")

#: Bits of a float32 behind its point.
_FRACTION = 23
#: In place of 0, whose logarithm is none.
_LEAST = 1e-7


def bits(shape: Shape, seed: Seed) -> tf.Tensor:
    """Uniform numbers of 32 bits, uint32."""
    return tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg="philox")


def integers(shape: Shape, seed: Seed, start: int | tf.Tensor, stop: int | tf.Tensor) -> tf.Tensor:
    """Uniform int32 numbers from `start` on, below `stop`."""
    return tf.random.stateless_uniform(shape, seed, start, stop, tf.int32, alg="philox")


def uniform(shape: Shape, seed: Seed, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Uniform float32 numbers from `low` on, below `high`, bit for bit `stateless_uniform`'s."""
    return _fractions(bits(shape, seed)) * (high - low) + low


def normal(shape: Shape, seed: Seed) -> tf.Tensor:
    """Normal float32 numbers of mean 0 and variance 1, `stateless_normal`'s but for rounding."""
    count = tf.reduce_prod(tf.convert_to_tensor(shape, tf.int32))
    pairs = _fractions(tf.reshape(bits([(count + 1) // 2 * 2], seed), [-1, 2]))
    angle = pairs[:, 1] * (2 * math.pi)
    radius = tf.sqrt(-2 * tf.math.log(tf.maximum(pairs[:, 0], _LEAST)))
    drawn = tf.stack([tf.sin(angle) * radius, tf.cos(angle) * radius], axis=1)
    return tf.reshape(tf.reshape(drawn, [-1])[:count], shape)


def _fractions(drawn: tf.Tensor) -> tf.Tensor:
    """Numbers from 0 on, below 1, of the lowest bits, float32."""
    low = tf.bitwise.bitwise_and(drawn, tf.constant(2**_FRACTION - 1, tf.uint32))
    return tf.cast(low, tf.float32) * 2.0**-_FRACTION
