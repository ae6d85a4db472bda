"""A training from its first step to its model."""

import json
import random
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import SolverConfig, load_config
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, DataError, ModelError, RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training import loop
from pixelnet_tf.training.loop import Trainer, plan_training
from pixelnet_tf.training.state import training_multipliers
from tests.listening import Listening


def stop_after(step: int):
    """A reporter that fails after a step, as a death of the process would."""
    def stop(task, done):
        if done == step:
            raise ZeroDivisionError
    return Listening(stop)


def test_the_first_step_is_told_of_however_rarely_is_logged(make_trainer):
    """Not four minutes without a line."""
    ears, trainer = Listening(), make_trainer("told", validates=False)
    trainer.reporter, trainer.plan = ears, replace(trainer.plan, log_every=100)
    trainer.run()
    assert [done for _, done, _, _ in ears.events][:1] == [1]
    assert ears.tasks == {"training": (4, 4)}


def test_the_loss_falls_and_the_run_is_complete(make_trainer, tmp_path):
    ears = Listening()
    trainer = make_trainer(steps=60, checkpoint_every=25, validate_every=30)
    trainer.reporter = ears
    model = trainer.run()
    losses = [row["loss"] for row in RunFolder(str(tmp_path / "run")).log_rows() if "loss" in row]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "split.json", "priors.json", "start.json", "model.keras", "checkpoints",
        "decisions.json", "log.jsonl", "log.csv", "tensorboard", "manifest.jsonl"}
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.config() == trainer.config
    assert folder.split() == trainer.split
    again = folder.model()
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    validations = [row for row in folder.log_rows() if "loss" not in row]
    assert [row["step"] for row in validations] == [30, 60]
    assert set(validations[0]) >= {"step", "validation/dice_necrosis", "validation/dice_edema",
                                   "validation/dice_enhancing"}
    assert ears.tasks == {"training": (60, 60)}
    assert any(line.startswith("the first step takes longest") for line in ears.said)
    assert ears.events[-1][3].startswith("epoch ")
    assert sum(line.startswith("step 30/60  validation  dice_necrosis ") for line in ears.said) == 1
    state = json.loads((tmp_path / "run" / "checkpoints" / "state.json").read_text())
    assert state["last"]["step"] == 60
    assert state["best"]["step"] in (30, 60)
    assert folder.priors().strength == pytest.approx(
        float(next(line for line in ears.said if "strength" in line)
              .split("strength ")[1].split()[0]))


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
    with pytest.raises(ConfigError, match=r"training.batch_slices=3 \(not 2\); resume"):
        make_trainer(validates=False, batch_slices=3).run(resume=True)


def test_a_resume_with_other_cases_or_slices(make_trainer, tiny_study):
    # As with --fold: the same configuration, but it would train on cases that the run calls test.
    make_trainer(validates=False).run()
    other = make_trainer(validates=False)
    other.split = replace(other.split, train=other.split.test, test=other.split.train)
    with pytest.raises(ConfigError, match=r"has split.test=.*, split.train=.*give a new --out"):
        other.run(resume=True)
    # The study was prepared anew from other images.
    index = replace(tiny_study.index, length=tiny_study.index.length + 1)
    other = make_trainer(validates=False)
    other.study = PreparedStudy(tiny_study.path, tiny_study.config, tiny_study.split, index)
    with pytest.raises(ConfigError, match="has the prepared training slices="):
        other.check(resume=True)


def test_a_resume_before_the_first_checkpoint_is_the_same_training(make_trainer):
    fields = {"balance_taps": True, "steps": 3}
    whole = make_trainer("whole", validates=False, **fields).run().get_weights()
    trainer = make_trainer("killed", validates=False, **fields)
    trainer.reporter = stop_after(2)
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    # It has started, and nothing is saved yet.
    assert trainer.run_folder.exists()
    shutil.rmtree(trainer.run_folder.file("checkpoints"))
    again = make_trainer("killed", validates=False, **fields)
    ears = Listening()
    again.reporter = ears
    for mine, theirs in zip(again.run(resume=True).get_weights(), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert "no checkpoint yet: starting again with the first step" in ears.said


def test_a_resume_says_where_it_goes_on_and_needs_no_start_weights(make_trainer, tmp_path):
    start = tmp_path / "start.keras"
    RunFolder(str(start)).save_model(
        PixelNet(make_trainer().config.model, channels=3, classes=4, seed=8))
    fields = {"initial_weights": str(start), "steps": 4, "checkpoint_every": 2, "validates": False}
    whole = make_trainer("whole", **fields).run().get_weights()
    trainer = make_trainer("killed", **fields)
    trainer.reporter = stop_after(3)
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    start.unlink()
    again, ears = make_trainer("killed", **fields), Listening()
    again.reporter = ears
    for mine, theirs in zip(again.run(resume=True).get_weights(), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert ears.said[0] == "going on from step 2 of 4"
    with pytest.raises(ModelError, match=r"initial_weights: .* does not exist"):
        make_trainer("new", **fields).check()


def test_the_learning_rate_in_the_log_is_the_steps_own(make_trainer):
    solver = SolverConfig(base_lr=0.01, lr_policy="multistep", stepvalues=(2, 3), gamma=0.5)
    trainer = make_trainer(validates=False, solver=solver)
    trainer.run()
    rates = [row["learning_rate"] for row in trainer.run_folder.log_rows()]
    # Caffe counts steps from 0: the third falls on 2.
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_class_frequencies_are_measured_once_a_run(make_trainer, monkeypatch):
    measured = []

    def measure(study, schedule, sampling, regions):
        measured.append(1)
        return ClassPriors(study.config.study.class_names, (0.7, 0.1, 0.1, 0.1), (0.25,) * 4)

    monkeypatch.setattr(loop, "measure_priors", measure)
    make_trainer().check()
    assert not measured
    make_trainer().run()
    again = make_trainer()
    again.check(resume=True)
    again.run(resume=True)
    assert measured == [1]
    assert again.run_folder.priors().real == (0.7, 0.1, 0.1, 0.1)


def test_nothing_of_the_process_stays_changed(make_trainer):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    random.seed(5)
    state = random.getstate()
    make_trainer(validates=False, deterministic=True).run()
    assert random.getstate() == state
    assert not is_op_determinism_enabled()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_the_scope_of_a_strategy_is_refused(make_trainer, monkeypatch):
    strategy = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    with pytest.raises(ConfigError, match="within the scope of a"):
        make_trainer(validates=False).run()


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
    plan = plan_training(config.training, trainer.schedule, validates=True)
    assert plan.steps_per_epoch == -(-slices // 4)
    assert plan.steps == 3 * plan.steps_per_epoch
    assert plan.checkpoint_every == plan.validate_every == plan.steps_per_epoch
    assert plan_training(config.training, trainer.schedule, validates=False).validate_every == 0


def test_want_of_memory_is_not_laid_to_the_study(make_trainer, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(loop, "make_step", lambda *_: full)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="OOM"):
        make_trainer("full").run()
