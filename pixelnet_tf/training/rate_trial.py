"""The trial that chooses a learning rate before a training: `training.solver.base_lr: auto`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import tensorflow as tf

from pixelnet_tf.config import SamplingConfig, SolverType, TrainingConfig
from pixelnet_tf.errors import RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.runs.rate_trial import RATE_RULE, STEPS, RateTrial, shares, steadily
from pixelnet_tf.training.loss import Regions
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import Batch, make_step

#: Where the trial begins: a usual rate of the solver. AdaDelta's rule has no unit, hence near 1.
FIRST_RATES = {SolverType.SGD: 1e-3, SolverType.NESTEROV: 1e-3, SolverType.ADAGRAD: 1e-3,
               SolverType.RMSPROP: 1e-4, SolverType.ADADELTA: 1.0, SolverType.ADAM: 1e-4,
               SolverType.ADAMW: 1e-4}
#: How often the first rate is doubled or halved at most.
MOST = 7


def with_rate(training: TrainingConfig, rate: float) -> TrainingConfig:
    """The section `training` with a number as its rate."""
    return replace(training, solver=replace(training.solver, base_lr=rate))


def find_rate(model: PixelNet, training: TrainingConfig, sampling: SamplingConfig,
              new_layers: Collection[str], scales: Mapping[str, float],
              batches: Sequence[Sequence[Batch]], reporter: Reporter, regions: Regions = ()
              ) -> RateTrial:
    """Try rates from the model's weights, which it has again afterwards, and choose one.

    Args:
        new_layers: names of the layers that do not come from pretrained weights.
        scales: what `TrainingState` takes.
        batches: the mini-batches of each of `STEPS` steps.
        reporter: hears of the task "learning rate trial", in steps.
        regions: class indices of each region, where the network scores regions.

    Raises:
        RunError: the loss falls at none of the rates.
    """
    first = FIRST_RATES[training.solver.type]
    start = model.get_weights()
    state = TrainingState(model, replace(with_rate(training, first), average_weights=0.0),
                          new_layers, STEPS, learning_rate=first, scales=scales)
    step = make_step(state, sampling, regions)
    done = 0

    def curve(rate: float) -> tuple[float, ...]:
        nonlocal done
        model.set_weights(start)
        # Every solver begins with zeros.
        for variable in state.optimizer.variables:
            variable.assign(tf.zeros_like(variable.value))
        state.optimizer.learning_rate = rate
        found = []
        for number, of_step in enumerate(batches, start=1):
            loss = float(step(of_step, tf.constant(number, tf.int32)))
            done += 1
            reporter.progress("learning rate trial", done, done, f"rate {rate:g}  loss {loss:.4f}")
            if not math.isfinite(loss):
                break
            found.append(loss)
        return tuple(found)

    # A rate of 0 leaves the weights as they are.
    at_start = curve(0.0)
    if len(at_start) < len(batches):
        raise RunError("the loss of the start weights is not a number, at no learning rate",
                       hint="look at training.initial_weights and at the prepared slices")
    try:
        curves = climb(first, curve, at_start)
    finally:
        model.set_weights(start)
    rates = tuple(curves)
    steady = [rate for rate in rates if steadily(curves[rate], at_start)]
    if not steady:
        raise RunError(f"the loss falls steadily at no learning rate from {min(rates):g} to "
                       f"{max(rates):g}", hint="set training.solver.base_lr to a number, or look "
                       "at training.initial_weights and training.solver")
    chosen = best_rate(curves, at_start)
    return RateTrial(RATE_RULE, training.solver.type.value, chosen, at_start, rates,
                     tuple(curves.values()))


def climb(first: float, curve: Callable[[float], tuple[float, ...]], start: Sequence[float]
          ) -> dict[float, tuple[float, ...]]:
    """Losses by the rate: from the first upwards while they fall steadily and end lower each time,
    or downwards until they do."""
    curves = {first: curve(first)}
    up = steadily(curves[first], start)
    rate = first
    for _ in range(MOST):
        before, rate = rate, rate * (2.0 if up else 0.5)
        curves[rate] = curve(rate)
        falls = steadily(curves[rate], start)
        if up and not (falls and _end(curves[rate], start) < _end(curves[before], start)):
            break
        if not up and falls:
            break
    return curves


def best_rate(curves: dict[float, tuple[float, ...]], start: Sequence[float]) -> float:
    """The steady rate that ends lowest, which is the largest one that `climb` went on from."""
    steady = [rate for rate, losses in curves.items() if steadily(losses, start)]
    return min(steady, key=lambda rate: (_end(curves[rate], start), -rate))


def _end(losses: Sequence[float], start: Sequence[float]) -> float:
    return float(shares(losses, start)[-1])
