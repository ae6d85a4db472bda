"""A second oracle: OpenCV reads the files that are written here, and computes the same.

OpenCV's reader has Caffe's schema compiled in, so it also checks field numbers. It does not know
PixelNet's own layers, and OpenCV 5 has no Caffe reader any more.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from layer_cases import HEAD, SINGLE_LAYERS, hed, shared_convolutions

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.reading import read_network, write_caffemodel, write_prototxt
from prototxt_import import InputParams, Layer

cv2 = pytest.importorskip("cv2", reason="pip install 'opencv-python-headless<5'")
if int(cv2.__version__.split(".")[0]) != 4:
    pytest.skip("OpenCV 5 has no Caffe reader", allow_module_level=True)

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = (
    "convolution_stride_pad", "convolution_rectangular", "convolution_groups",
    "convolution_dilation_stride", "deconvolution", "inner_product", "inner_product_axis_2",
    "pool_max_3_2", "pool_max_rectangular", "pool_average_pad", "pool_average_global",
    "relu_slope", "sigmoid", "tanh", "dropout_in_test", "batch_norm", "scale", "concat",
    "eltwise_sum", "eltwise_max", "flatten", "lrn", "softmax", "pool_max_mask",
    "convolution_negative_axis", "inner_product_negative_axis", "softmax_negative_axis",
    "concat_negative_axis", "flatten_negative_axis", "scale_of_samples", "scale_of_all_axes",
    "batch_norm_of_five_axes", "prelu", "prelu_of_vectors", "elu", "power", "power_of_nothing",
    "power_zero", "exp", "exp_of_two", "absolute_value", "bnll", "mvn", "mvn_mean_alone",
    "mvn_of_three_axes",
)


def with_weights(network, weights):
    layers = tuple(
        dataclasses.replace(layer, blobs=weights.get(layer.name, ())) for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers)


def opencv_outputs(network, arrays, folder):
    """What OpenCV gives for the layers that no other reads, by name, through files written here."""
    write_prototxt(folder / "net.prototxt", network)
    write_caffemodel(folder / "net.caffemodel", network)
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    for name, array in arrays.items():
        net.setInput(np.ascontiguousarray(array), name)
    names = net.getUnconnectedOutLayersNames()
    return dict(zip(names, net.forward(names), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_layer(case, network_of, randomise, tmp_path):
    # OpenCV's reader does not take LRN's k from the file.
    network = network_of(HEAD + SINGLE_LAYERS[case].replace(" k: 2", ""))
    model = build_model(network)
    network = with_weights(network, randomise(model))
    rng = np.random.default_rng(3)
    arrays = {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.inputs}
    mine = model.run_caffe(arrays)["top"]
    (theirs,) = opencv_outputs(network, arrays, tmp_path).values()
    np.testing.assert_allclose(theirs.reshape(mine.shape), mine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [
    hed(), shared_convolutions("kernel_size: 3 dilation: 2 pad: 2"),
    shared_convolutions("kernel_h: 3 kernel_w: 3 dilation: 3 stride: 2 pad: 1"),
], ids=["five layers of one name", "two dilations", "two dilations and strides"])
def test_network(text, network_of, randomise, tmp_path):
    network = network_of(text, phase="TEST")
    extra = ("Reduction", "Silence", "SigmoidCrossEntropyLoss")
    image = network.inputs[0]
    layers = [Layer(image.name, "Input", (), (image.name,), InputParams((image.shape,)))]
    layers += [one for one in network.layers if one.type not in (*extra, "Input")]
    network = dataclasses.replace(network, layers=tuple(layers))
    model = build_model(network, blobs="all")
    network = with_weights(network, randomise(model))
    data = np.random.default_rng(3).normal(size=image.shape).astype(np.float32)
    mine = model.run_caffe({"data": data})
    found = opencv_outputs(network, {"data": data}, tmp_path)
    assert len(found) == 2
    for name, theirs in found.items():  # of a layer or of its blob
        expected = mine[name if name in mine else network.layer(name).tops[0]]
        np.testing.assert_allclose(theirs, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("net", ["narrow", "lin_bn"])
def test_trunk(net, tmp_path):
    network = read_network(GOLDEN / f"{net}_deploy.prototxt", GOLDEN / f"{net}_init.caffemodel")
    end = [layer.type for layer in network.layers].index("RandBI")
    canvas = Layer("data", "Input", (), ("data",), InputParams(((1, 3, 264, 248),)))
    trunk = [layer for layer in network.layers[:end] if layer.type != "Input"]
    network = dataclasses.replace(network, layers=(canvas, *trunk))
    data = np.random.default_rng(0).normal(0, 50, (1, 3, 264, 248)).astype(np.float32)
    mine = build_model(network, blobs="all").run_caffe({"data": data})
    found = opencv_outputs(network, {"data": data}, tmp_path)
    assert len(found) == {"narrow": 1, "lin_bn": 6}[net]
    for name, theirs in found.items():
        expected = mine[network.layer(name).tops[0]]
        np.testing.assert_allclose(theirs, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_old_classification_network(shared_caffe):
    """Both readers on the same file (the V1 one holds double_data, which OpenCV does not read)."""
    files = shared_caffe / "legacy_ip.prototxt", shared_caffe / "legacy_resaved_v2.caffemodel"
    data = np.random.default_rng(0).normal(0, 50, (1, 3, 224, 224)).astype(np.float32)
    mine = build_model(read_network(*files)).run_caffe({"data": data})["prob"]
    net = cv2.dnn.readNetFromCaffe(*map(str, files))
    net.setInput(data, "data")
    np.testing.assert_allclose(net.forward("prob"), mine, rtol=1e-4, atol=1e-6)
