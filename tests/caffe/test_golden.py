"""Numbers that Caffe itself wrote: forward, gradients, solver steps, BatchNorm, old files.

`small` cases come from tests/golden; `full` ones need the development data beside the repository.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.caffe.blobs import blob_variables, get_blobs, set_blobs, to_blob
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.layers.losses import SoftmaxWithLoss
from pixelnet_tf.caffe.layers.pooling import Pooling
from pixelnet_tf.caffe.layout import from_caffe, to_caffe
from pixelnet_tf.caffe.parity import compare_with_golden
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.training.solver import CaffePolicy, CaffeSGD
from prototxt_import import load_solverstate

SMALL = Path(__file__).parents[1] / "golden"
INPUTS = ("data", "pixels", "labels")
STEPS = 5
#: In the third step of lin_bn one hypercolumn number of 93,600 lies within 6e-6 of zero before its
#: ReLU: float32 may round it to either side, and one gradient then differs. From there on float32
#: is compared to within that gradient's step; float64 stays on Caffe's side.
UNDECIDED = {"lin_bn": 3}


def canvas(image_rgb_uint8, mean_bgr):
    """Caffe's input: BGR less its mean, in a border of 100 zeros."""
    bgr = image_rgb_uint8[..., ::-1].astype(np.float32) - mean_bgr
    return np.pad(bgr.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (100, 100), (100, 100)))


def golden(folder: Path, net: str, part: str) -> dict[str, np.ndarray]:
    """Arrays of one part: `train`, `sgd` or `deploy_even`."""
    if folder != SMALL:
        with np.load(folder / f"{net}_{part}.npz") as file:
            return dict(file)
    with np.load(folder / f"{net}.npz") as file:
        prefix = part.removeprefix("deploy_") + "/"
        found = {k.removeprefix(prefix): file[k] for k in file if k.startswith(prefix)}
        if part != "sgd":
            found["data"] = canvas(found.pop("image_rgb_uint8"), file["mean_bgr"])
    return found


@pytest.fixture(params=["small", "full"])
def folder(request) -> Path:
    return SMALL if request.param == "small" else request.getfixturevalue("shared_caffe")


@pytest.fixture(params=["narrow", "lin_bn"])
def net(request) -> str:
    return request.param


def train_model(folder, net, blobs="outputs", dtype="float32"):
    network = read_network(folder / f"{net}_train.prototxt", folder / f"{net}_init.caffemodel")
    return build_model(network, "TRAIN", blobs=blobs, dtype=dtype)


def keras_inputs(arrays, dtype="float32"):
    return {name: tf.constant(from_caffe(arrays[name]), dtype) for name in INPUTS}


def batch_norms(model):
    return [layer for layer in model.layers if layer.name.startswith("bn_")]


def assert_close(found, expected, relative):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def test_even_image(folder, net, tmp_path):
    arrays = golden(folder, net, "deploy_even")
    if folder == SMALL:  # holds the first 40 rows of fc5 only
        arrays.pop("blob/fc5")
    np.savez(tmp_path / "golden.npz", **arrays)
    report = compare_with_golden(
        folder / f"{net}_deploy.prototxt", folder / f"{net}_init.caffemodel",
        tmp_path / "golden.npz",
    )
    assert report.absent == ()
    assert {row.name for row in report.rows} >= {"fc8_new", "f_score", "fc7_conv", "pool5"}
    assert report.worst <= 2e-5
    assert report.passed


def test_hypercolumns_of_the_even_image(net):
    network = read_network(SMALL / f"{net}_deploy.prototxt", SMALL / f"{net}_init.caffemodel")
    arrays = golden(SMALL, net, "deploy_even")
    arrays["pixels"] = arrays["pixels"][:40]
    found = build_model(network, blobs=["fc5"]).run_caffe(arrays)
    assert_close(found["fc5"], arrays["blob/fc5"], 2e-5)


def test_every_blob_of_the_deploy_network(net, shared_caffe):
    report = compare_with_golden(
        shared_caffe / f"{net}_deploy.prototxt", shared_caffe / f"{net}_init.caffemodel",
        shared_caffe / f"{net}_deploy.npz",
    )
    assert report.worst <= 2e-5
    assert len(report.rows) == {"narrow": 5, "lin_bn": 33}[net]


def test_training_forward_and_gradients(folder, net):
    arrays = golden(folder, net, "train")
    model = train_model(folder, net, blobs="all")
    with tf.GradientTape() as tape:
        blobs = model(keras_inputs(arrays), training=True)
        loss = model.total_loss(blobs)
    assert float(loss) == pytest.approx(float(arrays["loss"]), rel=1e-6)
    compared = 0
    for name, blob in blobs.items():
        if f"blob/{name}" in arrays:
            assert_close(to_caffe(blob.numpy()), arrays[f"blob/{name}"], 2e-5)
            compared += 1
    assert compared >= 4
    for layer in batch_norms(model):
        for i, blob in enumerate(get_blobs(layer)):
            key = f"bn_stats_after_train_forward/{layer.name}/{i}"
            assert_close(blob, arrays[key], 2e-5)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    # The blobs of a layer, whose variables now hold their own gradients.
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign(gradient)
    for name, blobs_ in model.caffe_weights().items():
        if name.startswith("bn_"):
            continue
        expected = {i: arrays[f"grad/{name}/{i}"] for i in (0, 1) if f"grad/{name}/{i}" in arrays}
        largest = max(np.abs(each).max() for each in expected.values())
        for i, each in expected.items():
            assert np.abs(blobs_[i] - each).max() <= 2e-4 * largest, (name, i)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_solver_steps(folder, net, dtype):
    arrays, expected = golden(folder, net, "train"), golden(folder, net, "sgd")
    inputs = keras_inputs(arrays, dtype)
    model = train_model(folder, net, dtype=dtype)
    # narrow_solver.prototxt and lin_bn_solver.prototxt
    schedule = CaffePolicy(0.001, "step", gamma=0.1, stepsize=3)
    solver = CaffeSGD(schedule, 0.9, 0.0005, multipliers=model.multipliers)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = model.total_loss(model(inputs, training=True))
        variables = model.trainable_variables
        solver.apply(tape.gradient(loss, variables), variables)
        return loss

    compared = set()
    for number in range(1, STEPS + 1):
        decided = dtype == "float64" or number < UNDECIDED.get(net, STEPS + 1)
        loss = float(step())
        assert loss == pytest.approx(expected["loss"][number - 1], rel=2e-6 if decided else 1e-4)
        for name, blobs in model.caffe_weights().items():
            for i, blob in enumerate(blobs):
                key = f"step{number}/{name}/{i}"
                if key not in expected:
                    continue
                compared.add(number)
                if name.startswith("bn_"):
                    assert_close(blob, expected[key], 2e-5 if decided else 1e-4)
                else:
                    tolerance = 1e-6 if decided else 2e-5
                    np.testing.assert_allclose(blob, expected[key], rtol=0, atol=tolerance)
    assert compared >= {1, STEPS}
    if folder != SMALL:  # the momentum that Caffe saved after its five steps
        state = load_solverstate(folder / f"{net}_iter_5.solverstate")
        histories, place = solver.histories(), 0
        described = read_network(folder / f"{net}_train.prototxt", phase="TRAIN").layers
        names = {layer.name for layer in model.layers}
        for layer in (model.get_layer(one.name) for one in described if one.name in names):
            for variable in blob_variables(layer):
                theirs, place = state.history[place], place + 1
                if not variable.trainable:
                    assert not theirs.any()
                    continue
                mine = to_blob(layer, histories[variable.path][0])
                decided = dtype == "float64" or net not in UNDECIDED
                assert_close(mine, theirs, 2e-4 if decided else 5e-3)
        assert place == len(state.history)
        assert solver.iterations.numpy() == state.iter


def test_moving_sums_of_batch_norm(shared_caffe):
    arrays = golden(shared_caffe, "lin_bn", "train")
    model = train_model(shared_caffe, "lin_bn", blobs="all")
    for layer in batch_norms(model):
        set_blobs(layer, [np.zeros_like(blob) for blob in get_blobs(layer)])
    for number in (1, 2, 3):
        data = arrays[f"bn_stats_batch{number}/data"]
        model.run_caffe({**arrays, "data": data}, training=True)
        for layer in batch_norms(model):
            for i, blob in enumerate(get_blobs(layer)):
                key = f"bn_stats_after_forward{number}/{layer.name}/{i}"
                assert_close(blob, arrays[key], 2e-5)


def misc_cases(prefix: str) -> list[str]:
    with np.load(SMALL / "misc.npz") as file:
        return sorted({key.split("/")[0] for key in file if key.startswith(prefix)})


def check_pooling(file, name):
    kernel, stride, pad = (int(part[1:]) for part in name.split("_")[1:4])
    layer = Pooling("MAX", (kernel,) * 2, (stride,) * 2, (pad,) * 2)
    data = tf.Variable(from_caffe(file[f"{name}/data"]))
    with tf.GradientTape() as tape:
        top = layer(data)
    np.testing.assert_array_equal(to_caffe(top.numpy()), file[f"{name}/top"])
    gradient = tape.gradient(top, data, from_caffe(file[f"{name}/top_diff"]))
    np.testing.assert_allclose(
        to_caffe(gradient.numpy()), file[f"{name}/bottom_diff"], rtol=0, atol=1e-6
    )


def check_loss(file, name):
    mode, kind = name.removeprefix("loss_").rsplit("_", 1)
    layer = SoftmaxWithLoss(
        "loss", normalization="VALID" if mode == "default" else mode,
        ignore_label=255 if kind == "ignore" else None,
    )
    logits = tf.Variable(file[f"{name}/logits"])
    with tf.GradientTape() as tape:
        loss = layer([logits, file[f"{name}/labels"]])
    np.testing.assert_allclose(loss, file[f"{name}/loss"], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), file[f"{name}/grad"], atol=1e-6)


@pytest.mark.parametrize("name", misc_cases("pool_"))
def test_pooling(name):
    with np.load(SMALL / "misc.npz") as file:
        check_pooling(file, name)


@pytest.mark.parametrize("name", misc_cases("loss_"))
def test_loss(name):
    with np.load(SMALL / "misc.npz") as file:
        check_loss(file, name)


def test_all_pooling_and_loss_cases(shared_caffe):
    cases = json.loads((shared_caffe / "misc.json").read_text())
    with np.load(shared_caffe / "misc.npz") as file:
        for case in cases:
            name = case["name"]
            if case.get("note") == "empty window: -FLT_MAX":
                height, width = map(int, name.split("_")[-1].split("x"))
                top = Pooling("MAX", (2, 2), (3, 3))(tf.zeros((2, height, width, 3)))
                top = to_caffe(top.numpy())
                assert top.shape == tuple(case["out"])
                assert set(np.unique(top)) == {0, np.finfo(np.float32).min}
            elif "aborts" in case:
                kernel, stride, pad = (int(part[1:]) for part in name.split("_")[1:4])
                layer = Pooling("MAX", (kernel,) * 2, (stride,) * 2, (pad,) * 2)
                height, width = map(int, name.split("_")[-1].split("x"))
                with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
                    layer(tf.zeros((1, height, width, 1)))
            elif name.startswith("pool_"):
                check_pooling(file, name)
            else:
                check_loss(file, name)


@pytest.mark.parametrize("weights", ["legacy_v1", "legacy_resaved_v2"])
def test_old_classification_network(weights, shared_caffe):
    with np.load(shared_caffe / "legacy.npz") as file:
        arrays = dict(file)
    network = read_network(
        shared_caffe / "legacy_ip.prototxt", shared_caffe / f"{weights}.caffemodel"
    )
    model = build_model(network, blobs="all")
    for name, blobs in model.caffe_weights().items():
        for i, blob in enumerate(blobs):
            np.testing.assert_array_equal(blob, arrays[f"param/{name}/{i}"])
    found = model.run_caffe(arrays)
    for key in ("pool5", "fc6", "fc7", "fc8", "prob"):
        assert_close(found[key], arrays[f"blob/{key}"], 2e-5)


def test_old_network_made_convolutional(shared_caffe):
    with np.load(shared_caffe / "legacy.npz") as file:
        arrays = dict(file)
    network = read_network(
        shared_caffe / "legacy_conv.prototxt", shared_caffe / "legacy_conv.caffemodel"
    )
    model = build_model(network, blobs="all")
    found = model.run_caffe(arrays)
    for name in ("fc6_conv", "fc7_conv"):
        np.testing.assert_array_equal(
            model.caffe_weights()[name][0], arrays[f"conv_kernel/{name}"]
        )
        assert_close(found[name], arrays[f"blob/{name}"], 2e-5)
    # An fc6 matrix reads as a 7x7 kernel in the order C, H, W.
    matrix = arrays["param/fc6/0"]
    np.testing.assert_array_equal(matrix.reshape(64, 32, 7, 7), arrays["conv_kernel/fc6_conv"])
