"""How the layers of a network hang together: names, shared blobs, phases, what is read in place."""

import dataclasses

import caffe_numpy
import keras
import numpy as np
import pytest
from compare_numpy import check, keras_gradients, normal
from layer_cases import HEAD, convolution, hed, layer, shared_convolutions

from pixelnet_tf.caffe.blobs import get_blobs, set_blobs
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.reading import read_network, write_caffemodel, write_prototxt
from pixelnet_tf.errors import ModelError
from prototxt_import import load_network


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
    one = convolution(2, "kernel_size: 1")
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


def test_blobs_whose_names_are_one_in_keras(network_of, tmp_path):
    text = 'name: "a/net"\n' + "".join(
        f'input: "{name}" input_shape {{ dim: 1 dim: 2 }}\n' for name in ("in/x", "in_x", "sum")
    ) + layer("Eltwise", "eltwise_param { coeff: 1 coeff: 10 coeff: 100 }",
              ("in/x", "in_x", "sum"), ("out/x",), "sum")
    model = build_model(network_of(text))
    arrays = {"in/x": [[1, 2]], "in_x": [[3, 4]], "sum": [[5, 6]]}
    assert model.run_caffe(arrays)["out/x"].tolist() == [[531, 642]]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.run_caffe(arrays)["out/x"].tolist() == [[531, 642]]


def test_layers_with_weights_keep_names_of_their_own(network_of, tmp_path, randomise):
    one = convolution(4, "kernel_size: 1")
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
    one = convolution(2, "kernel_size: 1")
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
    # What is written chooses the same layers again; the file's own state holds, too.
    write_prototxt(tmp_path / "again.prototxt", network)
    again = read_network(tmp_path / "again.prototxt", phase="TEST")
    assert [one.name for one in again.layers] == ["input", "a", "c"]
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


def summed(bottom: str, name: str, weight: float = 1.0) -> str:
    return layer("Reduction", f"reduction_param {{ operation: SUMSQ }} loss_weight: {weight}",
                 (bottom,), (name,), name)


def two_branches(down: str = "", weight: float = 1.0) -> str:
    settings = convolution(2, "kernel_size: 3")
    return HEAD + (
        layer("Convolution", settings, ("data",), ("trunk",), "trunk")
        + layer("Convolution", settings + down, ("trunk",), ("a",), "a")
        + layer("Convolution", settings, ("trunk",), ("b",), "b")
        + summed("a", "la", weight) + summed("b", "lb")
    )


def test_no_gradient_goes_where_it_is_not_propagated_down(network_of, randomise):
    found, weights = {}, None
    for key, text in {
        "both": two_branches(), "stated": two_branches(" propagate_down: true"),
        "stopped": two_branches(" propagate_down: false"), "b alone": two_branches(weight=0),
    }.items():
        network = network_of(text)
        model = build_model(network, "TRAIN")
        weights = weights or randomise(model)
        for name, blobs in weights.items():
            set_blobs(model.get_layer(name), blobs)
        _, found[key] = keras_gradients(model, normal(network))
    for name, number in (("trunk", 0), ("trunk", 1), ("a", 0), ("b", 0)):
        both, stated, stopped, alone = (found[key][name][number] for key in found)
        np.testing.assert_array_equal(stated, both)
        np.testing.assert_allclose(stopped, alone if name == "trunk" else both, rtol=1e-5,
                                   atol=1e-5)
    assert not np.allclose(found["both"]["trunk"][0], found["stopped"]["trunk"][0], rtol=0.01)
    with pytest.raises(ModelError, match=r"'a' .*propagate_down must be given once for each of its "
                                         "1 bottoms, got 2"):
        build_model(network_of(two_branches("propagate_down: true propagate_down: true")))


def test_any_top_may_carry_a_loss_weight(network_of, randomise, tmp_path):
    """Also one that other layers read, and one of several."""
    text = HEAD + layer("Convolution", convolution(4, "kernel_size: 3") +
                        " loss_weight: 0.3", ("data",), ("a",), "one") + layer(
        "Sigmoid", "", ("a",), ("s",), "s") + layer(
        "Slice", "loss_weight: 0 loss_weight: -2", ("s",), ("x", "y"), "cut") + summed("x", "lx")
    network = network_of(text)
    model = build_model(network, "TRAIN")
    weights = randomise(model)
    assert set(model.output) == {"a", "y", "lx"}
    check(network, model, weights, normal(network))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert keras_gradients(again, normal(network))[0] == keras_gradients(model, normal(network))[0]
    # They are no concern of the TEST phase.
    assert set(build_model(network, "TEST").output) == {"y", "lx"}
    lacking = build_model(network, "TRAIN", blobs=["lx"])
    with pytest.raises(ModelError, match="needs the blob 'a' for its loss"):
        keras_gradients(lacking, normal(network))
    with pytest.raises(ModelError, match=r"loss_weight must be given once for each of its 2 tops"):
        build_model(network_of(text.replace("loss_weight: -2", "")), "TRAIN")


PREDICTION = HEAD + layer("InnerProduct", "inner_product_param { num_output: 3 }", tops=("fc",),
                          name="fc")
LABEL = 'layer { name: "in" type: "Input" top: "label" input_param { shape { dim: 2 } } }\n'


@pytest.mark.parametrize("kind", [
    "ContrastiveLoss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "SmoothL1Loss",
    "EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss",
])
def test_losses_of_every_kind_are_left_out_of_a_test_network(kind, network_of):
    network = network_of(PREDICTION + LABEL + layer(kind, bottoms=("fc", "label"), name="loss"))
    model = build_model(network)
    assert (list(model.output), list(model.input)) == (["fc"], ["data"])
    if kind not in ("EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss"):
        with pytest.raises(ModelError, match=rf"'loss' \(type {kind}, line 4\) is not supported"):
            build_model(network, "TRAIN")
    read = PREDICTION + LABEL + layer(kind, bottoms=("fc", "label"), name="loss") + layer(
        "Power", bottoms=("top",), tops=("twice",), name="reader")
    with pytest.raises(ModelError, match=r"'reader' .*reads the blob 'top' of layer 'loss' .*left"):
        build_model(network_of(read))


def test_a_loss_needs_no_top(network_of, randomise):
    text = PREDICTION + LABEL + layer("SoftmaxWithLoss", bottoms=("fc", "label"), tops=(),
                                      name="fc_loss")
    network = network_of(text)
    model = build_model(network, "TRAIN")
    weights = randomise(model)
    arrays = {**normal(network), "label": np.float32([2, 0])}
    found = model.run_caffe(arrays, training=True)
    logits = caffe_numpy.run(network_of(PREDICTION), weights, arrays)["fc"]
    by_hand = np.log(np.exp(logits).sum(1)) - logits[[0, 1], [2, 0]]
    assert float(found["fc_loss"]) == pytest.approx(by_hand.mean(), rel=1e-6)


def test_python_layers_are_inputs_only_where_they_read_nothing(network_of):
    settings = 'python_param { module: "m" layer: "L" }'
    data = 'name: "net"\n' + layer("Python", settings, (), ("data",), "reader")
    model = build_model(network_of(data + layer("ReLU", name="r")))
    assert list(model.input) == ["data"]
    middle = layer("Python", settings, name="secret") + layer("ReLU", bottoms=("top",), name="r",
                                                              tops=("end",))
    with pytest.raises(ModelError, match=r"'secret' \(type Python, line 2\) reads blobs of the"):
        build_model(network_of(HEAD + middle))
    # As a loss it is left out where losses are.
    loss = PREDICTION + layer("Python", settings + " loss_weight: 1", ("fc",), ("l",), "secret")
    assert list(build_model(network_of(loss)).output) == ["fc"]
    with pytest.raises(ModelError, match="cannot be run here"):
        build_model(network_of(loss), "TRAIN")


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_labels_that_are_trained_are_refused(kind, network_of):
    labels = layer("InnerProduct", "inner_product_param { num_output: 3 }", tops=("label",),
                   name="teacher")
    if kind == "SoftmaxWithLoss":
        labels += layer("ArgMax", "argmax_param { axis: 1 }", ("label",), ("best",), "best")
    name = "best" if kind == "SoftmaxWithLoss" else "label"

    def network(settings):
        return network_of(PREDICTION + labels + layer(
            kind, settings, ("fc", name), ("loss",), "loss"))

    with pytest.raises(ModelError, match=f"labels '{name}' come from trained weights"):
        build_model(network(""), "TRAIN")
    model = build_model(network("propagate_down: true propagate_down: false"), "TRAIN")
    arrays = normal(network_of(PREDICTION))
    gradients = keras_gradients(model, arrays)[1]
    assert np.all(gradients["teacher"][0] == 0)
    assert np.abs(gradients["fc"][0]).max() > 0
