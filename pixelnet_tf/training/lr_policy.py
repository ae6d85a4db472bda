"""Learning-rate policies as a Keras schedule: Caffe's, the cosine, and a warm-up for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.config import LrPolicy
from pixelnet_tf.errors import ConfigError


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffePolicy(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate of a solver step, counted from 0 (`SGDSolver::GetLearningRate`).

    fixed: base_lr; step: base_lr * gamma^floor(iter / stepsize); exp: base_lr * gamma^iter;
    inv: base_lr * (1 + gamma * iter)^-power; multistep: as step, at `stepvalues`;
    poly: base_lr * (1 - iter / max_steps)^power, 0 from max_steps on;
    sigmoid: base_lr / (1 + exp(-gamma * (iter - stepsize))).

    Caffe has neither of these: cosine: base_lr * (1 + cos(pi * share)) / 2, share the part of the
    steps from the warm-up's end to max_steps that is done (Loshchilov and Hutter, 2017); and
    warmup_steps, which multiply any policy by (iter + 1) / warmup_steps until that is 1.

    Raises `ConfigError` for an unknown policy, or for one that lacks what it needs.
    """

    def __init__(
        self,
        base_lr: float,
        policy: str = LrPolicy.FIXED,
        *,
        gamma: float = 0.0,
        power: float = 0.0,
        stepsize: int = 0,
        stepvalues: Sequence[int] = (),
        max_steps: int = 0,
        warmup_steps: int = 0,
    ):
        if policy not in LrPolicy.texts():
            raise ConfigError(f"lr_policy must be one of {LrPolicy.texts()}, got {policy!r}",
                              value=policy)
        if policy == LrPolicy.STEP and stepsize < 1:
            raise ConfigError(f"lr_policy 'step' needs a positive stepsize, got {stepsize}",
                              value=stepsize)
        if policy == LrPolicy.POLY and max_steps < 1:
            raise ConfigError(f"lr_policy 'poly' needs the number of steps, got {max_steps}",
                              value=max_steps)
        if policy == LrPolicy.COSINE and max_steps <= warmup_steps:
            raise ConfigError("lr_policy 'cosine' needs more steps than those of its warm-up, got "
                              f"{max_steps} with warmup_steps {warmup_steps}", value=max_steps)
        if policy == LrPolicy.MULTISTEP and not stepvalues:
            raise ConfigError("lr_policy 'multistep' needs stepvalues")
        self.base_lr = float(base_lr)
        self.policy = LrPolicy(policy)
        self.gamma = gamma
        self.power = power
        self.stepsize = stepsize
        self.stepvalues = tuple(stepvalues)
        self.max_steps = max_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        step = tf.cast(step, tf.int64)
        rate = self.base_lr * getattr(self, f"_{self.policy}")(step)
        if not self.warmup_steps:
            return rate
        return rate * tf.minimum((tf.cast(step, tf.float32) + 1) / self.warmup_steps, 1.0)

    def falls(self, steps: int) -> int:
        """How often the rate has fallen after `steps` steps, as Caffe's snapshots count it."""
        if steps < 1 or self.policy not in (LrPolicy.STEP, LrPolicy.MULTISTEP):
            return 0
        if self.policy == LrPolicy.STEP:
            return (steps - 1) // self.stepsize
        return sum(value < steps for value in self.stepvalues)

    def get_config(self) -> dict[str, Any]:
        return {
            "base_lr": self.base_lr, "policy": self.policy.value, "gamma": self.gamma,
            "power": self.power, "stepsize": self.stepsize, "stepvalues": list(self.stepvalues),
            "max_steps": self.max_steps, "warmup_steps": self.warmup_steps,
        }

    def _fixed(self, step: tf.Tensor) -> tf.Tensor:
        return tf.constant(1.0)

    def _step(self, step: tf.Tensor) -> tf.Tensor:
        return _power(self.gamma, step // self.stepsize)

    def _exp(self, step: tf.Tensor) -> tf.Tensor:
        return _power(self.gamma, step)

    def _inv(self, step: tf.Tensor) -> tf.Tensor:
        return _power(1 + self.gamma * tf.cast(step, tf.float32), -self.power)

    def _multistep(self, step: tf.Tensor) -> tf.Tensor:
        passed = tf.reduce_sum(tf.cast(step >= tf.constant(self.stepvalues, tf.int64), tf.int64))
        return _power(self.gamma, passed)

    def _poly(self, step: tf.Tensor) -> tf.Tensor:
        left = 1 - tf.cast(step, tf.float32) / self.max_steps
        return _power(tf.maximum(left, 0.0), self.power)

    def _sigmoid(self, step: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(self.gamma * tf.cast(step - self.stepsize, tf.float32))

    def _cosine(self, step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step - self.warmup_steps, tf.float32) / (self.max_steps - self.warmup_steps)
        return 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0)))


def _power(base: tf.Tensor | float, exponent: tf.Tensor | float) -> tf.Tensor:
    return tf.pow(tf.cast(base, tf.float32), tf.cast(exponent, tf.float32))
