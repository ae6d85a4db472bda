"""Caffe's plain layers against numbers worked out by hand, and their gradients against finite
differences of the independent numpy forward."""

import dataclasses

import caffe_numpy
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import HEAD, SINGLE_LAYERS, layer

from pixelnet_tf.caffe.blobs import blob_variables, to_blob
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.layout import from_caffe, to_caffe
from pixelnet_tf.caffe.reading import write_caffemodel, write_prototxt
from pixelnet_tf.errors import ModelError
from prototxt_import import load_network


def declared(**shapes):
    return "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {size}" for size in shape)} }}\n'
        for name, shape in shapes.items())


def with_weights(network, weights):
    layers = tuple(dataclasses.replace(
        one, blobs=tuple(np.asarray(blob, np.float32) for blob in weights.get(one.name, ())))
        for one in network.layers)
    return dataclasses.replace(network, layers=layers)


def run(network, arrays, weights=None, top="top", upstream=None, **options):
    """The top, the gradients of sum(top * upstream) by input and by layer, in Caffe's order."""
    model = build_model(with_weights(network, weights or {}), blobs="all", **options)
    inputs = {name: tf.constant(from_caffe(np.asarray(arrays[name], np.float64)), place.dtype)
              for name, place in model.input.items()}
    owners = [(one, v) for one in model.layers for v in blob_variables(one) if v.trainable]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = model(inputs)[top]
        loss = tf.reduce_sum(value * from_caffe(np.asarray(
            np.ones(to_caffe(value).shape) if upstream is None else upstream, value.dtype.name)))
    found = tape.gradient(loss, [*inputs.values(), *(v.value for _, v in owners)])
    gradients = {name: None if gradient is None else to_caffe(tf.convert_to_tensor(
                     gradient).numpy())
                 for name, gradient in zip(inputs, found, strict=False)}
    for (one, variable), gradient in zip(owners, found[len(inputs):], strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        gradients.setdefault(one.name, []).append(to_blob(one, gradient))
        assert gradient.shape == tuple(variable.shape)
    return to_caffe(value.numpy()), gradients


ROW = np.float32([[[[-2, 3]], [[-4, 0.5]]]])  # two channels of one row

BY_HAND = {
    # layer, shapes, inputs, weights, top, gradient of the sum with respect to data
    "prelu": (layer("PReLU"), ROW, {"one": [[0.5, 0.25]]}, [[[[-1, 3]], [[-1, 0.5]]]],
              [[[[0.5, 1]], [[0.25, 1]]]]),
    "prelu_shared": (layer("PReLU", "prelu_param { channel_shared: true }"), ROW, {"one": [0.5]},
                     [[[[-1, 3]], [[-2, 0.5]]]], [[[[0.5, 1]], [[0.5, 1]]]]),
    "elu": (layer("ELU", "elu_param { alpha: 2 }"), [[-1, 0, 2]], {},
            [[2 * (np.exp(-1) - 1), 0, 2]], [[2 * np.exp(-1), 2, 1]]),
    "power": (layer("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"), [[0, 2, -4]], {},
              [[1, 4, 1]], [[1, 2, -1]]),
    "power_zero": (layer("Power", "power_param { power: 0 }"), [[0, 5]], {}, [[1, 1]], None),
    "exp": (layer("Exp", "exp_param { shift: 1 }"), [[0, -1]], {}, [[np.e, 1]], [[np.e, 1]]),
    "exp_of_two": (layer("Exp", "exp_param { base: 2 shift: 1 }"), [[0, 1, -3]], {},
                   [[2, 4, 0.25]], [np.log(2) * np.float64([2, 4, 0.25])]),
    "log_of_ten": (layer("Log", "log_param { base: 10 }"), [[1, 10, 1000]], {}, [[0, 1, 3]],
                   [1 / np.log(10) / np.float64([1, 10, 1000])]),
    "absolute_value": (layer("AbsVal"), [[-3, 0, 2]], {}, [[3, 0, 2]], [[-1, 0, 1]]),
    "bnll": (layer("BNLL"), [[0, 100, -100]], {}, [[np.log(2), 100, 0]], [[0.5, 1, 0]]),
    "threshold": (layer("Threshold", "threshold_param { threshold: 0.5 }"), [[0.5, 0.75]], {},
                  [[0, 1]], None),
    "mvn": (layer("MVN"), [[[[1, 3]], [[5, 5]]]], {}, [[[[-1, 1]], [[0, 0]]]],
            [[[[0, 0]], [[0, 0]]]]),
    "mvn_across_channels": (
        layer("MVN", "mvn_param { across_channels: true normalize_variance: false }"),
        [[1, 3, 8]], {}, [[[[-3]], [[-1]], [[4]]]], [[0, 0, 0]]),
    "arg_max_takes_the_last_of_ties": (layer("ArgMax", "argmax_param { top_k: 2 }"),
                                       [[1, 5, 5, 2]], {}, [[[2, 1]]], None),
    "arg_max_with_values": (
        layer("ArgMax", "argmax_param { top_k: 2 out_max_val: true }"), [[[[1, 5]], [[7, 2]]]], {},
        [[[[2], [1]], [[7], [5]]]], None),
    "arg_max_of_channels": (layer("ArgMax", "argmax_param { axis: 1 }"), [[[[1, 5]], [[7, 2]]]],
                            {}, [[[[1, 0]]]], None),
    "reduction": (layer("Reduction", "reduction_param { operation: MEAN axis: 1 coeff: 2 }"),
                  [[1, 2, 6], [-1, 0, 4]], {}, [6, 2], np.full((2, 3), 2 / 3)),
    "reduction_of_absolute_values": (
        layer("Reduction", "reduction_param { operation: ASUM axis: -1 }"), [[1, 0, -6]], {}, [7],
        [[1, 0, -1]]),
    "tile": (layer("Tile", "tile_param { tiles: 2 }"), [[1, 2]], {}, [[1, 2, 1, 2]], [[2, 2]]),
    # Windows of rows {0} and {1, 2} at the second level: one row of padding stands before.
    "spp": (layer("SPP", "spp_param { pyramid_height: 2 }"),
            np.arange(1, 10).reshape(1, 1, 3, 3), {}, [[9, 1, 3, 7, 9]],
            [[[[1, 0, 1], [0, 0, 0], [1, 0, 2]]]]),
    "im2col": (layer("Im2col", "convolution_param { kernel_size: 2 }"),
               [[[[1, 2, 3], [4, 5, 6]]]], {}, [[[[1, 2]], [[2, 3]], [[4, 5]], [[5, 6]]]],
               [[[[1, 2, 1], [1, 2, 1]]]]),
    "parameter": (layer("Parameter", "parameter_param { shape { dim: 2 } }", ()), [[1]],
                  {"one": [[3, 4]]}, [3, 4], None),
    # Ties go to the first cell; the window of the last column has one cell alone.
    "pooling_mask": (
        layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops=("pooled", "top")),
        [[[[1, 1, 0], [1, 1, 4], [0, 7, 9]]]], {}, [[[[0, 5], [7, 8]]]], None),
    "segnet_bn": (layer("BN", "bn_param { bn_mode: LEARN }"), [[[[1, 3]]]],
                  {"one": [np.full((1, 1, 1, 1), 2), np.ones((1, 1, 1, 1))]}, [[[[-1, 3]]]],
                  [[[[0, 0]]]]),
    "segnet_bn_inference": (layer("BN", "bn_param { bn_mode: INFERENCE }"), [[[[1, 3]]]],
                            {"one": [np.full((1, 1, 1, 1), 2), np.ones((1, 1, 1, 1))]},
                            [[[[3, 7]]]], [[[[2, 2]]]]),
    "interp": (layer("Interp", "interp_param { height: 1 width: 4 }"), [[[[0, 3]]]], {},
               [[[[0, 1, 2, 3]]]], [[[[2, 2]]]]),
    "interp_crop_and_zoom": (
        layer("Interp", "interp_param { zoom_factor: 2 pad_beg: -1 }"),
        [[[[9, 9, 9], [9, 0, 4], [9, 8, 4]]]], {}, [[[[0, 2, 4], [4, 4, 4], [8, 6, 4]]]],
        [[[[0, 0, 0], [0, 2.25, 2.25], [0, 2.25, 2.25]]]]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case, network_of):
    text, data, weights, expected, gradient = BY_HAND[case]
    data = np.asarray(data, np.float32)
    network = network_of('name: "net" ' + declared(data=data.shape) + text)
    top, gradients = run(network, {"data": data}, weights)
    np.testing.assert_allclose(top, np.asarray(expected), rtol=1e-6, atol=1e-6)
    assert top.shape == np.shape(expected)
    if gradient is None:
        assert gradients["data"] is None or not gradients["data"].any()
    else:
        np.testing.assert_allclose(gradients["data"], np.asarray(gradient), rtol=1e-6, atol=1e-6)


def test_gradients_of_weights_by_hand(network_of):
    network = network_of('name: "net" ' + declared(data=(1, 2, 1, 2)) + layer("PReLU"))
    _, gradients = run(network, {"data": ROW}, {"one": [[0.5, 0.25]]})
    np.testing.assert_array_equal(gradients["one"][0], [-2, -4])
    network = network_of('name: "net" ' + declared(data=(1,)) + layer(
        "Parameter", "parameter_param { shape { dim: 2 } }", ()))
    _, gradients = run(network, {"data": [0]}, {"one": [[3, 4]]}, upstream=[5, 6])
    np.testing.assert_array_equal(gradients["one"][0], [5, 6])


def test_gradient_of_mvn_takes_epsilon_for_small(network_of):
    text = 'name: "net" ' + declared(data=(1, 1, 1, 2))
    network = network_of(text + layer("MVN", "mvn_param { eps: 1 }"))
    top, gradients = run(network, {"data": [[[[1, 3]]]]}, upstream=[[[[1, 0]]]])
    np.testing.assert_allclose(top, [[[[-0.5, 0.5]]]])
    # (dy - mean(dy) - y mean(y dy)) / 2, as Caffe has it; finite where all numbers are equal.
    np.testing.assert_allclose(gradients["data"], [[[[0.1875, -0.1875]]]])
    network = network_of(text + layer("MVN"))
    _, gradients = run(network, {"data": [[[[5, 5]]]]}, upstream=[[[[1, 0]]]])
    np.testing.assert_allclose(gradients["data"], [[[[0.5e9, -0.5e9]]]], rtol=1e-6)


def test_embed(network_of):
    network = network_of('name: "net" ' + declared(data=(3,)) + layer(
        "Embed", "embed_param { num_output: 2 input_dim: 3 }"))
    weights = {"one": [[[1, 2], [3, 4], [5, 6]], [10, 20]]}
    top, gradients = run(network, {"data": [2, 0, 2]}, weights)
    np.testing.assert_array_equal(top, [[15, 26], [11, 22], [15, 26]])
    np.testing.assert_array_equal(gradients["one"][0], [[1, 1], [0, 0], [2, 2]])
    np.testing.assert_array_equal(gradients["one"][1], [3, 3])
    assert gradients["data"] is None
    model = build_model(with_weights(network, weights))
    with pytest.raises(ModelError, match="none of the 3 rows"):
        model.run_caffe({"data": [3]})
    # A map of numbers becomes a blob of five axes.
    network = network_of('name: "net" ' + declared(data=(1, 1, 2, 2)) + layer(
        "Embed", "embed_param { num_output: 2 input_dim: 3 bias_term: false }"))
    top = build_model(with_weights(network, {"one": weights["one"][:1]})).run_caffe(
        {"data": [[[[0, 1], [2, 0]]]]})["top"]
    np.testing.assert_array_equal(top, [[[[[1, 2], [3, 4]], [[5, 6], [1, 2]]]]])


def test_embed_starts_from_caffes_fans(network_of):
    network = network_of('name: "net" ' + declared(data=(3,)) + layer(
        "Embed", 'embed_param { num_output: 3 input_dim: 500 weight_filler { type: "xavier" } }'))
    kernel = build_model(network).caffe_weights()["one"][0]
    assert kernel.shape == (500, 3)
    # The fan is the blob's size over its first axis: 3.
    assert 0.98 < np.abs(kernel).max() <= 1


def test_filter(network_of):
    network = network_of('name: "net" ' + declared(data=(4, 2), more=(4, 1, 1, 2), select=(4, 1))
                         + layer("Filter", "", ("data", "more", "select"), ("top", "top2")))
    arrays = {"data": [[1, 2], [3, 4], [5, 6], [7, 8]], "select": [[0], [2], [0], [-1]],
              "more": np.arange(8.0).reshape(4, 1, 1, 2)}
    top, gradients = run(network, arrays)
    np.testing.assert_array_equal(top, [[3, 4], [7, 8]])
    np.testing.assert_array_equal(gradients["data"], [[0, 0], [1, 1], [0, 0], [1, 1]])
    assert gradients["select"] is None
    found = build_model(network).run_caffe(arrays)
    np.testing.assert_array_equal(found["top2"], arrays["more"][[1, 3]])
    arrays["select"] = np.zeros((4, 1))
    assert build_model(network).run_caffe(arrays)["top"].shape == (0, 2)
    wide = network_of('name: "net" ' + declared(data=(4, 2), select=(4, 2)) + layer(
        "Filter", "", ("data", "select")))
    with pytest.raises(ModelError, match="one number a sample"):
        build_model(wide)


def test_batch_reindex(network_of):
    network = network_of('name: "net" ' + declared(data=(3, 2), rows=(4,)) + layer(
        "BatchReindex", "", ("data", "rows")))
    arrays = {"data": [[1, 2], [3, 4], [5, 6]], "rows": [2, 0, 2, 2]}
    top, gradients = run(network, arrays)
    np.testing.assert_array_equal(top, [[5, 6], [1, 2], [5, 6], [5, 6]])
    np.testing.assert_array_equal(gradients["data"], [[1, 1], [0, 0], [3, 3]])
    with pytest.raises(ModelError, match="outside the batch"):
        build_model(network).run_caffe({**arrays, "rows": [3, 0, 0, 0]})


def test_upsample_puts_numbers_where_the_mask_says(network_of):
    text = 'name: "net" ' + declared(data=(1, 1, 1, 3), mask=(1, 1, 1, 3)) + layer(
        "Upsample", "upsample_param { scale_h: 2 scale_w: 2 pad_out_w: true }", ("data", "mask"))
    network = network_of(text)
    # Cell 3 is named twice: the later number stays, both get its gradient.
    top, gradients = run(network, {"data": [[[[1, 2, 5]]]], "mask": [[[[3, 3, 9]]]]},
                         upstream=np.arange(10.0).reshape(1, 1, 2, 5))
    np.testing.assert_array_equal(top, [[[[0, 0, 0, 2, 0], [0, 0, 0, 0, 5]]]])
    np.testing.assert_array_equal(gradients["data"], [[[[3, 3, 9]]]])
    model = build_model(network)
    with pytest.raises(ModelError, match="outside the output"):
        model.run_caffe({"data": [[[[1, 2, 5]]]], "mask": [[[[3, 3, 10]]]]})
    with pytest.raises(ModelError, match=r"scale_h and scale_w must both be given"):
        network_of(text.replace("scale_w: 2", ""))


def test_pspnet_bn_in_training(network_of):
    network = network_of('name: "net" ' + declared(data=(1, 1, 1, 2)) + layer(
        "BN", "bn_param { slope_filler { value: 2 } bias_filler { value: 1 } }"))
    model = build_model(network, "TRAIN")
    top = model.run_caffe({"data": [[[[1, 3]]]]}, training=True)["top"]
    np.testing.assert_allclose(top, 1 + 2 * np.float64([[[[-1, 1]]]]) / np.sqrt(1 + 1e-5),
                               rtol=1e-6)
    slope, bias, mean, variance = (blob.reshape(-1) for blob in model.caffe_weights()["one"])
    # Moving: 0.9 * 0 + 0.1 * the batch's mean 2 and variance 1.
    np.testing.assert_allclose([slope, bias, mean, variance], [[2], [1], [0.2], [0.1]], rtol=1e-6)
    frozen = network_of('name: "net" ' + declared(data=(1, 1, 1, 2)) + layer(
        "BN", "bn_param { frozen: true slope_filler { value: 2 } }"))
    model = build_model(frozen, "TRAIN")
    top = model.run_caffe({"data": [[[[1, 3]]]]}, training=True)["top"]
    np.testing.assert_allclose(top, [[[[2, 6]]]], rtol=1e-5)
    assert model.trainable_variables == []


def test_bn_of_no_known_fork(network_of):
    text = 'name: "net" ' + declared(data=(1, 1, 1, 2))
    with pytest.raises(ModelError, match="nothing says which"):
        build_model(network_of(text + layer("BN")))
    two = with_weights(network_of(text + layer("BN")), {"one": [np.ones((1, 1, 1, 1))] * 2})
    assert type(build_model(two).get_layer("one")).__name__ == "SegNetBN"
    with pytest.raises(ModelError, match=r"scale_filler is SegNet's, momentum is not"):
        network_of(text + layer("BN", "bn_param { scale_filler { value: 1 } momentum: 0.9 }"))


def test_hypercolumn_of_vectors(network_of):
    """A blob of two axes is a map of one cell, as Caffe's height() and width() say."""
    network = network_of(
        'name: "net" ' + declared(data=(2, 2, 3, 3), words=(2, 3), pixels=(2, 3)) + layer(
            "RandBI", "rand_comp_param { compression_rate: 1 compression_rate: 2 pad: true }",
            ("data", "words", "pixels")))
    data = np.arange(36.0).reshape(2, 2, 3, 3)
    arrays = {"data": data, "words": [[1, 2, 3], [4, 5, 6]], "pixels": [[1, 0, 0.5], [0, 0.5, 0]]}
    top, gradients = run(network, arrays)
    np.testing.assert_array_equal(top, [[18.5, 27.5, 4, 5, 6], [1.5, 10.5, 1, 2, 3]])
    np.testing.assert_array_equal(gradients["words"], np.ones((2, 3)))
    # Caffe aborts past the one cell's centre, which lies at 0.5.
    with pytest.raises(ModelError, match="past the last row of the map of rate 2"):
        build_model(network).run_caffe({**arrays, "pixels": [[0, 1, 0]]})


def test_pixels_of_four_axes(network_of):
    settings = "rand_comp_param { compression_rate: 1 }"
    network = network_of('name: "net" ' + declared(data=(1, 2, 3, 3), pixels=(2, 3, 1, 1)) + layer(
        "RandBI", settings, ("data", "pixels")))
    data = np.arange(18.0).reshape(1, 2, 3, 3)
    pixels = np.float32([[0, 1, 2], [0, 2, 1]]).reshape(2, 3, 1, 1)
    top = build_model(network).run_caffe({"data": data, "pixels": pixels})["top"]
    np.testing.assert_array_equal(top, [[5, 14], [7, 16]])


def test_dummy_data(network_of):
    """With a constant filler it is that constant, without one a place for data to be put in."""
    dummy = ('layer {{ name: "d" type: "DummyData" top: "d" dummy_data_param {{ shape {{ dim: 1 '
             'dim: 2 }} {} }} }}\n')
    start, end = 'name: "net" ' + declared(data=(1, 2)), layer("Eltwise", "", ("data", "d"))
    network = network_of(start + dummy.format("data_filler { value: 3 }") + end)
    model = build_model(network)
    assert set(model.input) == {"data"}
    np.testing.assert_array_equal(model.run_caffe({"data": [[1, 2]]})["top"], [[4, 5]])
    for filler in ("", 'data_filler { type: "gaussian" }'):
        network = network_of(start + dummy.format(filler) + end)
        assert set(build_model(network).input) == {"data", "d"}
    alone = 'name: "net" ' + dummy.format("data_filler { value: 3 }") + layer(
        "ReLU", bottoms=("d",))
    assert set(build_model(network_of(alone)).input) == {"d"}


def test_scale_by_a_second_bottom_of_other_sizes(network_of):
    text = 'name: "net" ' + declared(data=(2, 4, 7, 9), other=(2, 1)) + layer(
        "{}", "", ("data", "other"))
    for kind, axis in (("Scale", "scale_param { axis: 0 }"), ("Bias", "bias_param { axis: 0 }")):
        network = network_of(text.replace("{}", kind).replace("bottom: \"other\"",
                                                              f'bottom: "other" {axis}', 1))
        with pytest.raises(ModelError, match=r"shape \(None, 1\) is not that of"):
            build_model(network)
    # Sizes that are known only when the network runs.
    network = network_of('name: "net" ' + declared(data=(1, 2, 4, 4), other=(1, 2, 2, 2)) + layer(
        "Pooling", "pooling_param { global_pooling: true pool: AVE }", ("other",), ("mean",), "p")
        + layer("Scale", "scale_param { axis: 0 }", ("data", "mean")))
    with pytest.raises(ModelError, match="does not have the sizes"):
        build_model(network, fixed_shape=False).run_caffe(
            {"data": np.ones((1, 2, 4, 4)), "other": np.ones((1, 2, 2, 2))})


def test_spp_of_an_input_that_is_too_small(network_of):
    network = network_of('name: "net" ' + declared(data=(1, 1, 5, 9)) + layer(
        "SPP", "spp_param { pyramid_height: 3 }"))
    with pytest.raises(ModelError, match="too small for a level of 4 x 4 bins"):
        build_model(network)


NEW = list(SINGLE_LAYERS)
NEW = NEW[NEW.index("pool_max_ceil_mode_of_a_fork"):NEW.index("softmax")]
NO_GRADIENT = ("threshold", "arg_max", "power_of_nothing", "power_zero")


@pytest.mark.parametrize("case", [case for case in NEW if not case.startswith(NO_GRADIENT)])
def test_gradients(case, network_of, randomise):
    network = network_of(HEAD + SINGLE_LAYERS[case])
    weights = randomise(build_model(network))
    rng = np.random.default_rng(5)
    arrays = {one.name: rng.normal(size=one.shape) for one in network.inputs}
    top = network.layer("one").tops[0]
    upstream = rng.normal(size=caffe_numpy.run(network, weights, arrays)[top].shape)
    _, gradients = run(network, arrays, weights, top, upstream, dtype="float64")

    def loss():
        return (caffe_numpy.run(network, weights, arrays)[top] * upstream).sum()

    checked = 0
    weights = {name: [np.array(blob, np.float64) for blob in blobs]
               for name, blobs in weights.items()}
    for name, gradient in gradients.items():
        blobs = weights[name] if isinstance(gradient, list) else [arrays[name]]
        for array, found in zip(blobs, gradient if isinstance(gradient, list) else [gradient],
                                strict=False):
            for place in rng.choice(array.size, min(array.size, 5), replace=False):
                index = np.unravel_index(place, array.shape)
                start, differences = array[index], []
                for step in (1e-6, -1e-6):
                    array[index] = start + step
                    differences.append(loss())
                array[index] = start
                expected = (differences[0] - differences[1]) / 2e-6
                value = 0.0 if found is None else found[index]
                assert value == pytest.approx(expected, rel=2e-5, abs=2e-6), (name, index)
                checked += 1
    assert checked


WEIGHTED = ["prelu", "prelu_shared", "parameter", "parameter_of_four_axes", "segnet_bn_learn",
            "pspnet_bn", "scale_of_all_axes", "scale_of_samples"]


@pytest.mark.parametrize("case", [*WEIGHTED, "embed"])
@pytest.mark.parametrize("ending", [".caffemodel", ".caffemodel.h5"])
def test_weights_out_and_in(case, ending, network_of, randomise, tmp_path):
    text = SINGLE_LAYERS.get(case, layer(
        "Embed", "embed_param { num_output: 3 input_dim: 5 }", ("data",)))
    network = network_of(HEAD + text)
    weights = randomise(build_model(network, blobs="all"))
    network = with_weights(network, weights)
    write_caffemodel(tmp_path / f"net{ending}", network)
    write_prototxt(tmp_path / "net.prototxt", network)
    again = load_network(tmp_path / "net.prototxt", tmp_path / f"net{ending}")
    assert again.without_weights == ()
    found = build_model(again, blobs="all").caffe_weights()
    assert found.keys() == weights.keys()
    for name, blobs in weights.items():
        for one, other in zip(blobs, found[name], strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ModelError, match="weight blobs"):
        build_model(with_weights(network, {name: [*blobs, blobs[0]]
                                           for name, blobs in weights.items()}))


@pytest.mark.parametrize(
    ("case", "wrong"),
    [("prelu", np.ones((4, 1))), ("parameter", np.ones((2, 3))), ("pspnet_bn", np.ones(4)),
     ("segnet_bn_learn", np.ones((1, 4, 1, 2)))])
def test_blobs_of_another_shape_are_refused(case, wrong, network_of, randomise, tmp_path):
    network = network_of(HEAD + SINGLE_LAYERS[case])
    weights = randomise(build_model(network))
    weights["one"] = [wrong, *weights["one"][1:]]
    write_caffemodel(tmp_path / "net.caffemodel", with_weights(network, weights))
    with pytest.raises(ValueError, match="the layer's settings ask for"):
        load_network(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
