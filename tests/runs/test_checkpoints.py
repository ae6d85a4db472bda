"""States of a run: whole or not at all, the last and the best."""

import json

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.errors import RunError
from pixelnet_tf.runs.checkpoints import Checkpoints


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
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"last-12", "state"}


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
