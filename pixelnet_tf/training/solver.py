"""Caffe's SGD solver as a Keras optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from pixelnet_tf.config import SolverConfig
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.training.lr_policy import CaffePolicy

__all__ = ["CaffePolicy", "CaffeSGD", "solver_from_config"]

REGULARIZATIONS = ("L2", "L1")


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeSGD(keras.optimizers.Optimizer):
    """SGD as Caffe's `SGDSolver` does it.

    `g += weight_decay * decay_mult * w; h = momentum * h + lr * lr_mult * g; w -= h`: the learning
    rate is inside the momentum, and the decay (L2; L1 takes the weight's sign) uses the weights
    before the update. A variable with an lr multiplier of 0 stays as it is.

    Args:
        learning_rate: number or schedule (`CaffePolicy`).
        multipliers: variable path -> (lr_mult, decay_mult); (1, 1) for a variable not in it.
        global_clipnorm: Caffe's `clip_gradients`, before the decay (a Keras argument). Over several
            replicas it is the norm of the gradients' sum that counts.
    """

    def __init__(
        self,
        learning_rate=0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        regularization_type: str = "L2",
        multipliers: Mapping[str, tuple[float, float]] | None = None,
        name: str = "caffe_sgd",
        **kwargs,
    ):
        if regularization_type not in REGULARIZATIONS:
            raise ConfigError(
                f"regularization_type must be one of {list(REGULARIZATIONS)}, "
                f"got {regularization_type!r}"
            )
        # Keras' own `weight_decay` acts on the weights after the gradient, outside the momentum.
        super().__init__(learning_rate, weight_decay=None, name=name, **kwargs)
        self.momentum = float(momentum)
        self.decay = float(weight_decay)
        self.regularization_type = regularization_type
        self.multipliers = {
            path: (float(lr_mult), float(decay_mult))
            for path, (lr_mult, decay_mult) in (multipliers or {}).items()
        }

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._histories = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        path = self._trainable_variables[index].path
        lr_mult, decay_mult = self.multipliers.get(path, (1.0, 1.0))
        if lr_mult == 0:
            return
        history = _resource(self._histories[index])
        weights = tf.convert_to_tensor(variable)
        gradient = tf.cast(gradient, weights.dtype)
        learning_rate = tf.cast(learning_rate, weights.dtype) * lr_mult
        momentum = tf.constant(self.momentum, weights.dtype)
        # The operations work in place: a temporary of fc6's 411 MB costs time and memory. Their
        # history is Caffe's with the other sign: h = momentum * h - lr * g; w += h.
        decay = self.decay * decay_mult
        if decay:
            penalty = weights if self.regularization_type == "L2" else tf.sign(weights)
            if self.momentum:
                # Into the history, which the momentum then multiplies.
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=history, alpha=learning_rate * (decay / self.momentum), delta=penalty)
            else:
                gradient += decay * penalty
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_resource(variable), accum=history, grad=gradient, lr=learning_rate,
            momentum=momentum)

    def _clip_gradients(self, grads):
        # Keras asks for it before the replicas' gradients are added up; see below.
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # On one replica there is nothing to add up, but Keras' own call would hold every update
        # back until the last gradient is there, and so all gradients in memory at once.
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            grads_and_vars = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients, variables = zip(*grads_and_vars, strict=True)
        return list(zip(super()._clip_gradients(gradients), variables, strict=True))

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "regularization_type": self.regularization_type,
            "multipliers": {path: list(pair) for path, pair in self.multipliers.items()},
        }


def _resource(variable) -> tf.Tensor:
    """Handle of a Keras variable or of the TensorFlow variable behind it."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def policy_from_config(config: SolverConfig, max_steps: int) -> CaffePolicy:
    """The learning rate that a configuration's `training.solver` describes.

    max_steps is the number of solver steps of the whole training (policy `poly`).
    """
    return CaffePolicy(
        config.base_lr, config.lr_policy, gamma=config.gamma, power=config.power,
        stepsize=config.stepsize, stepvalues=config.stepvalues, max_steps=max_steps,
    )


def solver_from_config(
    config: SolverConfig,
    max_steps: int,
    multipliers: Mapping[str, tuple[float, float]] | None = None,
) -> CaffeSGD:
    """The optimiser that a configuration's `training.solver` describes; see
    `policy_from_config`."""
    return CaffeSGD(policy_from_config(config, max_steps), config.momentum, config.weight_decay,
                    multipliers=multipliers, global_clipnorm=config.clip_gradients or None)
