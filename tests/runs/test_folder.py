"""The folder of a run, and the networks that are loaded from it."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.checkpoints import Checkpoints
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.keras_file import load_model

CONFIG = load_config("phantom", ["model.widths=[2, 2, 3, 3, 3]", "model.head_widths=[4]",
                                 "model.border=16"])
PRIORS = ClassPriors(CONFIG.study.class_names, (0.7, 0.1, 0.1, 0.1), (0.25,) * 4)


def net(seed: int) -> PixelNet:
    return PixelNet(CONFIG.model, 3, 4, seed=seed)


def equal(one: PixelNet, other: PixelNet) -> bool:
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


@pytest.fixture
def unfinished(tmp_path) -> RunFolder:
    """A run with a state `last` (seed 2) and a `best` one (seed 1), solver and all, but no model.
    """
    run = RunFolder(str(tmp_path / "run"))
    run.start(CONFIG, Split(("a", "b"), ("c",)), PRIORS, "digest", ["conv1_1"])
    model = net(1)
    momentum = [tf.Variable(tf.ones_like(v.value)) for v in model.variables]
    checkpoints = Checkpoints(run.file("checkpoints"),
                              [*(v.value for v in model.variables), *momentum])
    checkpoints.save("best", 10, score=0.5)
    model.set_weights(net(2).get_weights())
    checkpoints.save("last", 12)
    return run


def test_what_a_run_began_with(unfinished):
    assert unfinished.config() == CONFIG
    assert unfinished.split() == Split(("a", "b"), ("c",))
    assert unfinished.priors() == PRIORS
    assert unfinished.new_layers() == {"conv1_1"}
    assert unfinished.basis().slices == "digest"
    assert unfinished.state("best") == {"name": "best-10", "step": 10, "score": 0.5}


def test_a_run_of_an_earlier_version(unfinished):
    tf.io.gfile.remove(unfinished.file("start.json"))
    assert unfinished.new_layers() is None
    assert unfinished.basis().slices == ""


def test_the_states_of_a_training_that_has_not_ended(unfinished):
    with pytest.raises(ModelError, match=r"--resume` finish, .* or take .*run/checkpoints/best, "):
        unfinished.model()
    for kind, seed in (("best", 1), ("last", 2)):
        run = RunFolder(f"{unfinished.path}/checkpoints/{kind}")
        assert run.config() == CONFIG
        network = run.network("corrected")
        assert network.name == run.name == f"{unfinished.path}/checkpoints/{kind}"
        assert equal(network.model, net(seed))
        np.testing.assert_array_equal(network.correction, PRIORS.correction("corrected"))
        with pytest.raises(ConfigError, match="not to a checkpoint; give --prior corrected"):
            run.network("fitted")


def test_a_state_that_is_not_there_or_broken(unfinished, tmp_path):
    (tmp_path / "run/manifest.jsonl").unlink()
    state = json.loads((tmp_path / "run/checkpoints/state.json").read_text())
    del state["best"]
    (tmp_path / "run/checkpoints/state.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match="holds no 'best' state yet"):
        RunFolder(f"{unfinished.path}/checkpoints/best").model()
    for file in (tmp_path / "run/checkpoints").glob("last-12.data*"):
        file.write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"last-12: .*or is broken"):
        RunFolder(f"{unfinished.path}/checkpoints/last/").model()


def test_a_run_that_is_called_like_a_checkpoint(tmp_path):
    run = RunFolder(str(tmp_path / "checkpoints" / "best"))
    assert (run.kind, run.path) == (None, run.name)


def test_weights_of_another_run_are_refused(unfinished, tmp_path):
    unfinished.save_model(net(3))
    assert equal(unfinished.network("sampled").model, net(3))
    unfinished.save_model(PixelNet(replace(CONFIG.model, head_widths=(5,)), 3, 4, seed=0))
    with pytest.raises(ModelError, match=r"has model.head_widths=\[5\] .*\[4\]\); model.keras and"):
        unfinished.network("sampled")
    unfinished.save_model(PixelNet(CONFIG.model, 2, 4, seed=0))
    with pytest.raises(ModelError, match=r"has channels=2 "):
        unfinished.network("sampled")


def test_a_start_clears_states_that_nothing_goes_on_from(unfinished):
    shutil.rmtree(unfinished.file("tensorboard"), ignore_errors=True)
    unfinished.start(CONFIG, Split(("a",)), PRIORS)
    assert unfinished.state("best") is None


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
