"""Single layers against Caffe's arithmetic in numpy, and what a network may not hold."""

import dataclasses

import caffe_numpy
import keras
import numpy as np
import pytest
import tensorflow as tf
from compare_numpy import check, normal
from layer_cases import CONVOLUTION, HEAD, SINGLE_LAYERS, layer, second

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.errors import ModelError


@pytest.mark.parametrize("case", SINGLE_LAYERS)
def test_layer(case, network_of, randomise):
    network = network_of(HEAD + SINGLE_LAYERS[case])
    model = build_model(network, blobs="all")
    weights = randomise(model)
    rng = np.random.default_rng(3)
    arrays = {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.inputs}
    expected = caffe_numpy.run(network, weights, arrays)
    found = model.run_caffe(arrays)
    assert set(found) >= set(network.layer("one").tops)
    for blob, values in found.items():
        symbolic = model.output[blob].shape
        assert all(a in (None, b) for a, b in zip(symbolic, _keras_shape(values), strict=True))
        np.testing.assert_allclose(values, expected[blob], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["convolution_groups", "deconvolution_groups_dilation", "scale",
                                  "scale_by_second", "bias", "inner_product_transposed",
                                  "inner_product", "lrn", "reshape", "normalize", "crop",
                                  "pool_average_pad", "slice_points", "eltwise_sum",
                                  "pool_max_mask", "spp_max", "im2col", "prelu", "elu", "power",
                                  "exp_of_two", "log", "absolute_value", "bnll", "threshold", "mvn",
                                  "arg_max_of_channels", "reduction_mean", "tile", "constants",
                                  "parameter_of_four_axes", "interp_zoom", "segnet_bn_learn",
                                  "pspnet_bn", "segnet_upsample", "scale_of_samples",
                                  "batch_norm_of_three_axes"])
def test_model_saves_and_reloads(case, network_of, randomise, tmp_path):
    network = network_of(HEAD + SINGLE_LAYERS[case])
    model = build_model(network)
    randomise(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    rng = np.random.default_rng(4)
    arrays = {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.inputs}
    for blob, values in model.run_caffe(arrays).items():
        np.testing.assert_array_equal(values, again.run_caffe(arrays)[blob])
    assert again.multipliers == model.multipliers


def test_global_max_gradient_goes_to_the_first_of_ties(network_of):
    model = build_model(network_of(HEAD + SINGLE_LAYERS["pool_max_global"]))
    values = tf.Variable(tf.ones((1, 2, 3, 4)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model({"data": values})["top"])
    expected = np.zeros((1, 2, 3, 4))
    expected[:, 0, 0] = 1
    np.testing.assert_array_equal(tape.gradient(total, values), expected)


@pytest.mark.parametrize("across", ["true", "false"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_gradient_of_normalize_is_the_derivative(across, shared, network_of, randomise):
    """Caffe's own is not where each channel has its scale."""
    network = network_of(
        HEAD + second(3, 7, 9) + layer("Convolution", "convolution_param { num_output: 3 "
                                       "kernel_size: 1 }", tops=("a",), name="conv")
        + layer("Normalize", f"norm_param {{ across_spatial: {across} channel_shared: {shared} "
                             "fix_scale: false }", ("a",), ("n",), "norm")
        + layer("EuclideanLoss", "", ("n", "other"), ("loss",), "loss"))
    model = build_model(network, "TRAIN", blobs="all")
    check(network, model, randomise(model), normal(network))


def test_rand_comp_reads_the_nearest_cell(network_of):
    text = HEAD + 'input: "pixels" input_shape { dim: 3 dim: 3 }\n' + layer(
        "RandComp", "rand_comp_param { pad: true compression_rate: 2 }", ("data", "pixels"))
    network = network_of(text)
    data = np.random.default_rng(0).normal(size=(2, 4, 7, 9)).astype(np.float32)
    pixels = np.float32([[0, 1.4, 1.6], [1, 3, 13.4], [1, -5, 1.5]])
    arrays = {"data": data, "pixels": pixels}
    expected = caffe_numpy.run(network, {}, arrays)["top"]
    found = build_model(network).run_caffe(arrays)["top"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(found[0], data[0, :, 0, 1])


def test_dropout_in_training(network_of):
    text = HEAD + layer("Dropout", "dropout_param { dropout_ratio: 0.25 }")
    model = build_model(network_of(text), "TRAIN")
    top = model.run_caffe({"data": np.ones((2, 4, 70, 90))}, training=True)["top"]
    assert set(np.unique(top)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((top == 0).mean() - 0.25) < 0.01


def test_in_place_blob_holds_its_final_value(network_of):
    text = HEAD + layer("ReLU", tops=("data2",)) + layer(
        "Sigmoid", bottoms=("data2",), tops=("data2",), name="two")
    found = build_model(network_of(text), blobs="all").run_caffe({"data": -np.ones((1, 4, 2, 2))})
    assert list(found) == ["data2"]
    assert np.all(found["data2"] == 0.5)


def test_phases(network_of):
    text = HEAD + layer("ReLU", "include { phase: TRAIN }") + layer(
        "Sigmoid", "include { phase: TEST }", name="two")
    network = network_of(text)
    arrays = {"data": np.zeros((1, 4, 2, 2))}
    assert build_model(network, "TRAIN").run_caffe(arrays)["top"].max() == 0
    assert build_model(network, "TEST").run_caffe(arrays)["top"].max() == 0.5


def test_data_layers_become_inputs(network_of):
    text = ('name: "net"\n' + layer("Data", "data_param { source: 'x' batch_size: 4 }", (),
                                    ("data", "label"), "reader")
            + layer("Convolution", CONVOLUTION.format("kernel_size: 1"))
            + layer("SoftmaxWithLoss", "", ("top", "label"), ("loss",), "loss"))
    model = build_model(network_of(text), "TRAIN")
    assert model.input["data"].shape == (None, None, None, 3)
    assert model.input["label"].shape == (None, 1)
    without = build_model(network_of(text), "TRAIN", losses=False)
    assert set(without.input) == {"data"}
    assert list(without.output) == ["top"]


def test_shared_weights(network_of, randomise):
    shared = CONVOLUTION.format("kernel_size: 1") + ' param { name: "w" } param { name: "b" }'
    text = HEAD + layer("Convolution", shared) + second() + layer(
        "Convolution", shared, ("other",), ("top2",), "two")
    model = build_model(network_of(text))
    randomise(model)
    assert len(model.trainable_variables) == 2
    data = np.random.default_rng(0).normal(size=(1, 4, 3, 3))
    found = model.run_caffe({"data": data, "other": data})
    np.testing.assert_array_equal(found["top"], found["top2"])


def test_fillers_give_the_start_weights(network_of):
    settings = CONVOLUTION.format(
        'kernel_size: 3 weight_filler { type: "xavier" } '
        'bias_filler { type: "constant" value: 0.2 }')
    text = HEAD + layer("Convolution", settings) + layer("Convolution", settings, name="two",
                                                         tops=("top2",))
    weights = build_model(network_of(text), seed=1).caffe_weights()
    assert np.abs(weights["one"][0]).max() <= np.sqrt(3 / 36)
    assert np.all(weights["one"][1] == np.float32(0.2))
    assert not np.array_equal(weights["one"][0], weights["two"][0])
    again = build_model(network_of(text), seed=1).caffe_weights()
    np.testing.assert_array_equal(weights["one"][0], again["one"][0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layer("Convolutoin"),
         r"layer 'one' \(type Convolutoin, line 2\) is not supported \(did you mean 'Convolution'"),
        (layer("RandCat"), "supported types: .*Convolution.*RandBI"),
        (layer("LSTM", "recurrent_param { num_output: 3 }"),
         r"layer 'one' \(type LSTM, line 2\): recurrent layers are not supported"),
        (layer("ReLU", bottoms=("dta",)), "reads the blob 'dta', which no layer .*'data'"),
        (layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
         "line 2.*pool STOCHASTIC is not supported"),
        (layer("Convolution", CONVOLUTION.format("kernel_size: 1 group: 3")), "multiple of group"),
        (second() + layer("Concat", "concat_param { axis: 4 }", ("data", "other")),
         "axis 4 does not exist"),
        (layer("ReLU", bottoms=("data", "data")), "one bottom, got 2"),
        (layer("Convolution", CONVOLUTION.format("kernel_size: 30")), "line 2"),
        (layer("Flatten", "flatten_param { axis: 5 }"), "axis 5 does not exist"),
        ("", "has no layer that computes"),
    ],
)
def test_what_cannot_be_built(text, message, network_of):
    with pytest.raises(ModelError, match=message):
        build_model(network_of(HEAD + text), fixed_shape=True)


@pytest.mark.parametrize(("kind", "hint"), [
    ("relu", "ReLU"), ("Convolutoin", "Convolution"), ("softmax", "Softmax"), ("ReLU6", None),
    ("RegionReduction", None), ("Permute", None), ("Unpooling", None), ("Axpy", None),
])
def test_only_a_slip_of_the_pen_is_corrected(kind, hint, network_of):
    """Another layer of Caffe, or of a fork, is not to be taken for one that is supported."""
    with pytest.raises(ModelError, match=rf"\(type {kind}, line 2\) is not supported") as caught:
        build_model(network_of(HEAD + layer(kind)))
    assert (f"did you mean {hint!r}" if hint else "supported; ") in str(caught.value)
    assert ("did you mean" in str(caught.value)) == (hint is not None)


@pytest.mark.parametrize("axes", [1, 3])
def test_convolutions_of_other_dimensions_are_called_so(axes, network_of):
    dims = " ".join(["dim: 5"] * axes)
    text = f'name: "net" input: "data" input_shape {{ dim: 2 dim: 4 {dims} }}\n'
    with pytest.raises(ModelError, match=f"that of a {axes}-D convolution; only 2-D"):
        build_model(network_of(text + layer("Convolution", CONVOLUTION.format("kernel_size: 3"))))


def test_long_lists_of_names_are_cut_short(network_of):
    many = "".join(layer("ReLU", tops=(f"top{i}",), name=f"relu{i}") for i in range(200))
    network = network_of(HEAD + many)
    with pytest.raises(ModelError, match=r"no blob 'x'; it has .*\.\.\. \(201 in all\)") as caught:
        build_model(network, blobs=["x"])
    assert len(str(caught.value)) < 250
    with pytest.raises(KeyError, match=r"\.\.\. \(201 in all\)"):
        network.layer("x")


def test_weights_of_a_wrong_shape(network_of):
    network = network_of(HEAD + layer("InnerProduct", "inner_product_param { num_output: 5 }"))
    blobs = (np.zeros((5, 10), np.float32), np.zeros(5, np.float32))
    layers = tuple(
        dataclasses.replace(one, blobs=blobs) if one.name == "one" else one
        for one in network.layers
    )
    with pytest.raises(ModelError, match=r"\(5, 10\).*needs \(5, 252\)"):
        build_model(dataclasses.replace(network, layers=layers), fixed_shape=True)


def test_missing_and_misshapen_inputs(network_of):
    model = build_model(network_of(HEAD + layer("ReLU")))
    with pytest.raises(ModelError, match="needs the input 'data'"):
        model.run_caffe({"image": np.zeros((1, 4, 3, 3))})
    with pytest.raises(ModelError, match=r"shape \(1, 3, 3, 3\).*needs \(None, 4, None, None\)"):
        model.run_caffe({"data": np.zeros((1, 3, 3, 3))})


def _keras_shape(values):
    shape = values.shape
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


WRONG_SIZES = [
    (layer("Slice", "slice_param { slice_point: 1 }", tops=("a", "b", "c")),
     "3 tops need 2 slice points"),
    (layer("Slice", "slice_param { slice_point: 3 slice_point: 1 }", tops=("a", "b", "c")),
     "must increase"),
    (layer("Slice", "slice_param { slice_point: 4 }", tops=("a", "b")),
     r"slice points \(4,\) reach past axis 1 of size 4"),
    (layer("Slice", "", tops=("a", "b", "c")), "3 tops do not share axis 1 of size 4 evenly"),
    (layer("Slice", "slice_param { axis: 4 }", tops=("a", "b")), "axis 4 does not exist"),
    (layer("Slice", "slice_param { slice_point: 2 }"), "1 tops need 0 slice points"),
    (second(4, 8, 3) + layer("Crop", "", ("data", "other")),
     "axis 2 of the first bottom has the size 7, from offset 0 on too short for the 8"),
    (second(4, 5, 8) + layer("Crop", "crop_param { offset: 2 }", ("data", "other")),
     "axis 3 of the first bottom has the size 9, from offset 2 on too short for the 8"),
    (second(4, 2, 2) + layer("Crop", "crop_param { offset: 1 offset: 2 offset: 0 }",
                             ("data", "other")), "one for each of the 2 axes from axis 2 on"),
    (layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 dim: -1 } }"),
     r"shape \(None, 4, 7, 9\) \(Caffe's order\) does not fill \(0, 5, -1\)"),
    (layer("Reshape", "reshape_param { shape { dim: 0 dim: 4 dim: 9 dim: 8 } }"), "does not fill"),
    (layer("Reshape", "reshape_param { shape { dim: 2 } axis: 3 num_axes: 2 }"),
     "axis 3 and num_axes 2 do not fit 4 axes"),
    (layer("Reshape", "reshape_param { shape { dim: -1 dim: 0 } axis: 3 }"),
     "copies an axis that is not there"),
    (second(4, 7, 1) + layer("Eltwise", "", ("data", "other")),
     r"must have one shape, they have \(None, 4, 7, 9\), \(None, 4, 7, 1\)"),
    (second(4, 7, 8) + layer("Concat", "", ("data", "other")), "matching shapes"),
    (layer("Softmax", "softmax_param { axis: 7 }"), "axis 7 does not exist"),
    (layer("InnerProduct", "inner_product_param { num_output: 2 axis: 5 }"),
     "axis 5 does not exist"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_SIZES)
def test_sizes_that_do_not_fit_say_why(text, message, network_of):
    with pytest.raises(ModelError, match=message) as caught:
        build_model(network_of(HEAD + text), fixed_shape=True)
    assert "layer 'one'" in str(caught.value)
    assert "encountered" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sizes", "message"),
    [
        (layer("Slice", "slice_param { axis: 2 slice_point: 5 }", tops=("a", "b")), {"data": 5},
         "cannot be cut at the points"),
        (layer("Slice", "slice_param { axis: 2 }", tops=("a", "b")), {"data": 5}, "cannot be cut"),
        (second() + layer("Crop", "", ("data", "other")), {"data": 5, "other": 6},
         "axis 2 of the first bottom is too short"),
        (layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 dim: -1 } }"), {"data": 4},
         "does not fill the shape"),
        (layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 dim: 9 } }"), {"data": 5},
         "does not fill the shape"),
        (second() + layer("Eltwise", "", ("data", "other")), {"data": 5, "other": 1},
         "unequal shapes"),
        (second() + layer("Concat", "", ("data", "other")), {"data": 5, "other": 4}, "imension"),
    ],
)
def test_sizes_that_are_only_known_when_it_runs_say_why_too(text, sizes, message, network_of):
    model = build_model(network_of(HEAD + text))
    arrays = {name: np.zeros((1, 4, size, 3)) for name, size in sizes.items()}
    with pytest.raises(ModelError, match=message) as caught:
        model.run_caffe(arrays)
    assert "encountered" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_copied_axis_may_lie_behind_those_that_are_replaced(network_of):
    text = HEAD + layer("Reshape", "reshape_param { shape { dim: 2 dim: 2 dim: 0 } axis: 1 "
                                   "num_axes: 1 }")
    # 4 channels become 2, 2 and (a copy of axis 3) 9: too many numbers, but no missing axis.
    with pytest.raises(ModelError, match="does not fill"):
        build_model(network_of(text), fixed_shape=True)


def data_layer(*tops, settings="", type_="Data") -> str:
    return 'name: "net"\n' + layer(type_, settings, (), tops, "reader")


def with_kernels(network, **shapes):
    """The network with zero kernels (without biases) of these shapes."""
    layers = tuple(
        dataclasses.replace(one, blobs=(np.zeros(shapes[one.name], np.float32),))
        if one.name in shapes else one for one in network.layers
    )
    return dataclasses.replace(network, layers=layers)


PLAIN = CONVOLUTION.format("kernel_size: 1 bias_term: false")
PAIR = data_layer("pair", "sim") + layer(
    "Slice", "slice_param { slice_point: 2 }", ("pair",), ("a", "b"), "cut") + layer(
    "Convolution", PLAIN, ("a",), ("x",), "one") + layer("ReLU", "", ("b",), ("b2",), "relu") + (
    layer("Convolution", PLAIN, ("b2",), ("y",), "two"))


def test_channels_of_data_come_from_weights_on_the_way(network_of):
    """A siamese network's pair of images in one blob, pooled data, data that is cut evenly."""
    network = with_kernels(network_of(PAIR), one=(6, 2, 1, 1), two=(6, 5, 1, 1))
    assert build_model(network).input["pair"].shape == (None, None, None, 7)
    even = network_of(PAIR.replace("slice_param { slice_point: 2 }", ""))
    network = with_kernels(even, one=(6, 4, 1, 1), two=(6, 4, 1, 1))
    assert build_model(network).input["pair"].shape == (None, None, None, 8)
    pooled = data_layer("data", settings="transform_param { crop_size: 8 }") + layer(
        "Pooling", "pooling_param { kernel_size: 2 }", tops=("p",), name="pool") + layer(
        "Convolution", PLAIN, ("p",), ("x",), "one")
    network = with_kernels(network_of(pooled), one=(6, 1, 1, 1))
    assert build_model(network, fixed_shape=True).input["data"].shape == (None, 8, 8, 1)
    grey = data_layer("data", settings="image_data_param { source: 'x' is_color: false }",
                      type_="ImageData") + layer("Convolution", PLAIN)
    assert build_model(network_of(grey)).input["data"].shape == (None, None, None, 1)


def test_channels_that_nothing_says_are_not_guessed_where_they_are_cut(network_of):
    network = network_of(PAIR)
    with pytest.raises(ModelError, match=r"how many channels 'pair' has, and layer 'cut' cuts "):
        build_model(network)
    model = build_model(network, shapes={"pair": (None, 6, 5, None)}, fixed_shape=True)
    assert model.input["pair"].shape == (None, 5, None, 6)
    assert model.output["y"].shape == (None, 5, None, 6)
    with pytest.raises(ModelError, match=r"there is no input 'label' to give a shape.*pair, sim"):
        build_model(network, shapes={"label": (1, 2), "pair": (None, 6, 5, 5)})
