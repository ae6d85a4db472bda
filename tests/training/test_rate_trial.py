"""The trial that chooses a learning rate."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pixelnet_tf.api.check import check_folder
from pixelnet_tf.config import Precision, SolverConfig
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.rate_trial import STEPS, WINDOW, RateTrial, shares, steadily
from pixelnet_tf.training import loop
from pixelnet_tf.training.initial import check_source
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.rate_trial import FIRST_RATES, best_rate, climb, find_rate
from pixelnet_tf.training.solver import policy_from_config
from tests.listening import Listening

FLAT = (2.0,) * STEPS
SOLVER = SolverConfig(base_lr="auto", lr_policy="poly")
FIELDS = {"steps": 4, "checkpoint_every": 2}


def falling(to: float) -> tuple[float, ...]:
    return tuple(np.linspace(2.0, to, STEPS))


@pytest.mark.parametrize(("losses", "steady"), [
    (falling(1.0), True),
    (falling(1.9), True),
    (FLAT, False),
    # A jump at the start, whatever comes later.
    ((2.0, 8.0, *falling(0.5)[2:]), False),
    # It falls, then rises again, though it ends below the start.
    ((*falling(0.8)[:12], *(1.9,) * (STEPS - 12)), False),
    # A single bad mini-batch of four within what is tolerated.
    ((*falling(1.0)[:8], 1.6, *falling(1.0)[9:]), True),
    # The last loss was not finite.
    (falling(1.0)[:5], False),
])
def test_what_falls_steadily(losses, steady):
    assert steadily(losses, FLAT) is steady


def test_hard_batches_do_not_count_as_jumps():
    start = tuple(np.random.default_rng(0).uniform(0.2, 3.0, STEPS))
    assert steadily(tuple(loss * share for loss, share in
                          zip(start, np.linspace(1, 0.6, STEPS), strict=True)), start)
    assert shares(start, start) == pytest.approx(np.ones(STEPS - WINDOW + 1))


@pytest.mark.parametrize(("best", "tried", "chosen"), [
    # Beyond its best rate the loss no longer ends lower, or jumps.
    (4e-3, [1e-3, 2e-3, 4e-3, 8e-3], 4e-3), (1e-3, [1e-3, 2e-3], 1e-3),
    (2.5e-4, [1e-3, 5e-4, 2.5e-4], 2.5e-4)])
@pytest.mark.parametrize("beyond", [FLAT, falling(1.95), (2.0, 9.0, *FLAT[2:])])
def test_the_rate_is_doubled_or_halved_to_the_largest_steady_one(best, tried, chosen, beyond):
    def curve(rate):
        if rate > best:
            # From above, only what is not steady sends it down.
            return beyond if best > 5e-4 else FLAT
        return falling(2 - rate / best)

    curves = climb(1e-3, curve, FLAT)
    assert list(curves) == pytest.approx(tried)
    assert best_rate(curves, FLAT) == pytest.approx(chosen)


@pytest.fixture(scope="module")
def trained(tiny_study, tiny_config, tmp_path_factory):
    """A function (out, solver, on_progress, resume) -> (trainer, weights, ears)."""
    folder = tmp_path_factory.mktemp("trial")

    def train(out, solver, on_progress=lambda task, done: None, resume=False):
        config = replace(tiny_config, training=replace(
            tiny_config.training, solver=solver, average_weights=0.9, **FIELDS))
        ears = Listening(on_progress)
        trainer = Trainer(config, tiny_study, replace(tiny_study.split, validation=()),
                          str(folder / out), reporter=ears)
        return SimpleNamespace(run=trainer.run_folder, config=config, ears=ears,
                               weights=trainer.run(resume).get_weights())

    return train


@pytest.fixture(scope="module")
def whole(trained):
    return trained("whole", SOLVER)


def check_trial(trial, solver):
    assert trial.chosen in trial.rates
    assert trial.rates[0] == FIRST_RATES[solver.type]
    assert steadily(trial.losses[trial.rates.index(trial.chosen)], trial.start)
    assert {len(losses) for losses in (trial.start, *trial.losses)} == {STEPS}
    # All rates, none included, begin with the same weights and mini-batch.
    assert {losses[0] for losses in trial.losses} == {trial.start[0]}
    assert trial.losses[0][-1] != trial.start[-1]


def test_a_training_takes_the_rate_of_its_trial(whole):
    trial = whole.run.rate_trial()
    check_trial(trial, SOLVER)
    assert sum(f"learning rate {trial.chosen:g} chosen by a trial" in line
               for line in whole.ears.said) == 1
    rates = [row["learning_rate"] for row in whole.run.log_rows() if "loss" in row]
    policy = policy_from_config(replace(SOLVER, base_lr=trial.chosen), 4)
    assert rates == pytest.approx([float(policy(step)) for step in range(4)])
    # Narrow as it is, auto stands for float32.
    assert whole.run.config() == whole.config.with_precision(Precision.FLOAT32)
    assert check_folder(whole.run.path).whole


def test_adamw_and_several_mini_batches_have_a_trial_too(tiny_study, tiny_config):
    solver = SolverConfig(base_lr="auto", type="adamw", lr_policy="cosine", warmup_steps=2,
                          iter_size=2, clip_gradients=1.0)
    training = replace(tiny_config.training, solver=solver)
    sampling = tiny_config.sampling
    batches = list(training_batches(
        tiny_study, SliceSchedule(tiny_study, tiny_study.split.train, sampling, 0), sampling,
        batch_slices=2).take(2 * STEPS))
    model = PixelNet(tiny_config.model, 3, 4, seed=0)
    before = model.get_weights()
    trial = find_rate(model, training, sampling, model.weighted, {},
                      [batches[at:at + 2] for at in range(0, len(batches), 2)], Listening())
    check_trial(trial, solver)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_trial_changes_nothing_but_the_rate(whole, trained):
    number = trained("number", replace(SOLVER, base_lr=whole.run.rate_trial().chosen))
    for mine, theirs in zip(number.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert number.run.rate_trial() is None


def test_a_resume_looks_for_no_rate(whole, trained, monkeypatch):
    def stop(task, done):
        if task == "training" and done == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained("killed", SOLVER, stop)
    monkeypatch.setattr(loop, "find_rate", None)
    # Before its first checkpoint, and at its end.
    for _ in range(2):
        again = trained("killed", SOLVER, resume=True)
        for mine, theirs in zip(again.weights, whole.weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    path = Path(again.run.file("learning_rate.json"))
    path.unlink()
    with pytest.raises(RunError, match=r"learning_rate.json: is missing.*train anew"):
        trained("killed", SOLVER, resume=True)
    path.write_text("{}")
    with pytest.raises(DataError, match=r"learning_rate.json: is not the file that was written"):
        again.run.rate_trial()


@pytest.mark.parametrize(("tree", "words"), [
    ({}, "rule is missing"),
    ({"rule": "", "solver": "SGD", "chosen": 1, "start": [], "rates": [2], "losses": [[]]},
     "do not fit together")])
def test_a_file_that_is_no_trial(tree, words):
    with pytest.raises(DataError, match=words):
        RateTrial.from_json(tree)


def test_a_trial_that_finds_nothing_says_so_and_leaves_no_run(make_trainer, monkeypatch):
    monkeypatch.setattr("pixelnet_tf.training.rate_trial.MOST", 1)
    monkeypatch.setitem(FIRST_RATES, "SGD", 1e6)
    trainer = make_trainer(solver=SOLVER, validates=False, **FIELDS)
    with pytest.raises(RunError, match=r"falls steadily at no learning rate from 500000 to 1e\+06"):
        trainer.run()
    assert not trainer.run_folder.exists()


def test_a_state_of_caffes_goes_on_at_its_own_rate(shared_caffe):
    states = sorted(shared_caffe.rglob("*.solverstate"))
    assert states
    with pytest.raises(ConfigError, match=r"base_lr is auto.*has its momentum from the rate"):
        check_source(str(states[0]), solver=SOLVER)


def test_no_solver_is_made_without_a_rate():
    with pytest.raises(ConfigError, match="base_lr is auto: no trial"):
        policy_from_config(SOLVER, 1)
