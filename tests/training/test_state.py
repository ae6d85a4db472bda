"""What a training's state holds beside Caffe's solver: AdamW, and averaged weights."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig, SolverConfig, TrainingConfig
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.state import TrainingState, check_caffe_follows
from pixelnet_tf.training.validation import case_validator
from tests.listening import Listening

#: The whole of it in eight steps.
ADAMW = SolverConfig(type="adamw", base_lr=2e-3, lr_policy="cosine", warmup_steps=2,
                     weight_decay=0.01, clip_gradients=2.0, iter_size=2)
FIELDS = {"solver": ADAMW, "average_weights": 0.9, "loss": "cross_entropy_dice", "steps": 8,
          "batch_slices": 1, "frozen_blocks": 1, "checkpoint_every": 3, "validate_every": 4}
TINY = ModelConfig(widths=(2, 2, 2, 2, 2), fc7="none", head_widths=(3,), border=0)


def test_averaged_weights_by_hand():
    model = PixelNet(TINY, 1, 2, seed=1)
    state = TrainingState(model, TrainingConfig(average_weights=0.3), (), steps=10)
    kernel, mean = model.parts["conv1_1"].kernel, state.result.parts["conv1_1"].kernel
    start = kernel.numpy()
    np.testing.assert_array_equal(mean.numpy(), start)
    expected = start
    # After t steps a share of (1 + t) / (10 + t) is kept, 2/11 and 3/12, and at most 0.3.
    for step, kept in ((1, 2 / 11), (2, 3 / 12), (3, 0.3), (4, 0.3)):
        kernel.assign(kernel + step)
        state.optimizer.iterations.assign(step)
        state.average()
        expected = kept * expected + (1 - kept) * kernel.numpy()
        np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-5)
    untouched = model.parts["conv2_1"].kernel.numpy()
    np.testing.assert_array_equal(state.result.parts["conv2_1"].kernel.numpy(), untouched)


def test_without_averaging_the_state_is_what_it_was():
    model = PixelNet(TINY, 1, 2, seed=1)
    state = TrainingState(model, TrainingConfig(), (), steps=10)
    assert state.result is model
    assert len(state.variables) == len(model.variables) + len(state.optimizer.variables)


@pytest.fixture(scope="module")
def whole(tiny_study, tiny_config, tmp_path_factory) -> SimpleNamespace:
    """A run by `FIELDS`: its `folder`, `model`, and the weights that each validation `saw`; not to
    be changed."""
    saw = []

    def validator(*arguments):
        validate = case_validator(*arguments)

        def watched(model):
            saw.append(model.get_weights())
            return validate(model)

        return watched

    trainer = trainer_of(tiny_study, tiny_config, tmp_path_factory.mktemp("whole") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixelnet_tf.training.loop.case_validator", validator)
        model = trainer.run()
    return SimpleNamespace(folder=trainer.run_folder, model=model, saw=saw)


def trainer_of(study, config, out) -> Trainer:
    return Trainer(replace(config, training=replace(config.training, **FIELDS)), study, study.split,
                   str(out))


def checkpoint(run, kind):
    name = run.state(kind)["name"]
    reader = tf.train.load_checkpoint(run.file(f"checkpoints/{name}"))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()
            if "OBJECT_GRAPH" not in key}


def test_stopped_and_resumed_it_ends_with_the_same_bits(whole, tiny_study, tiny_config, tmp_path):
    """AdamW, warm-up, cosine, clipping, mini-batches, averages and a frozen block together."""
    def stop(task, done):
        if done == 5:
            raise ZeroDivisionError

    killed = trainer_of(tiny_study, tiny_config, tmp_path / "killed")
    killed.reporter = Listening(stop)
    with pytest.raises(ZeroDivisionError):
        killed.run()
    assert killed.run_folder.state("last")["step"] == 3
    trainer_of(tiny_study, tiny_config, tmp_path / "killed").run(resume=True)
    for kind in ("last", "best"):
        one, other = (checkpoint(run, kind) for run in (whole.folder, killed.run_folder))
        assert one.keys() == other.keys()
        # Averaged weights, the solver's two histories of what is not frozen, and the weights.
        assert len(one) > 3.5 * len(whole.model.weights)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=f"{kind} {key}")


def test_averaged_weights_are_validated_and_kept(whole):
    run = whole.folder
    assert len(whole.saw) == 2
    best = whole.saw[run.state("best")["step"] // 4 - 1]
    for final, stored, at_best, at_last, validated, last_validated in zip(
            whole.model.get_weights(), run.model().get_weights(),
            RunFolder(run.file("checkpoints/best")).model().get_weights(),
            RunFolder(run.file("checkpoints/last")).model().get_weights(),
            best, whole.saw[-1], strict=True):
        for each in (final, stored, at_best):
            np.testing.assert_array_equal(each, validated)
        np.testing.assert_array_equal(at_last, last_validated)


def test_frozen_blocks_stay_under_adamw_and_its_averages(whole):
    config = whole.folder.config()
    start = PixelNet(config.model, 3, 4, seed=config.training.seed)
    for name, layer in whole.model.parts.items():
        for before, after in zip(start.parts[name].get_weights(), layer.get_weights(),
                                 strict=True):
            assert np.array_equal(before, after) == name.startswith("conv1"), name


def test_caffes_snapshot_is_refused_where_caffe_could_not_go_on(whole):
    with pytest.raises(ModelError, match="Caffe's solvers do not know") as found:
        TrainingState.of_run(whole.folder)
    assert "training.solver.type=adamw, training.solver.lr_policy=cosine" in str(found.value)


@pytest.mark.parametrize(("training", "what"), [
    (TrainingConfig(solver=SolverConfig(type="adamw")), "solver.type=adamw"),
    (TrainingConfig(solver=SolverConfig(lr_policy="cosine")), "solver.lr_policy=cosine"),
    (TrainingConfig(solver=SolverConfig(warmup_steps=1)), "solver.warmup_steps=1"),
    (TrainingConfig(average_weights=0.5), "average_weights=0.5"),
])
def test_each_thing_that_caffes_solvers_do_not_know_is_named(training, what):
    with pytest.raises(ModelError, match=rf"^RUN: was trained with training\.{what}, which Caffe"):
        check_caffe_follows(training, "RUN")
    check_caffe_follows(TrainingConfig(), "RUN")


def test_a_warm_up_longer_than_the_training_is_refused_before_it(make_trainer):
    solver = replace(ADAMW, warmup_steps=8)
    with pytest.raises(ConfigError, match="more steps than those of its warm-up"):
        make_trainer(**{**FIELDS, "solver": solver}).check()


def test_balanced_pixels_both_losses_and_adamw_beat_chance(tiny_config, tiny_study, tmp_path):
    """The combination that does best on real patients, on the phantom."""
    solver = SolverConfig(type="adamw", base_lr=0.01, lr_policy="cosine", weight_decay=0.01)
    config = replace(
        tiny_config, model=replace(tiny_config.model, dropout=0.0),
        training=replace(tiny_config.training, solver=solver, loss="cross_entropy_dice", steps=250,
                         average_weights=0.9, checkpoint_every=250, validate_every=250))
    assert config.sampling.strategy == "balanced"
    trainer = Trainer(config, tiny_study, tiny_study.split, str(tmp_path / "run"))
    trainer.run()
    rows = trainer.run_folder.log_rows()
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    # Labels drawn by their frequency reach a Dice of that frequency, 1.4% for edema.
    assert max(trainer.run_folder.priors().real[1:]) < 0.02
    assert rows[-1]["validation/dice_edema"] > 0.5
