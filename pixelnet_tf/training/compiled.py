"""The training step as a StableHLO program, for any runtime that takes one (PJRT: XLA, IREE, JAX).

One program holds the whole step: the slices are varied and sampled, the network computed and
differentiated, the solver applied. What a step changes goes in and comes out as values, so that a
few lines of another framework can train with it; no TensorFlow need be there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tensorflow as tf

from pixelnet_tf.config import Precision, SamplingConfig, TrainingConfig
from pixelnet_tf.dataset.resident import ResidentSlices, check_compiles, resident_batch
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.model.stablehlo import lowered
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import make_step


@dataclass(frozen=True)
class TrainingProgram:
    """A compiled solver step.

    Attributes:
        module: the portable StableHLO module. Its arguments are the five arrays of
            `ResidentSlices`, the places of the batch's slices (batch,) int32, the number of the
            step from 1 () int32, then the values of `inputs`.
        inputs: numbers of the state's variables (`TrainingState.variables`), in the order of the
            arguments.
        outputs: numbers of those that a step changes, in the order of the results, before which
            the loss () float32 comes.
    """

    module: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def compiled_step(state: TrainingState, sampling: SamplingConfig, slices: ResidentSlices
                  ) -> tf.types.experimental.PolymorphicFunction:
    """The function that a program is made of: it takes the five arrays of `ResidentSlices`, the
    places of the batch's slices and the number of the step, changes the state, returns the loss.

    It is the plain form of the network in float32 over the whole canvas: what is faster on a
    processor, the box of the head and the fewer pixels of the first layer, has no static shapes.

    Args:
        state: of a configuration as `plain_training` gives it.
        slices: arrays, or anything with shapes and types.

    Raises:
        ConfigError: the training has no static shapes, or several mini-batches a step; the network
            scores regions.
    """
    training = state.config
    check_compiles(sampling, state.model.config.offsets)
    if state.model.config.region_based:
        raise ConfigError("a compiled step trains networks that score classes",
                          hint="set model.region_based=false")
    if training.solver.iter_size > 1 or sampling.hard_pixels or training.fast:
        raise ConfigError("a compiled step has one mini-batch, no hard pixels and the plain "
                          "network",
                          hint="set training.solver.iter_size=1, sampling.hard_pixels=0, "
                               "training.fast=false")
    update, size = make_step(state, sampling), training.batch_slices

    def step(images: tf.Tensor, labels: tf.Tensor, brain: tf.Tensor, donors: tf.Tensor,
             donor_count: tf.Tensor, places: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        batch = resident_batch(ResidentSlices(images, labels, brain, donors, donor_count), places,
                               (number - 1) * size, sampling, state.model.classes, training.seed)
        return update([batch], number)

    return tf.function(step, _arguments(slices, size), jit_compile=True, autograph=False)


def _arguments(slices: ResidentSlices, size: int) -> list[tf.TensorSpec]:
    return [*(tf.TensorSpec(array.shape, array.dtype) for array in slices),
            tf.TensorSpec([size], tf.int32), tf.TensorSpec([], tf.int32)]


def training_program(state: TrainingState, sampling: SamplingConfig, slices: ResidentSlices
                     ) -> TrainingProgram:
    """`compiled_step` as a module; its products are a runtime's default, on recent GPUs TF32."""
    step = compiled_step(state, sampling, slices)
    module, inputs = lowered(step, _arguments(slices, state.config.batch_slices), state.variables)
    changed = {id(variable.value.handle) for variable in (
        *state.trained, *state.optimizer.variables,
        *(() if state.result is state.model else state.result.variables))}
    outputs = tuple(number for number in inputs
                    if id(state.variables[number].handle) in changed)
    return TrainingProgram(module, inputs, outputs)


def plain_training(training: TrainingConfig) -> TrainingConfig:
    """The same training in the form that compiles."""
    return replace(training, fast=False, precision=Precision.FLOAT32)
