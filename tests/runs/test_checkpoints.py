"""States of a run: whole or not at all, the last and the best."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.errors import DataError, ModelError, RunError
from pixelnet_tf.runs import checkpoints as checkpoints_module
from pixelnet_tf.runs.checkpoints import Checkpoints, load_state, remove_states
from tests.listening import Listening


@pytest.fixture
def variables():
    return [tf.Variable([1.0, 2.0]), tf.Variable(5, dtype=tf.int64)]


def test_last_and_best_come_back_by_themselves(tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    assert checkpoints.restore("last") is None
    checkpoints.save("last", 10)
    checkpoints.save("best", 10, score=0.5)
    variables[0].assign([3.0, 4.0])
    checkpoints.save("last", 20)
    variables[0].assign([0.0, 0.0])
    again = Checkpoints(str(tmp_path), variables)
    assert again.restore("best") == {"name": "best-10", "step": 10, "score": 0.5}
    assert variables[0].numpy().tolist() == [1.0, 2.0]
    assert again.restore("last")["step"] == 20
    assert variables[0].numpy().tolist() == [3.0, 4.0]


def test_what_is_replaced_goes(tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    for step in (1, 2, 12):
        checkpoints.save("last", step)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"last-2", "last-12",
                                                                        "state"}


def test_a_death_while_saving_leaves_the_state_before(tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    checkpoints.save("last", 1)
    # The data of a later step are there, state.json does not name them yet.
    (tmp_path / "last-2.data-00000-of-00001").write_bytes(b"half")
    variables[0].assign([9.0, 9.0])
    again = Checkpoints(str(tmp_path), variables)
    assert again.restore("last")["step"] == 1
    np.testing.assert_array_equal(variables[0], [1.0, 2.0])
    again.save("last", 2)
    assert Checkpoints(str(tmp_path), variables).restore("last")["step"] == 2


def test_a_broken_state(tmp_path, variables):
    Checkpoints(str(tmp_path), variables).save("last", 1)
    data, = tmp_path.glob("last-1.data*")
    data.write_bytes(data.read_bytes()[:3])
    with pytest.raises(RunError, match=r"last-1: .*does not fit this configuration or is broken"):
        Checkpoints(str(tmp_path), variables).restore("last")


def test_another_model(tmp_path, variables):
    Checkpoints(str(tmp_path), variables).save("last", 1)
    for others in ([tf.Variable(np.ones(3, np.float32)), variables[1]],
                   [*variables, tf.Variable(0.0)]):
        with pytest.raises(RunError, match="does not fit"):
            Checkpoints(str(tmp_path), others).restore("last")


def test_state_is_json_that_names_the_files(tmp_path, variables):
    Checkpoints(str(tmp_path), variables).save("best", 7, score=0.25)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state == {"best": {"name": "best-7", "step": 7, "score": 0.25}}
    assert (tmp_path / "best-7.index").is_file()


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-3] + b"\x00\x00\x00"),
    lambda path: path.unlink()], ids=["empty", "flipped", "gone"])
@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_where_the_newest_is_broken_the_one_before_is_taken_and_that_is_said(
        part, damage, tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    for step in (1, 2, 3):
        variables[0].assign([float(step), 0.0])
        checkpoints.save("last", step, unvalidated=True)
    damage(tmp_path / f"last-3.{part}")
    ears = Listening()
    again = Checkpoints(str(tmp_path), variables, ears)
    assert again.restore("last") == {"name": "last-2", "step": 2, "unvalidated": True}
    assert variables[0].numpy().tolist() == [2.0, 0.0]
    line, = ears.said
    assert "last-3: the checkpoint does not fit" in line
    assert line.endswith("the one before is taken, of step 2")
    # It is gone on from there, over the broken one's name.
    variables[0].assign([3.0, 0.0])
    again.save("last", 3)
    assert Checkpoints(str(tmp_path), variables, ears).restore("last")["step"] == 3
    assert len(ears.said) == 1


class Model:
    """A model that has one variable; a state holds those of the solver behind it."""

    def __init__(self):
        self.variables = [keras.Variable([0.0, 0.0])]


def test_the_weights_of_a_state_are_those_of_the_one_before_where_it_is_broken(tmp_path, variables):
    """Of a network that is taken from RUN/checkpoints, without its solver."""
    checkpoints, ears, model = Checkpoints(str(tmp_path), variables), Listening(), Model()
    checkpoints.save("best", 1, score=0.5)
    variables[0].assign([3.0, 4.0])
    checkpoints.save("best", 2, score=0.6)
    load_state(str(tmp_path), "best", model, ears)
    assert (model.variables[0].numpy().tolist(), ears.said) == ([3.0, 4.0], [])
    for step in (2, 1):
        data, = tmp_path.glob(f"best-{step}.data*")
        data.write_bytes(data.read_bytes()[:3])
        if step == 2:
            load_state(str(tmp_path), "best", model, ears)
            assert model.variables[0].numpy().tolist() == [1.0, 2.0]
            said, = ears.said
            assert "best-2" in said
            assert "the one before is taken, of step 1" in said
    with pytest.raises(ModelError, match="does not fit this configuration or is broken"):
        load_state(str(tmp_path), "best", model, ears)
    with pytest.raises(ModelError, match="holds no 'last' state yet"):
        load_state(str(tmp_path), "last", model)


def test_what_is_said_of_a_state_changes_without_writing_it_over_itself(tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    checkpoints.save("last", 1)
    checkpoints.save("last", 2, unvalidated=True)
    before = (tmp_path / "last-2.index").stat().st_ino
    checkpoints.save("last", 2)
    assert checkpoints.state["last"] == {"name": "last-2", "step": 2,
                                         "before": {"name": "last-1", "step": 1}}
    assert (tmp_path / "last-2.index").stat().st_ino == before
    assert (tmp_path / "last-1.index").is_file()


@pytest.mark.parametrize(("kind", "key", "value"), [
    ("last", "name", 3), ("last", "step", "x"), ("last", "unvalidated", "x"),
    ("best", "step", None),
    ("best", "score", {"a": 1}), ("best", "score", None)])
def test_a_detail_of_another_type_is_said(kind, key, value, tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    checkpoints.save("last", 1, unvalidated=True)
    checkpoints.save("best", 1, score=0.5)
    state = json.loads((tmp_path / "state.json").read_text())
    assert Checkpoints(str(tmp_path), variables).state == state
    state[kind][key] = value
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=f"{kind}.{key} must be"):
        Checkpoints(str(tmp_path), variables)


def test_what_a_killed_training_left_goes(tmp_path, variables):
    checkpoints = Checkpoints(str(tmp_path), variables)
    for step in (1, 2):
        checkpoints.save("last", step)
    checkpoints.save("best", 2, score=0.5)
    whole = {path.name for path in tmp_path.iterdir()}
    # As TensorFlow leaves it while it writes.
    (tmp_path / "last-3_temp").mkdir()
    (tmp_path / "last-3_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "last-3.data-00000-of-00001").write_bytes(b"half")
    Checkpoints(str(tmp_path), variables).remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == whole
    (tmp_path / "last-3_temp").mkdir()
    remove_states(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_order_in_which_a_state_gets_to_the_disk(tmp_path, variables, monkeypatch):
    """The state, its names, then state.json; the one before the last goes when that is there."""
    events = []

    def record(module, name, what):
        real = getattr(module, name)

        def recorded(path, *more):
            events.append((what, os.path.basename(os.fspath(path))))
            return real(path, *more)

        monkeypatch.setattr(module, name, recorded)

    checkpoints = Checkpoints(str(tmp_path), variables)
    for step in (1, 2):
        checkpoints.save("last", step)
    record(checkpoints_module, "sync", "sync")
    record(checkpoints_module, "write_json", "write")
    record(checkpoints_module, "remove", "remove")
    checkpoints.save("last", 3)
    assert events == [("sync", "last-3.data-00000-of-00001"), ("sync", "last-3.index"),
                      ("sync", tmp_path.name), ("write", "state.json"),
                      ("remove", "last-1.data-00000-of-00001")]
