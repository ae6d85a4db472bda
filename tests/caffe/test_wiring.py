"""How the layers of a network hang together: names, shared blobs, phases, what is read in place."""

import dataclasses

import caffe_numpy
import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import HEAD, layer

from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.layout import from_caffe
from pixelnet_tf.caffe.reading import read_network, write_caffemodel, write_prototxt
from pixelnet_tf.errors import ModelError
from prototxt_import import load_network


def keras_gradients(model, arrays):
    """Total loss, and layer name -> gradients of its blobs in Caffe's order."""
    inputs = {name: tf.constant(from_caffe(arrays[name]), model.input[name].dtype)
              for name in model.input}
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.total_loss(model(inputs, training=True))
    held = {id(v): v.numpy() for v in variables}
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign(tf.zeros_like(variable) if gradient is None else gradient)
    found = model.caffe_weights()
    for variable in variables:
        variable.assign(held[id(variable)])
    return float(loss), found


def check(network, model, weights, arrays, shared=(), per_blob=6):
    """Forward within 2e-5 of each blob's largest, gradients within 2e-4 of each layer's.

    `shared`: tuples of (layers, number of the blob) that are one blob.
    """
    expected = caffe_numpy.run(network, weights, arrays, training=True)
    for blob, values in model.run_caffe(arrays, training=True).items():
        largest = np.abs(expected[blob]).max()
        np.testing.assert_allclose(values, expected[blob], rtol=0, atol=2e-5 * largest,
                                   err_msg=blob)
    loss, found = keras_gradients(model, arrays)
    assert loss == pytest.approx(caffe_numpy.total_loss(network, weights, arrays, True), rel=2e-5)
    tied = {(name, number): layers for layers, number in shared for name in layers}
    rng = np.random.default_rng(5)
    for name, blobs in found.items():
        picks = []
        for number, blob in enumerate(blobs):
            layers = tied.get((name, number), (name,))
            picks += [(layers, number, tuple(rng.integers(0, blob.shape)))
                      for _ in range(per_blob)]
        expected = caffe_numpy.gradients(network, weights, arrays, picks)
        largest = max(np.abs(blob).max() for blob in blobs)
        for (_, number, index), value in zip(picks, expected, strict=True):
            assert abs(blobs[number][index] - value) <= 2e-4 * largest, (name, number, index)


def normal(network, seed=3):
    rng = np.random.default_rng(seed)
    return {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.inputs}


CONVOLUTION = "convolution_param {{ num_output: {} {} }}"


def hed() -> str:
    """HED's shape of network: five side outputs, each cropped by a layer called `crop`, fused."""
    text = ('name: "hed"\nlayer { name: "in" type: "Input" top: "data" top: "label" input_param '
            "{ shape { dim: 1 dim: 3 dim: 9 dim: 12 } shape { dim: 1 dim: 1 dim: 9 dim: 12 } } }"
            "\n")
    bottom, sides = "data", []
    for stage in range(1, 6):
        pad = 7 if stage == 1 else 1
        name = f"conv{stage}_1"
        text += layer("Convolution", CONVOLUTION.format(3, f"kernel_size: 3 pad: {pad}"),
                      (bottom,), (name,), name)
        text += layer("ReLU", "", (name,), (name,), f"relu{stage}_1")
        side, up = f"score-dsn{stage}", f"score-dsn{stage}-up"
        text += layer("Convolution", CONVOLUTION.format(1, "kernel_size: 1"),
                      (name,), (side,), side)
        if stage > 1:
            size = 2 ** stage
            text += layer("Deconvolution", CONVOLUTION.format(
                1, f"kernel_size: {size} stride: {size // 2}"), (side,), (up,), f"upsample_{size}")
        text += layer("Crop", "", (up if stage > 1 else side, "data"), (f"upscore-dsn{stage}",),
                      "crop")
        sides.append(f"upscore-dsn{stage}")
        text += layer("SigmoidCrossEntropyLoss", f"loss_weight: {stage}",
                      (sides[-1], "label"), (f"dsn{stage}_loss",), "loss")
        bottom = f"pool{stage}"
        text += layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", (name,), (bottom,),
                      bottom)
    text += layer("Concat", "", sides, ("concat-upscore",), "concat")
    text += layer("Convolution", CONVOLUTION.format(1, "kernel_size: 1"), ("concat-upscore",),
                  ("upscore-fuse",), "upscore-fuse")
    text += layer("SigmoidCrossEntropyLoss", "", ("upscore-fuse", "label"), ("fuse_loss",), "loss")
    text += layer("Sigmoid", "", ("upscore-fuse",), ("sigmoid-fuse",), "sigmoid")
    return text + layer("Silence", "", ("pool5",), (), "quiet")


def test_layers_of_one_name_as_in_hed(network_of, randomise, tmp_path):
    network = network_of(hed())
    model = build_model(network, "TRAIN", blobs="all")
    weights = randomise(model)
    arrays = normal(network)
    arrays["label"] = (arrays["label"] > 1).astype(np.float32)
    check(network, model, weights, arrays, per_blob=2)
    assert {one.name for one in model.layers} >= {"crop", "crop_2", "crop_5", "loss", "loss_6"}
    # The binary alone, whose layers cannot be renamed, and with the prototxt.
    layers = tuple(dataclasses.replace(one, blobs=weights.get(one.name, ()))
                   for one in network.layers)
    write_caffemodel(tmp_path / "hed.caffemodel", dataclasses.replace(network, layers=layers))
    write_prototxt(tmp_path / "hed.prototxt", network)
    expected = caffe_numpy.run(network, weights, arrays)["sigmoid-fuse"]
    for prototxt in (None, tmp_path / "hed.prototxt"):
        read = read_network(prototxt, tmp_path / "hed.caffemodel", phase="TEST")
        assert read.without_weights == ()
        found = build_model(read).run_caffe(arrays)["sigmoid-fuse"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_two_losses_of_one_name_as_in_an_autoencoder(network_of, randomise):
    """caffe/examples/mnist/mnist_autoencoder.prototxt: the second loss has the weight 0."""
    code = "inner_product_param {{ num_output: {} }}"
    text = (HEAD + layer("Flatten", "", ("data",), ("flatdata",), "flatdata")
            + layer("InnerProduct", code.format(5), ("flatdata",), ("encode1",), "encode1")
            + layer("Sigmoid", "", ("encode1",), ("encode1neuron",), "encode1neuron")
            + layer("InnerProduct", code.format(252), ("encode1neuron",), ("decode1",), "decode1")
            + layer("SigmoidCrossEntropyLoss", "loss_weight: 1", ("decode1", "flatdata"),
                    ("cross_entropy_loss",), "loss")
            + layer("Sigmoid", "", ("decode1",), ("decode1neuron",), "decode1neuron")
            + layer("EuclideanLoss", "loss_weight: 0", ("decode1neuron", "flatdata"),
                    ("l2_error",), "loss"))
    network = network_of(text)
    model = build_model(network, "TRAIN")
    assert list(model.output) == ["cross_entropy_loss", "l2_error"]
    check(network, model, randomise(model), normal(network))


def test_layers_whose_names_are_one_in_keras(network_of):
    one = CONVOLUTION.format(2, "kernel_size: 1")
    text = HEAD + "".join(
        layer("Convolution", one, ("data",), (f"top{number}",), name)
        for number, name in enumerate(("a/b", "a_b", "a_b_2", "a b", "_c", "ü:1"))
    )
    network = network_of(text)
    blobs = {name: (np.full((2, 4, 1, 1), number, np.float32), np.zeros(2, np.float32))
             for number, name in enumerate(one.name for one in network.layers[1:])}
    layers = tuple(dataclasses.replace(one, blobs=blobs.get(one.name, ()))
                   for one in network.layers)
    model = build_model(dataclasses.replace(network, layers=layers))
    found = model.run_caffe({"data": np.ones((1, 4, 1, 1))})
    assert [float(found[f"top{number}"][0, 0, 0, 0]) for number in range(6)] == [
        0, 4, 8, 12, 16, 20]
    assert {one.name for one in model.layers} >= {"a_b", "a_b_3", "a_b_2"}


def test_layers_with_weights_keep_names_of_their_own(network_of, tmp_path, randomise):
    one = CONVOLUTION.format(4, "kernel_size: 1")
    text = HEAD + layer("Convolution", one, tops=("top",), name="x") + layer(
        "ReLU", bottoms=("top",), tops=("top",), name="x")
    network = network_of(text)
    model = build_model(network)
    weights = randomise(model)
    assert set(weights) == {"x"}
    blobs = (dataclasses.replace(network.layers[1], blobs=weights["x"]), network.layers[2])
    full = dataclasses.replace(network, layers=(network.layers[0], *blobs))
    for name in ("net.caffemodel", "net.caffemodel.h5"):
        write_caffemodel(tmp_path / name, full)
        read = read_network(tmp_path / "net.prototxt", tmp_path / name)
        np.testing.assert_array_equal(read.layers[1].blobs[0], weights["x"][0])
        assert read.layers[2].blobs == ()
    with pytest.raises(ModelError, match=r"two layers with weights are called 'x' .*line 2"):
        network_of(text + layer("Convolution", one, tops=("b",), name="x"))


def test_names_with_a_slash_in_hdf5(network_of, tmp_path, randomise):
    one = CONVOLUTION.format(2, "kernel_size: 1")
    text = HEAD + "".join(layer("Convolution", one, tops=(name,), name=name)
                          for name in ("in/1x1", "in", "in/1x1/deep"))
    network = network_of(text)
    rng = np.random.default_rng(0)
    layers = tuple(
        one if one.type == "Input" else dataclasses.replace(one, blobs=(
            rng.normal(size=(2, 4, 1, 1)).astype("f4"), np.zeros(2, "f4")))
        for one in network.layers
    )
    path = tmp_path / "net.caffemodel.h5"
    write_caffemodel(path, dataclasses.replace(network, layers=layers))
    read = load_network(tmp_path / "net.prototxt", path)
    assert read.unmatched == ()
    for before, after in zip(layers[1:], read.layers[1:], strict=True):
        np.testing.assert_array_equal(before.blobs[0], after.blobs[0])


def shared_convolutions(second: str, specs=('param { name: "w" } param { name: "b" }',) * 2):
    first = "kernel_size: 3 pad: 1"
    return (
        HEAD + layer("Convolution", CONVOLUTION.format(3, first) + specs[0], tops=("a",),
                     name="one")
        + layer("Convolution", CONVOLUTION.format(3, second) + specs[1], tops=("b",), name="two")
        + layer("Reduction", "reduction_param { operation: SUMSQ } loss_weight: 0.5", ("a",),
                ("la",), "la")
        + layer("Reduction", "reduction_param { operation: SUMSQ } loss_weight: 0.25", ("b",),
                ("lb",), "lb")
    )


@pytest.mark.parametrize("second", ["kernel_size: 3 dilation: 2 pad: 2", "kernel_size: 3 stride: 2",
                                    "kernel_size: 3 pad_h: 2 pad_w: 0 dilation: 3 stride: 2"])
def test_layers_share_blobs_not_settings(second, network_of, randomise, tmp_path):
    network = network_of(shared_convolutions(second))
    model = build_model(network, "TRAIN", blobs="all")
    weights = randomise(model)
    assert len(model.trainable_variables) == 2
    check(network, model, weights, normal(network),
          shared=[(("one", "two"), 0), (("one", "two"), 1)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == 2
    for name, values in model.run_caffe(normal(network)).items():
        np.testing.assert_array_equal(again.run_caffe(normal(network))[name], values)


def test_one_of_two_blobs_is_shared(network_of, randomise):
    specs = ('param { name: "w" } param { name: "b1" }', 'param { name: "w" } param { }')
    network = network_of(shared_convolutions("kernel_size: 3 dilation: 2", specs))
    model = build_model(network, "TRAIN", blobs="all")
    weights = randomise(model)
    assert len(model.trainable_variables) == 3
    assert not np.array_equal(weights["one"][1], weights["two"][1])
    check(network, model, weights, normal(network), shared=[(("one", "two"), 0)])


def test_shared_blobs_of_every_kind_of_layer(network_of, randomise):
    """A tied autoencoder (the same blob, read transposed), BatchNorm's statistics, Scale."""
    def name(*names):
        return " ".join(f'param {{ name: "{one}" }}' for one in names)

    text = HEAD + (
        layer("InnerProduct", "inner_product_param { num_output: 5 bias_term: false }" + name("w"),
              ("data",), ("code",), "encode")
        + layer("InnerProduct", "inner_product_param { num_output: 252 bias_term: false transpose: "
                "true }" + name("w"), ("code",), ("decoded",), "decode")
        + layer("BatchNorm", name("m", "v", "f"), ("code",), ("n1",), "bn1")
        + layer("BatchNorm", name("m", "v", "f"), ("n1",), ("n2",), "bn2")
        + layer("Scale", "scale_param { bias_term: true }" + name("g", "t1"), ("n2",), ("s1",),
                "scale1")
        + layer("Scale", "scale_param { bias_term: true }" + name("g", "t2"), ("s1",), ("s2",),
                "scale2")
    )
    network = network_of(text)
    model = build_model(network, blobs="all")
    weights = randomise(model)
    np.testing.assert_array_equal(weights["encode"][0], weights["decode"][0])
    np.testing.assert_array_equal(weights["bn1"][1], weights["bn2"][1])
    assert len(model.trainable_variables) == 4
    arrays = normal(network)
    expected = caffe_numpy.run(network, weights, arrays)
    for blob, values in model.run_caffe(arrays).items():
        np.testing.assert_allclose(values, expected[blob], rtol=0,
                                   atol=2e-5 * np.abs(expected[blob]).max())
    # Both add to the statistics, one after the other.
    before = weights["bn1"][2][0]
    model.run_caffe(arrays, training=True)
    after = get_blobs(model.get_layer("bn1"))[2][0]
    assert after == pytest.approx((before * 0.999 + 1) * 0.999 + 1, rel=1e-6)


def test_a_file_may_hold_a_shared_blob_once(network_of, randomise, tmp_path):
    network = network_of(shared_convolutions("kernel_size: 3 dilation: 2"))
    model = build_model(network)
    weights = randomise(model)
    layers = tuple(dataclasses.replace(one, blobs=weights["one"]) if one.name == "one" else one
                   for one in network.layers if one.name in ("in", "one"))
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, dataclasses.replace(network, layers=layers))
    read = read_network(tmp_path / "net.prototxt", path)
    assert read.without_weights == ()
    found = build_model(read).caffe_weights()
    np.testing.assert_array_equal(found["two"][0], weights["one"][0])


@pytest.mark.parametrize(
    ("specs", "second", "message"),
    [
        (('param { name: "w" lr_mult: 1 }', 'param { name: "w" lr_mult: 2 }'), "kernel_size: 3",
         r"'two' .*shares the blob 'w' with layer 'one'.*lr_mult 2.0 against 1.0"),
        (('param { name: "w" }', 'param { name: "w" share_mode: PERMISSIVE }'), "kernel_size: 1",
         r"shape \(3, 4, 3, 3\) \(Caffe's order\); here it needs \(3, 4, 1, 1\)"),
        (('param { name: "w" }', 'param { } param { name: "w" }'), "kernel_size: 3",
         r"shape \(3, 4, 3, 3\).*needs \(3,\)"),
    ],
)
def test_what_cannot_be_shared(specs, second, message, network_of):
    with pytest.raises(ModelError, match=message):
        build_model(network_of(shared_convolutions(second, specs)))


def test_multipliers_of_shared_blobs_are_those_that_a_layer_states(network_of):
    specs = ('param { name: "w" } param { name: "b" lr_mult: 2 }',
             'param { name: "w" lr_mult: 3 decay_mult: 0 } param { name: "b" }')
    model = build_model(network_of(shared_convolutions("kernel_size: 3", specs)))
    assert model.multipliers == {"one/kernel": (3, 0), "one/bias": (2, 1)}


def test_stages_and_levels_are_applied_once(network_of, tmp_path):
    text = HEAD + (
        layer("ReLU", 'include { stage: "deploy" }', tops=("a",), name="a")
        + layer("ReLU", 'include { not_stage: "deploy" }', tops=("b",), name="b")
        + layer("ReLU", "include { phase: TEST min_level: 2 }", tops=("c",), name="c")
    )
    assert set(build_model(network_of(text)).output) == {"b"}
    for phase in (None, "TEST"):
        network = network_of(text, phase=phase, stages=["deploy"], level=2)
        assert set(build_model(network).output) == {"a", "c"}
    # The file's own state holds, too.
    assert set(build_model(network_of('state { stage: "deploy" }\n' + text)).output) == {"a"}
    with pytest.raises(ModelError, match=r"read for the phase TEST.*cannot be built for TRAIN"):
        build_model(network_of(text, phase="TEST"), "TRAIN")


IN_PLACE = layer("ReLU", tops=("x",), name="maker") + layer(
    "Sigmoid", bottoms=("x",), tops=("y",), name="reader")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (IN_PLACE + layer("ReLU", bottoms=("x",), tops=("x",), name="late"),
         r"'late' \(type ReLU, line 4\) works in place on the blob 'x', which is read before it by "
         "layer 'reader'; Caffe refuses"),
        (layer("ReLU", "loss_weight: 1", tops=("x",), name="maker")
         + layer("ReLU", bottoms=("x",), tops=("x",), name="late"), "the loss weight of layer"),
        (layer("ReLU", tops=("x",), name="maker")
         + layer("Eltwise", bottoms=("x", "x"), tops=("x",), name="twice"), "works in place"),
        (IN_PLACE + layer("TanH", tops=("x",), name="second"),
         r"'second' .*makes the blob 'x', which layer 'maker' .*has made already"),
        (layer("TanH", bottoms=("data", "data"), tops=("y", "data"), name="second"),
         "works in place"),
    ],
)
def test_what_caffe_refuses_to_do_in_place(text, message, network_of):
    with pytest.raises(ModelError, match=message):
        build_model(network_of(HEAD + text))


def test_a_reader_after_a_layer_in_place_is_no_other_reader(network_of):
    text = HEAD + layer("ReLU", tops=("x",), name="maker") + layer(
        "Sigmoid", bottoms=("x",), tops=("x",), name="in_place") + layer(
        "TanH", bottoms=("x",), tops=("y",), name="reader")
    found = build_model(network_of(text), blobs="all").run_caffe({"data": np.zeros((1, 4, 1, 1))})
    np.testing.assert_allclose(found["y"], np.tanh(0.5), rtol=1e-6)


def test_duplicates_in_a_prototxt_alone(network_of, tmp_path):
    path = tmp_path / "two.prototxt"
    path.write_text(HEAD + layer("Split", tops=("a", "b"), name="s")
                    + layer("ReLU", bottoms=("a",), tops=("a",), name="r")
                    + layer("ReLU", bottoms=("b",), tops=("b",), name="r"))
    assert [one.name for one in load_network(path).layers] == ["input", "s", "r", "r"]
