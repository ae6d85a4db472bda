"""The training step as a program: the same step, and arguments in the order that is told."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.resident import ResidentSlices, read_resident
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.training.compiled import compiled_step, plain_training, training_program
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import make_step

STEPS = 2


@pytest.fixture(scope="module")
def trainer(tiny_study, tiny_config) -> Trainer:
    # The pixels of a compiled batch stand in another order, and with them the dropout's masks.
    config = replace(
        tiny_config, model=replace(tiny_config.model, dropout=0.0),
        training=plain_training(replace(tiny_config.training, batch_slices=1)),
        sampling=replace(tiny_config.sampling, rotation=20, scaling=0.2, noise=0.1,
                         lesion_mixing=0.7))
    return Trainer(config, tiny_study, tiny_study.split, "never-written")


@pytest.fixture(scope="module")
def slices(trainer):
    return read_resident(trainer.study, trainer.schedule)


def new_state(trainer, **training) -> TrainingState:
    config = replace(trainer.config.training, average_weights=0.5, **training)
    model = trainer._new_model()
    return TrainingState(model, config, model.weighted, steps=10)


def test_what_is_compiled_is_the_step(trainer, slices):
    """Run by TensorFlow, for XLA's compiler takes half a minute; `export_hlo.py --check` has it."""
    own, compiled = new_state(trainer), new_state(trainer)
    sampling, size = trainer.config.sampling, trainer.config.training.batch_slices
    step, (resident, rows) = make_step(own, sampling), slices
    program = tf.function(compiled_step(compiled, sampling, resident).python_function,
                          autograph=False)
    batches = training_batches(trainer.study, trainer.schedule, sampling, batch_slices=size,
                               seed=trainer.config.training.seed).take(STEPS)
    for number, batch in enumerate(batches, start=1):
        number = tf.constant(number, tf.int32)
        places = np.searchsorted(rows, batch["row"]).astype(np.int32)
        loss = program(*resident, places, number)
        np.testing.assert_allclose(loss, step([batch], number), rtol=1e-4)
    for one, other in zip(own.variables, compiled.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-5)


def test_the_program_tells_its_arguments_and_results(trainer, slices):
    state = new_state(trainer)
    shapes = ResidentSlices(*(tf.TensorSpec(array.shape, array.dtype) for array in slices[0]))
    program = training_program(state, trainer.config.sampling, shapes)
    assert isinstance(program.module, bytes)
    assert program.module[:4] == b"ML\xefR"
    assert set(program.outputs) <= set(program.inputs)
    # Every trained weight, its average and its history, and the number of the step.
    trained = len(state.trained)
    averaged = len(state.result.variables)
    assert len(program.outputs) == trained + averaged + len(state.optimizer.variables)
    assert averaged >= trained > 0


def test_a_network_that_scores_regions_is_refused(trainer, slices):
    state = new_state(trainer)
    state.model.config = replace(state.model.config, region_based=True)
    with pytest.raises(ConfigError, match="score classes"):
        training_program(state, trainer.config.sampling, slices[0])


def test_a_step_of_several_batches_is_refused(trainer, slices):
    solver = replace(trainer.config.training.solver, iter_size=2)
    state = new_state(trainer, solver=solver)
    with pytest.raises(ConfigError, match="one mini-batch"):
        training_program(state, trainer.config.sampling, slices[0])
