"""A training from its first step to its model."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from pixelnet_tf.config import SolverConfig, load_config
from pixelnet_tf.errors import ConfigError, DataError, ModelError, RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.network import load_model
from pixelnet_tf.training.loop import Trainer, plan_training
from pixelnet_tf.training.multipliers import training_multipliers


def test_the_loss_falls_and_the_run_is_complete(make_trainer, tmp_path):
    said, rows = [], []
    trainer = make_trainer(steps=60, checkpoint_every=25, validate_every=30)
    trainer.say, trainer.progress = said.append, lambda row, total: rows.append((row, total))
    model = trainer.run()
    losses = [row["loss"] for row in RunFolder(str(tmp_path / "run")).log_rows() if "loss" in row]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "split.json", "priors.json", "start.json", "model.keras", "checkpoints",
        "log.jsonl", "log.csv", "tensorboard"}
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.config() == trainer.config
    assert folder.split() == trainer.split
    again = folder.model()
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    validations = [row for row, _ in rows if "loss" not in row]
    assert [row["step"] for row in validations] == [30, 60]
    assert set(validations[0]) == {"step", "validation/dice_necrosis", "validation/dice_edema",
                                   "validation/dice_enhancing"}
    assert rows[-2][0]["step"] == rows[-2][1] == 60
    state = json.loads((tmp_path / "run" / "checkpoints" / "state.json").read_text())
    assert state["last"]["step"] == 60
    assert state["best"]["step"] in (30, 60)
    assert folder.priors().strength == pytest.approx(
        float(next(line for line in said if "strength" in line).split("strength ")[1].split()[0]))


def test_the_same_seed_gives_the_same_weights(make_trainer):
    one, again, other = (make_trainer(out, validates=False, seed=seed).run().get_weights()
                         for out, seed in (("a", 1), ("b", 1), ("c", 2)))
    for mine, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(mine, same)
    assert any(not np.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_frozen_blocks_stay_and_the_others_learn(make_trainer):
    trainer = make_trainer(validates=False, frozen_blocks=2)
    start = PixelNet(trainer.config.model, 3, 4, seed=trainer.config.training.seed)
    model = trainer.run()
    for name, layer in model.parts.items():
        for before, after in zip(start.parts[name].get_weights(), layer.get_weights(),
                                 strict=True):
            assert np.array_equal(before, after) == name.startswith(("conv1", "conv2")), name


def test_multipliers_of_new_and_frozen_layers():
    config = load_config("phantom", ["training.frozen_blocks=1", "training.solver.new_layers_lr=10",
                                     "model.fc7=faithful", "model.fc_width=4"])
    model = PixelNet(config.model, 3, 4)
    found = training_multipliers(model, config.training, model.weighted)
    found = {tuple(path.split("/")[-2:]): value for path, value in found.items()}
    assert found["conv1_2", "kernel"] == (0.0, 1.0)
    assert found["conv2_1", "kernel"] == (1.0, 1.0)
    assert found["conv2_1", "bias"] == (2.0, 0.0)
    assert found["fc6_conv", "kernel"] == (10.0, 1.0)
    assert found["cls_score_new", "bias"] == (20.0, 0.0)
    found = training_multipliers(model, config.training, model.weighted - {"fc6_conv"})
    assert found[model.parts["fc6_conv"].kernel.path] == (1.0, 1.0)


def test_bfloat16_and_plain_end_near_the_fast_one(make_trainer):
    fast, plain, half = (make_trainer(out, validates=False, **fields).run().get_weights()
                         for out, fields in (("a", {}), ("b", {"fast": False}),
                                             ("c", {"precision": "bfloat16"})))
    for one, other, rough in zip(fast, plain, half, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(one).max())
        if one.ndim > 1:
            np.testing.assert_allclose(one, rough, rtol=0, atol=0.25 * np.abs(one).max())
        assert rough.dtype == np.float32
    # Biases begin at zero: they are what was learnt.
    one, rough = (np.concatenate([w for w in side if w.ndim == 1]) for side in (fast, half))
    assert np.linalg.norm(rough - one) <= 0.25 * np.linalg.norm(one)


def test_a_folder_with_a_run(make_trainer):
    make_trainer(validates=False).run()
    with pytest.raises(RunError, match="holds a run already; go on with --resume"):
        make_trainer(validates=False).run()


def test_resumed_with_another_configuration(make_trainer):
    make_trainer(validates=False).run()
    with pytest.raises(ConfigError, match=r"training.batch_slices=3 \(.*run: 2\); resume"):
        make_trainer(validates=False, batch_slices=3).run(resume=True)


def test_resumed_at_its_end_it_gives_the_same_model(make_trainer):
    first = make_trainer().run().get_weights()
    for mine, theirs in zip(make_trainer().run(resume=True).get_weights(), first, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nothing_to_train_on(tiny_study, tiny_config, tmp_path):
    with pytest.raises(DataError, match="no case to train on"):
        Trainer(tiny_config, tiny_study, replace(tiny_study.split, train=()), str(tmp_path))


def test_a_study_too_small_for_the_network(tiny_study, tiny_config, tmp_path):
    config = load_config("phantom", ["model.fc7=faithful", "model.fc_width=4", "model.border=50"])
    with pytest.raises(ModelError, match="too small for the hypercolumn's rate 224"):
        Trainer(config, tiny_study, tiny_study.split, str(tmp_path / "run")).run()
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_a_number(make_trainer):
    trainer = make_trainer(validates=False, steps=40, solver=SolverConfig(base_lr=1e6))
    with pytest.raises(RunError, match=r"not a number at step .*lower training.solver.base_lr"):
        trainer.run()


def test_the_plan(make_trainer):
    trainer = make_trainer()
    slices = trainer.schedule.epoch_slices
    config = load_config("phantom", ["training.steps=0", "training.epochs=3",
                                     "training.batch_slices=4"])
    plan = plan_training(config, trainer.schedule, validates=True)
    assert plan.steps_per_epoch == -(-slices // 4)
    assert plan.steps == 3 * plan.steps_per_epoch
    assert plan.checkpoint_every == plan.validate_every == plan.steps_per_epoch
    assert plan_training(config, trainer.schedule, validates=False).validate_every == 0


def test_a_model_file_that_is_none(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded as a model of this project"):
        load_model(str(tmp_path / "model.keras"))
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match="not a PixelNet"):
        load_model(str(tmp_path / "other.keras"))
    with pytest.raises(ModelError, match=r"not a trained run \(no config.yaml\)"):
        RunFolder(str(tmp_path / "none")).config()
    with pytest.raises(ModelError, match="let `pixelnet-tf train --resume` finish"):
        RunFolder(str(tmp_path / "none")).model()
