"""Caffe's snapshots of a PixelNet: its weights and its solver's momentum."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.export import caffe_network
from pixelnet_tf.caffe.import_pixelnet import import_pixelnet
from pixelnet_tf.caffe.reading import read_network, write_caffemodel, write_solver_state
from pixelnet_tf.caffe.snapshot import check_snapshot, load_snapshot, save_snapshot
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import SolverState, load_solverstate

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["narrow", "lin_bn"])
def net(request) -> str:
    return request.param


@pytest.fixture
def model(net) -> PixelNet:
    return import_pixelnet(GOLDEN / f"{net}_deploy.prototxt",
                           GOLDEN / f"{net}_init.caffemodel")[0]


def another(model) -> PixelNet:
    return PixelNet(model.config, model.channels, model.classes, seed=3)


def random_histories(model, count):
    rng = np.random.default_rng(0)
    return {variable.path: tuple(np.float32(rng.normal(size=variable.shape))
                                 for _ in range(count))
            for variable in model.trainable_variables}


@pytest.mark.parametrize("form", ["binaryproto", "hdf5"])
@pytest.mark.parametrize("count", [1, 2])
def test_written_and_read(form, count, model, tmp_path):
    histories = random_histories(model, count)
    state, weights = save_snapshot(model, histories, 40, 3, tmp_path, form)
    end = {"binaryproto": "", "hdf5": ".h5"}[form]
    assert (state.name, weights.name) == (
        f"snapshot_iter_40.solverstate{end}", f"snapshot_iter_40.caffemodel{end}")
    assert check_snapshot(state) == 40
    target = another(model)
    found = load_snapshot(target, state)
    assert found.step == 40
    assert found.table.new_layers == frozenset()
    for mine, theirs in zip(target.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    for mine, theirs in zip(target.weights, model.weights, strict=True):
        arrays = found.histories[mine.path]
        assert len(arrays) == count
        expected = histories.get(theirs.path, (np.zeros(theirs.shape),) * count)
        for one, other in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_order_of_the_histories(net, model, tmp_path):
    """Caffe's: layer by layer, kernel and bias, BatchNorm's three blobs with zeros."""
    histories = random_histories(model, 2)
    state = load_solverstate(save_snapshot(model, histories, 1, 0, tmp_path, "binaryproto")[0])
    blobs = [(layer.name, blob.shape) for layer in caffe_network(model).layers
             for blob in layer.blobs]
    assert [array.shape for array in state.history] == [shape for _, shape in blobs] * 2
    first = histories[model.parts["conv1_1"].kernel.path]
    np.testing.assert_array_equal(state.history[0], first[0].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(state.history[len(blobs)], first[1].transpose(3, 2, 0, 1))
    zeros = [name for (name, _), array in zip(blobs * 2, state.history, strict=True)
             if not array.any()]
    assert set(zeros) == {name for name, _ in blobs if name.startswith("bn_")}
    assert bool(zeros) == (net == "lin_bn")


def test_what_caffe_wrote(net, model, shared_caffe, tmp_path):
    """Its five steps come out of the model as they went in, to the last bit."""
    state = shared_caffe / f"{net}_iter_5.solverstate"
    found = load_snapshot(model, state)
    assert found.step == 5
    learned = read_network(None, shared_caffe / f"{net}_iter_5.caffemodel")
    for name, layer in model.parts.items():
        if layer.weights:
            source = "bn_conv7" if name == "bn_fc7_conv" else name
            for mine, theirs in zip(get_blobs(layer), learned.layer(source).blobs, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    written, _ = save_snapshot(model, found.histories, 5, 1, tmp_path, "binaryproto")
    mine, theirs = load_solverstate(written), load_solverstate(state)
    assert (mine.iter, mine.current_step) == (theirs.iter, theirs.current_step)
    for one, other in zip(mine.history, theirs.history, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_caffemodel_is_looked_for_beside_the_state(model, tmp_path, monkeypatch):
    histories = random_histories(model, 1)
    state, weights = save_snapshot(model, histories, 2, 0, tmp_path / "here", "binaryproto")
    named = tmp_path / "named" / weights.name
    named.parent.mkdir()
    found = load_solverstate(state)
    write_solver_state(state, dataclasses.replace(found, learned_net=f"named/{weights.name}"))
    assert load_snapshot(another(model), state).step == 2
    shutil.move(weights, named)
    monkeypatch.chdir(tmp_path)
    assert load_snapshot(another(model), state).step == 2
    named.unlink()
    with pytest.raises(ModelError, match=r"named/.* neither beside it nor under that path"):
        check_snapshot(state)


def test_a_network_that_is_not_the_models(model, tmp_path):
    state, weights = save_snapshot(
        model, random_histories(model, 1), 2, 0, tmp_path, "binaryproto")
    other = PixelNet(model.config, model.channels, model.classes + 1)
    with pytest.raises(ModelError, match=r"cls_score_new' is not the model's \(left out"):
        load_snapshot(other, state)
    other = PixelNet(model.config, model.channels + 1, model.classes)
    with pytest.raises(ModelError, match=r"conv1_1' is not the model's \(converted: 3 channels"):
        load_snapshot(other, state)
    network = read_network(None, weights)
    extra = dataclasses.replace(network.layer("cls_score_new"), name="another")
    write_caffemodel(weights, dataclasses.replace(network, layers=(*network.layers, extra)))
    with pytest.raises(ModelError, match=r"another' is not the model's \(left out"):
        load_snapshot(another(model), state)


def test_histories_that_are_not_the_networks(model, tmp_path):
    state, _ = save_snapshot(model, random_histories(model, 1), 2, 0, tmp_path, "binaryproto")
    found = load_solverstate(state)
    write_solver_state(state, SolverState(2, found.learned_net, found.history[:-1]))
    with pytest.raises(ModelError, match=r"histories for the .* weight blobs"):
        load_snapshot(another(model), state)
    write_solver_state(state, SolverState(2, found.learned_net, found.history[::-1]))
    with pytest.raises(ModelError, match=r"history 0 has the shape .* belong together"):
        load_snapshot(another(model), state)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "a\0b"])
def test_a_name_that_is_no_files_is_no_caffemodel(model, tmp_path, name):
    state, _ = save_snapshot(model, random_histories(model, 1), 2, 0, tmp_path, "binaryproto")
    write_solver_state(state, dataclasses.replace(load_solverstate(state), learned_net=name))
    with pytest.raises(ModelError, match="neither beside it nor under that path"):
        load_snapshot(another(model), state)
