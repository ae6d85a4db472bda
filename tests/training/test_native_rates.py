"""Rescaled pretrained weights that learn as fast as in their own scale."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig, SamplingConfig, SolverConfig, TrainingConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.initial import balance_taps, rescale_intensity, tap_scales
from pixelnet_tf.training.state import TrainingState, check_caffe_follows
from pixelnet_tf.training.step import make_step
from tests.listening import Listening

MODEL = ModelConfig(widths=(3, 4, 4, 5, 5), fc7="none", head_widths=(6,), border=0, dropout=0.0)


@pytest.fixture(scope="module")
def pair():
    """A network, the same one rescaled, by what each variable was, and a mini-batch for each."""
    rng = np.random.default_rng(0)
    own, rescaled = (PixelNet(MODEL, channels=2, classes=2, seed=1) for _ in range(2))
    for layer in own.parts.values():
        if layer.weights:
            layer.kernel.assign(rng.normal(0, (2 / np.prod(layer.kernel.shape[:-1])) ** 0.5,
                                           layer.kernel.shape))
            layer.bias.assign(rng.uniform(0, 5.0, layer.bias.shape))
    rescaled.set_weights(own.get_weights())
    image = rng.normal(size=(2, 32, 32, 2)).astype(np.float32)
    scales = rescale_intensity(rescaled, 20.0, own.architecture.head_names)
    factors = balance_taps(rescaled, image)
    for path, scale in tap_scales(rescaled, factors).items():
        scales[path] = scales.get(path, 1.0) * scale
    # The head of the first one reads its maps as the other's.
    first = own.architecture.head_names[0]
    rows = np.repeat(np.array(factors, np.float32) / 20.0, MODEL.widths)
    own.parts[first].kernel.assign(own.parts[first].kernel * rows[:, None])
    batch = {"pixels": rng.integers(0, [2, 32, 32], (60, 3)).astype(np.float32),
             "classes": rng.integers(0, 2, 60).astype(np.int32)}
    batches = [{key: tf.constant(value) for key, value in {**batch, "image": array}.items()}
               for array in (20 * image, image)]
    # Factors of a hundred and more, up and down, are what is made up for.
    assert max(scales.values()) / min(scales.values()) > 50
    return own, rescaled, scales, batches


@pytest.mark.parametrize("solver", [
    SolverConfig(base_lr=1e-3, lr_policy="fixed", weight_decay=0.1),
    SolverConfig(type="Nesterov", base_lr=1e-3, lr_policy="fixed", weight_decay=0.1),
    SolverConfig(type="adamw", base_lr=1e-2, lr_policy="fixed", weight_decay=0.1, delta=1e-20)])
def test_a_rescaled_trunk_learns_what_it_would_have(pair, solver):
    *models, scales, batches = pair
    # The head stays as it is: its maps have another scale in the first one.
    training = TrainingConfig(native_rates=True, solver=replace(solver, new_layers_lr=0.0))
    before, losses = [model.get_weights() for model in models], []
    found = []
    for model, batch, own_scales in zip(models, batches, ({}, scales), strict=True):
        state = TrainingState(model, training, (), 4, scales=own_scales)
        step = make_step(state, SamplingConfig())
        losses.append([float(step([batch], tf.constant(i, tf.int32))) for i in range(1, 5)])
        found.append(model.get_weights())
    for model, weights in zip(models, before, strict=True):
        model.set_weights(weights)
    assert losses[0][-1] < 0.95 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    moved = 0
    for variable, old, one, other in zip(models[0].variables, before[0], *found, strict=True):
        if variable.path.startswith("conv"):
            moved += not np.array_equal(old, one)
            np.testing.assert_allclose(other / scales.get(variable.path, 1.0), one, rtol=1e-3,
                                       atol=1e-4 * np.abs(one).max(), err_msg=variable.path)
    assert moved == 26


def test_a_training_keeps_the_scales_for_its_resume(make_trainer, tmp_path):
    start = tmp_path / "start.keras"
    RunFolder(str(start)).save_model(
        PixelNet(make_trainer().config.model, channels=3, classes=4, seed=8))
    fields = {"initial_weights": str(start), "balance_taps": True, "checkpoint_every": 2,
              "validates": False}

    def stop(task, done):
        if done == 3:
            raise ZeroDivisionError

    whole = make_trainer("whole", native_rates=True, **fields).run().get_weights()
    killed = make_trainer("killed", native_rates=True, **fields)
    killed.reporter = Listening(stop)
    with pytest.raises(ZeroDivisionError):
        killed.run()
    scales = killed.run_folder.scales()
    # Pretrained layers alone: a random one has no scale of its own.
    assert "conv1_2/kernel" in {"/".join(path.split("/")[-2:]) for path in scales}
    assert not any(path.startswith("cls_score") for path in scales)
    for mine, theirs in zip(make_trainer("killed", native_rates=True, **fields)
                            .run(resume=True).get_weights(), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_random_layers_learn_at_the_plain_rate(make_trainer):
    trainer = make_trainer(balance_taps=True, native_rates=True)
    start = trainer._initialise(trainer._new_model(), balance=True)
    assert start.scales == {}


def test_caffe_has_no_such_rates():
    with pytest.raises(ModelError, match="native_rates=true"):
        check_caffe_follows(TrainingConfig(native_rates=True), "RUN")
