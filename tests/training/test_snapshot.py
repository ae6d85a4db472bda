"""Trainings that go on from Caffe's snapshots, and steps of several mini-batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.config import SolverConfig
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.state import TrainingState
from tests.listening import Listening

#: The rate falls after the second of four steps.
SOLVER = SolverConfig(base_lr=0.01, lr_policy="step", gamma=0.5, stepsize=2)


@pytest.fixture(scope="module")
def two_steps(tiny_study, tiny_config, tmp_path_factory) -> RunFolder:
    """A run of two steps; not to be changed."""
    config = replace(tiny_config, training=replace(tiny_config.training, solver=SOLVER, steps=2))
    run = RunFolder(str(tmp_path_factory.mktemp("two_steps") / "run"))
    Trainer(config, tiny_study, replace(tiny_study.split, validation=()), run.path).run()
    return run


def stop(task, done):
    """Interrupts the training after its first step."""
    raise KeyboardInterrupt


def test_a_training_through_a_snapshot_ends_with_the_same_bits(two_steps, make_trainer, tmp_path):
    """Two steps, Caffe's files, a stop after the third step, and the fourth: as four in a row."""
    whole = make_trainer("whole", validates=False, solver=SOLVER).run().get_weights()
    state = TrainingState.of_run(two_steps)
    path, weights = state.save_snapshot(tmp_path / "caffe", "binaryproto")
    assert (path, weights) == state.snapshot_paths(tmp_path / "caffe", "binaryproto")
    assert path.name == "snapshot_iter_2.solverstate"
    fields = {"validates": False, "solver": SOLVER, "initial_weights": str(path),
              "checkpoint_every": 10}
    ears, stopped = Listening(stop), make_trainer("second", **fields)
    stopped.reporter = ears
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert f"weights and solver of {path}, step 2" in ears.said
    # No longer needed: its state is the run's first checkpoint.
    path.unlink()
    second = make_trainer("second", **fields).run(resume=True).get_weights()
    for mine, theirs in zip(second, whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    rows = [row for row in RunFolder(str(tmp_path / "second")).log_rows() if "loss" in row]
    assert [row["step"] for row in rows] == [3, 4]
    assert rows[0]["learning_rate"] == pytest.approx(0.005)


def test_snapshots_that_a_training_cannot_go_on_from(two_steps, make_trainer, tmp_path):
    path, weights = TrainingState.of_run(two_steps).save_snapshot(tmp_path, "binaryproto")
    for fields, message in (
        ({"steps": 2}, "2 steps behind it, the training is to have 2"),
        ({"balance_taps": True}, "set training.balance_taps=false"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_trainer("second", initial_weights=str(path), **fields).check()
    with pytest.raises(ModelError, match=r"set training.solver.type"):
        make_trainer("second", initial_weights=str(path), solver=SolverConfig(type="Adam")).run()
    assert not (tmp_path / "second").exists()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelError, match=r"snapshot_iter_2.solverstate: .*damaged"):
        make_trainer("second", initial_weights=str(path)).check()
    path.write_bytes(whole)
    weights.unlink()
    with pytest.raises(ModelError, match="neither beside it nor under that path"):
        make_trainer("second", initial_weights=str(path)).check()
    with pytest.raises(ModelError, match="holds no state of a training"):
        TrainingState.of_run(RunFolder(str(tmp_path / "nothing")))


def test_a_step_of_two_mini_batches_is_one_of_their_mean(make_trainer, tmp_path):
    """Without dropout and with slices of one size: as one mini-batch of twice the slices, with a
    stop in between or without."""
    def trainer(out, slices, iter_size):
        # Caffe clips the sum over the mini-batches.
        solver = SolverConfig(base_lr=0.05, iter_size=iter_size, clip_gradients=0.2 * iter_size)
        made = make_trainer(out, validates=False, batch_slices=slices, solver=solver)
        made.config = replace(made.config, model=replace(made.config.model, dropout=0.0))
        return made

    one = trainer("one", 4, 1)
    stopped = trainer("split", 2, 2)
    assert stopped.plan == one.plan
    stopped.reporter = Listening(stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert RunFolder(str(tmp_path / "split")).state("last")["step"] == 1
    split = trainer("split", 2, 2).run(resume=True).get_weights()
    for mine, theirs in zip(one.run().get_weights(), split, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)
    losses = [[row["loss"] for row in RunFolder(str(tmp_path / name)).log_rows()]
              for name in ("one", "split")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_export_of_a_state_leaves_the_run_as_it_is(two_steps, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in Path(two_steps.path).rglob("*")}
    TrainingState.of_run(two_steps).save_snapshot(tmp_path, "hdf5")
    assert {path: path.stat().st_mtime_ns for path in Path(two_steps.path).rglob("*")} == before
