"""Caffe's solvers as Keras optimisers, and Keras' own AdamW with their multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.config import AUTO, SolverConfig, SolverType
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.training.lr_policy import CaffePolicy

REGULARIZATIONS = ("L2", "L1")

_Pairs = list[tuple[tf.Tensor, keras.Variable]]


class _OneDevice(keras.optimizers.Optimizer):
    """Updates that need not wait for the last gradient, and multipliers by the variable."""

    multipliers: dict[str, tuple[float, float]]

    def _multipliers_of(self, variable: keras.Variable | tf.Variable) -> tuple[float, float]:
        """(lr_mult, decay_mult) of a variable, which Keras may give as the one behind it."""
        path = self._trainable_variables[self._get_variable_index(variable)].path
        return self.multipliers.get(path, (1.0, 1.0))

    def _clip_gradients(self, grads: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        # Keras asks for it before the replicas' gradients are added up; see below.
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars: _Pairs) -> _Pairs:
        # On one replica there is nothing to add up, but Keras' own call would hold every update
        # back until the last gradient is there, and so all gradients in memory at once.
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            grads_and_vars = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients, variables = zip(*grads_and_vars, strict=True)
        return list(zip(super()._clip_gradients(gradients), variables, strict=True))


class CaffeSolver(_OneDevice):
    """What all of Caffe's solvers share: multipliers, decay, clipping, histories.

    `g += weight_decay * decay_mult * w` comes first, with the weights before the update (L1 takes
    their sign); then the solver's own rule, at the rate `lr * lr_mult`. A variable with an lr
    multiplier of 0 stays as it is.

    Parameters
    ----------
    learning_rate
        Number or schedule (`CaffePolicy`).
    momentum, momentum2, rms_decay, delta
        Caffe's settings, as far as a solver has them.
    weight_decay, regularization_type
        Factor of the decay, and "L2" or "L1".
    multipliers
        Variable path -> (lr_mult, decay_mult); (1, 1) for a variable not in it.
    global_clipnorm
        Caffe's `clip_gradients`, before the decay (a Keras argument). Over several replicas it is
        the norm of the gradients' sum that counts.
    """

    #: Names of what is kept for each variable, in the order of Caffe's snapshots.
    history_names: tuple[str, ...] = ("history",)
    #: Caffe's histories over those that are kept here.
    history_sign = 1.0

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        regularization_type: str = "L2",
        multipliers: Mapping[str, tuple[float, float]] | None = None,
        momentum2: float = 0.999,
        rms_decay: float = 0.99,
        delta: float = 1e-8,
        **kwargs: Any,
    ):
        if regularization_type not in REGULARIZATIONS:
            raise ConfigError(f"regularization_type must be one of {list(REGULARIZATIONS)}, got "
                              f"{regularization_type!r}", value=regularization_type)
        # Keras' own `weight_decay` acts on the weights after the gradient, outside the momentum.
        super().__init__(learning_rate, weight_decay=None, **kwargs)
        self.momentum = float(momentum)
        self.momentum2 = float(momentum2)
        self.rms_decay = float(rms_decay)
        self.delta = float(delta)
        self.decay = float(weight_decay)
        self.regularization_type = regularization_type
        self.multipliers = _as_floats(multipliers)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._histories = [
            self.add_optimizer_variables(variables, name) for name in self.history_names
        ]

    def histories(self) -> dict[str, tuple[np.ndarray, ...]]:
        """What Caffe's snapshot holds for each variable, by its path, one array for each name of
        `history_names`."""
        return {
            variable.path: tuple(
                self.history_sign * kept[index].numpy() for kept in self._histories)
            for index, variable in enumerate(self._trainable_variables)
        }

    def set_histories(self, histories: Mapping[str, tuple[np.ndarray, ...]]) -> None:
        """Take over histories in the form of `histories`; those of other variables are left out.

        Raises `ModelError` for another number of arrays than the solver keeps.
        """
        for index, variable in enumerate(self._trainable_variables):
            arrays = histories[variable.path]
            if len(arrays) != len(self._histories):
                raise ModelError(f"the snapshot has {len(arrays)} histories for each weight blob, "
                                 f"this solver keeps {len(self._histories)}",
                                 hint="set training.solver.type to the solver that wrote it")
            for kept, array in zip(self._histories, arrays, strict=True):
                kept[index].assign(self.history_sign * array)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
                    ) -> None:
        index = self._get_variable_index(variable)
        lr_mult, decay_mult = self._multipliers_of(variable)
        if lr_mult == 0:
            return
        weights = tf.convert_to_tensor(variable)
        gradient = tf.cast(gradient, weights.dtype)
        rate = tf.cast(learning_rate, weights.dtype) * lr_mult
        histories = [kept[index] for kept in self._histories]
        self._update(variable, weights, gradient, rate, self.decay * decay_mult, histories)

    def _update(self, variable: keras.Variable, weights: tf.Tensor, gradient: tf.Tensor,
                rate: tf.Tensor, decay: float, histories: Sequence[tf.Variable]) -> None:
        """Change a variable and its histories, from the gradient without the decay."""
        if decay:
            gradient += decay * self._penalty(weights)
        self.assign_sub(variable, self._step(gradient, rate, *histories))

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        """What a variable is lowered by; brings its histories up to date."""
        raise NotImplementedError

    def _penalty(self, weights: tf.Tensor) -> tf.Tensor:
        return weights if self.regularization_type == "L2" else tf.sign(weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "momentum2": self.momentum2,
            "rms_decay": self.rms_decay,
            "delta": self.delta,
            "weight_decay": self.decay,
            "regularization_type": self.regularization_type,
            "multipliers": {path: list(pair) for path, pair in self.multipliers.items()},
        }


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeSGD(CaffeSolver):
    """Caffe's SGD: `h = momentum * h + lr * g; w -= h`.

    Unlike in Keras' SGD the learning rate is inside the momentum, so that a change of the rate
    does not touch what was gathered. For the parameters see `CaffeSolver`, whose they are.

    Examples
    --------
    >>> import keras, pixelnet_tf as px
    >>> weight = keras.Variable([1.0], name="kernel")
    >>> solver = px.CaffeSGD(learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    >>> for _ in range(2):
    ...     _ = solver.apply_gradients([(keras.ops.ones(1), weight)])
    >>> round(float(weight[0]), 6)  # 1 - 0.1 - (0.09 + 0.1)
    0.71
    """

    history_names = ("momentum",)
    # The operations work in place: a temporary of fc6's 411 MB costs time and memory. Their
    # history is Caffe's with the other sign: h = momentum * h - lr * g; w += h.
    history_sign = -1.0

    def _update(self, variable: keras.Variable, weights: tf.Tensor, gradient: tf.Tensor,
                rate: tf.Tensor, decay: float, histories: Sequence[tf.Variable]) -> None:
        history = _resource(histories[0])
        momentum = tf.constant(self.momentum, weights.dtype)
        if decay:
            if self.momentum:
                # Into the history, which the momentum then multiplies.
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=history, alpha=rate * (decay / self.momentum),
                    delta=self._penalty(weights))
            else:
                gradient += decay * self._penalty(weights)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_resource(variable), accum=history, grad=gradient, lr=rate, momentum=momentum)


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeNesterov(CaffeSolver):
    """Nesterov's momentum: `v = h; h = momentum * h + lr * g; w -= (1 + momentum) h - momentum
    v`."""

    history_names = ("momentum",)

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        history, = histories
        before = tf.convert_to_tensor(history)
        after = self.momentum * before + rate * gradient
        history.assign(after)
        return (1 + self.momentum) * after - self.momentum * before


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeAdaGrad(CaffeSolver):
    """AdaGrad: `h += g^2; w -= lr * g / (sqrt(h) + delta)`; it has no momentum."""

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        history, = histories
        squares = tf.convert_to_tensor(history) + tf.square(gradient)
        history.assign(squares)
        return rate * gradient / (tf.sqrt(squares) + self.delta)


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeRMSProp(CaffeSolver):
    """RMSProp: `h = rms_decay h + (1 - rms_decay) g^2; w -= lr * g / (sqrt(h) + delta)`; it has no
    momentum."""

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        history, = histories
        squares = _blend(self.rms_decay, history, tf.square(gradient))
        return rate * gradient / (tf.sqrt(squares) + self.delta)


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeAdaDelta(CaffeSolver):
    """AdaDelta: `h = momentum h + (1 - momentum) g^2; u = g sqrt((k + delta) / (h + delta)); k =
    momentum k + (1 - momentum) u^2; w -= lr * u`."""

    history_names = ("squares", "updates")

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        squares, updates = histories
        mean = _blend(self.momentum, squares, tf.square(gradient))
        update = gradient * tf.sqrt((tf.convert_to_tensor(updates) + self.delta)
                                    / (mean + self.delta))
        _blend(self.momentum, updates, tf.square(update))
        return rate * update


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeAdam(CaffeSolver):
    """Adam: `m = momentum m + (1 - momentum) g; v = momentum2 v + (1 - momentum2) g^2; w -= lr *
    sqrt(1 - momentum2^t) / (1 - momentum^t) * m / (sqrt(v) + delta)`, t the number of the step."""

    history_names = ("mean", "squares")

    def _step(self, gradient: tf.Tensor, rate: tf.Tensor, *histories: tf.Variable) -> tf.Tensor:
        mean, squares = histories
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, tf.float64)
        correction = tf.sqrt(1 - self.momentum2**step) / (1 - self.momentum**step)
        first = _blend(self.momentum, mean, gradient)
        second = _blend(self.momentum2, squares, tf.square(gradient))
        rate *= tf.cast(correction, gradient.dtype)
        return rate * first / (tf.sqrt(second) + self.delta)


@keras.saving.register_keras_serializable("pixelnet_tf")
class DecoupledAdam(_OneDevice, keras.optimizers.AdamW):
    """Keras' AdamW with Caffe's multipliers (Loshchilov and Hutter, 2019).

    The rate of a variable is `lr * lr_mult`. Kernels lose `rate * weight_decay * decay_mult` of
    themselves before each step; biases and the other parameters of a number a channel, such as
    those of a normalisation, never decay. A variable with an lr multiplier of 0 stays as it is.

    Parameters
    ----------
    multipliers
        Variable path -> (lr_mult, decay_mult); (1, 1) for a variable not in it.

    The others are those of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args: Any,
                 multipliers: Mapping[str, tuple[float, float]] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.multipliers = _as_floats(multipliers)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
                    ) -> None:
        lr_mult, _ = self._multipliers_of(variable)
        if lr_mult:
            super().update_step(gradient, variable, learning_rate * lr_mult)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            lr_mult, decay_mult = self._multipliers_of(variable)
            if len(variable.shape) > 1 and (share := self.weight_decay * lr_mult * decay_mult):
                update_each(variable, _shrink, self.learning_rate * share)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(),
                "multipliers": {path: list(pair) for path, pair in self.multipliers.items()}}


#: Caffe's solver types.
SOLVERS: dict[SolverType, type[CaffeSolver]] = {
    SolverType.SGD: CaffeSGD, SolverType.NESTEROV: CaffeNesterov,
    SolverType.ADAGRAD: CaffeAdaGrad, SolverType.RMSPROP: CaffeRMSProp,
    SolverType.ADADELTA: CaffeAdaDelta, SolverType.ADAM: CaffeAdam,
}


def _as_floats(multipliers: Mapping[str, tuple[float, float]] | None
               ) -> dict[str, tuple[float, float]]:
    return {path: (float(lr_mult), float(decay_mult))
            for path, (lr_mult, decay_mult) in (multipliers or {}).items()}


def _blend(share: float, history: tf.Variable, new: tf.Tensor) -> tf.Tensor:
    """Let a history keep a share of itself and take the rest from what is new; returns it."""
    blended = share * tf.convert_to_tensor(history) + (1 - share) * new
    history.assign(blended)
    return blended


def update_each(variable: keras.Variable, update: Callable[..., None], *values: tf.Tensor) -> None:
    """Call a function with a variable and values, on each replica with its own of them.

    In a replica of several, TensorFlow lets nobody change a variable but by this way.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        update(variable.value, *values)
        return
    tf.distribute.get_replica_context().merge_call(
        lambda strategy, mirrored, *values: strategy.extended.update(
            mirrored, update, args=values, group=False), args=(variable.value, *values))


def _shrink(variable: tf.Variable, share: tf.Tensor) -> None:
    variable.assign_sub(variable * tf.cast(share, variable.dtype))


def _resource(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """Handle of a Keras variable or of the TensorFlow variable behind it."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def policy_from_config(config: SolverConfig, max_steps: int) -> CaffePolicy:
    """The learning rate that a configuration's `training.solver` describes.

    max_steps is the number of solver steps of the whole training (policies `poly` and `cosine`).
    Raises `ConfigError` for the rate `auto`, which a trial has to find first.
    """
    if config.base_lr == AUTO:
        raise ConfigError(f"training.solver.base_lr is {AUTO}: no trial has found the rate yet")
    return CaffePolicy(
        config.base_lr, config.lr_policy, gamma=config.gamma, power=config.power,
        stepsize=config.stepsize, stepvalues=config.stepvalues, max_steps=max_steps,
        warmup_steps=config.warmup_steps,
    )


def solver_from_config(
    config: SolverConfig,
    max_steps: int,
    multipliers: Mapping[str, tuple[float, float]] | None = None,
    learning_rate: float | None = None,
) -> CaffeSolver | DecoupledAdam:
    """The optimiser that a configuration's `training.solver` describes; see
    `policy_from_config`, in whose place a learning rate may be given, which can be set anew.

    It is to be given the mean gradient of `iter_size` mini-batches. Caffe clips their sum.
    """
    clip = config.clip_gradients / config.iter_size
    rate = policy_from_config(config, max_steps) if learning_rate is None else learning_rate
    if config.type == SolverType.ADAMW:
        return DecoupledAdam(
            rate, beta_1=config.momentum,
            beta_2=config.momentum2, epsilon=config.delta, weight_decay=config.weight_decay,
            multipliers=multipliers, global_clipnorm=clip or None)
    return SOLVERS[config.type](
        rate, config.momentum, config.weight_decay,
        multipliers=multipliers, momentum2=config.momentum2, rms_decay=config.rms_decay,
        delta=config.delta, global_clipnorm=clip or None)
