"""Caffe weights into the project's model: names, conversions, channels, refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.import_pixelnet import import_pixelnet, pixelnet_form
from pixelnet_tf.caffe.reading import read_network, write_caffemodel
from pixelnet_tf.caffe.weights import fit_channels, load_caffe_weights, load_caffemodel
from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import (
    ConvolutionParams,
    InnerProductParams,
    Layer,
    Network,
    NoParams,
    ReLUParams,
)

GOLDEN = Path(__file__).parents[1] / "golden"
NARROW = (GOLDEN / "narrow_deploy.prototxt", GOLDEN / "narrow_init.caffemodel")
WIDTHS = (2, 2, 3, 3, 4)
SMALL = ModelConfig(widths=WIDTHS, fc_width=5, head_widths=(6, 6), border=100)


def vgg(inner_product: bool = True, fully_connected: bool = True, channels: int = 3) -> Network:
    """A narrow VGG-16 with random weights."""
    rng = np.random.default_rng(0)

    def layer(name, kind, params, *shapes):
        blobs = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
        return Layer(name, kind, ("x",), ("x",), params, blobs)

    layers, depth = [], channels
    for block, (count, width) in enumerate(zip((2, 2, 3, 3, 3), WIDTHS, strict=True), start=1):
        for i in range(1, count + 1):
            params = ConvolutionParams(width, (3, 3), pad=(1, 1))
            layers.append(
                layer(f"conv{block}_{i}", "Convolution", params, (width, depth, 3, 3), (width,))
            )
            depth = width
    if fully_connected and inner_product:
        layers += [
            layer("fc6", "InnerProduct", InnerProductParams(5), (5, 4 * 49), (5,)),
            layer("fc7", "InnerProduct", InnerProductParams(5), (5, 5), (5,)),
            layer("fc8", "InnerProduct", InnerProductParams(1000), (1000, 5), (1000,)),
        ]
    elif fully_connected:
        layers += [
            layer("fc6_conv", "Convolution", ConvolutionParams(5, (7, 7)), (5, 4, 7, 7), (5,)),
            layer("fc7_conv", "Convolution", ConvolutionParams(5, (1, 1)), (5, 5, 1, 1), (5,)),
        ]
    return Network("vgg", tuple(layers))


def without(network: Network, *names: str) -> Network:
    layers = tuple(layer for layer in network.layers if layer.name not in names)
    return dataclasses.replace(network, layers=layers)


def with_blobs(network: Network, name: str, blobs) -> Network:
    layers = tuple(
        dataclasses.replace(layer, blobs=tuple(blobs)) if layer.name == name else layer
        for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers)


def status(table) -> dict[str, str]:
    return {row.layer or row.source: row.status for row in table.rows}


@pytest.mark.parametrize("net", ["narrow", "lin_bn"])
def test_pixelnet_gives_the_scores_of_caffe(net):
    model, table = import_pixelnet(
        GOLDEN / f"{net}_deploy.prototxt", GOLDEN / f"{net}_init.caffemodel"
    )
    with np.load(GOLDEN / f"{net}.npz") as file:
        image = file["even/image_rgb_uint8"][..., ::-1].astype(np.float32) - file["mean_bgr"]
        pixels = file["even/pixels"] - np.float32([0, 100, 100])
        expected = file["even/blob/fc8_new"]
    scores = model([image, pixels], training=False).numpy()
    assert np.abs(scores - expected).max() <= 2e-5 * np.abs(expected).max()
    assert set(status(table).values()) <= {"matched", "left out"}
    assert not table.new_layers
    assert model.config.head == ("mlp" if net == "narrow" else "linear")
    assert model.config.batch_norm == (net == "lin_bn")
    assert (model.channels, model.classes) == (3, 4)


def test_the_description_inside_a_caffemodel_is_enough():
    with_prototxt, _ = import_pixelnet(*NARROW)
    alone, _ = import_pixelnet(None, NARROW[1])
    # The file is of the training network, whose dropout is 0 for the golden numbers.
    assert dataclasses.replace(alone.config, dropout=0.5) == with_prototxt.config
    for name, layer in alone.parts.items():
        for mine, theirs in zip(layer.weights, with_prototxt.parts[name].weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_scores_of_another_number_of_classes_are_left_out():
    model, table = import_pixelnet(*NARROW, classes=7)
    row = next(row for row in table.rows if row.layer == "cls_score_new")
    assert (row.status, row.detail) == ("left out", "4 classes in the file, 7 here")
    assert table.new_layers == {"cls_score_new"}
    assert model.output.shape == (None, 7)


def test_classification_vgg_becomes_the_trunk():
    network = vgg()
    model = PixelNet(SMALL, 3, 2, seed=0)
    table = load_caffe_weights(model, network)
    found = status(table)
    assert [found[n] for n in ("conv1_1", "conv5_3", "fc6_conv", "fc7_conv", "fc8", "fc6_new")] == [
        "matched", "matched", "converted", "converted", "left out", "not in the file"]
    kernel = model.parts["fc6_conv"].kernel.numpy()
    matrix = network.layer("fc6").blobs[0]
    # Column c * 49 + y * 7 + x of Caffe's matrix.
    assert kernel[2, 3, 1, 4] == matrix[4, 1 * 49 + 2 * 7 + 3]
    np.testing.assert_array_equal(model.parts["fc7_conv"].kernel[0, 0], network.layer("fc7")
                                  .blobs[0].T)
    text = str(table)
    assert "matrix to convolution" in text
    assert "12 matched" not in text
    assert "13 matched, 2 converted, 1 left out, 3 not in the file" in text


def test_convolutional_vgg_and_convolutions_alone():
    model = PixelNet(SMALL, 3, 2, seed=0)
    found = status(load_caffe_weights(model, vgg(inner_product=False)))
    assert found["fc6_conv"] == found["fc7_conv"] == "matched"
    found = status(load_caffe_weights(model, vgg(fully_connected=False)))
    assert found["fc6_conv"] == "not in the file"
    assert found["conv5_3"] == "matched"


def changed(network: Network, name: str, **settings) -> Network:
    layers = tuple(
        dataclasses.replace(layer, params=dataclasses.replace(layer.params, **settings))
        if layer.name == name else layer for layer in network.layers
    )
    return dataclasses.replace(network, layers=layers)


def test_trunks_of_networks_that_were_made_of_vgg(tmp_path):
    """FCN pads its image by 100 in conv1_1; DeepLab dilates conv5 and has a smaller fc6."""
    rng = np.random.default_rng(1)
    score = Layer("score_fr", "Convolution", ("x",), ("x",), ConvolutionParams(21, (1, 1)),
                  (np.zeros((21, 5, 1, 1), np.float32), np.zeros(21, np.float32)))
    plain = vgg(inner_product=False)
    fcn = changed(dataclasses.replace(plain, layers=(*plain.layers, score)), "conv1_1",
                  pad=(100, 100))
    deeplab = changed(plain, "conv5_3", pad=(2, 2), dilation=(2, 2))
    deeplab = with_blobs(changed(deeplab, "fc6_conv", kernel=(3, 3), pad=(12, 12)), "fc6_conv",
                         [rng.normal(size=(5, 4, 3, 3)).astype(np.float32), np.zeros(5, "f4")])
    for network, name, detail, fc7 in (
        (fcn, "conv1_1", "pad 100 in the file, 1 here", "faithful"),
        (deeplab, "conv5_3", "pad 2 in the file, 1 here; dilation 2 in the file, 1 here", "none"),
    ):
        path = tmp_path / "vgg.caffemodel"
        write_caffemodel(path, network)
        model, table = import_pixelnet(None, path, classes=2)
        assert model.config.fc7 == fc7
        row = next(row for row in table.rows if row.layer == name)
        assert (row.status, row.detail) == ("matched", detail)
        for layer in network.layers[:13]:
            np.testing.assert_array_equal(get_blobs(model.parts[layer.name])[0], layer.blobs[0])
    # A PixelNet is read as it is: there a padding of 100 is another network.
    with pytest.raises(ModelError, match=r"'conv1_1' .* 3x3 convolution with padding 1"):
        import_pixelnet(prototxt_with(tmp_path, ("pad: 1 }", "pad: 100 }")), NARROW[1])


def test_refusals_of_large_networks_are_short(tmp_path):
    layers = [Layer(f"layer{i}", "InnerProduct", params=InnerProductParams(1),
                    blobs=(np.zeros((1, 1), "f4"), np.zeros(1, "f4"))) for i in range(200)]
    path = tmp_path / "deep.caffemodel"
    write_caffemodel(path, Network("deep", tuple(layers)))
    for load in (lambda: import_pixelnet(None, path),
                 lambda: load_caffemodel(PixelNet(SMALL, 3, 2, seed=0), path),
                 lambda: load_caffe_weights(PixelNet(SMALL, 3, 2, seed=0),
                                            read_network(None, path))):
        with pytest.raises(ModelError, match=r"layer9, \.\.\. \(200 in all\)") as caught:
            load()
        assert len(str(caught.value)) < 400


def test_other_numbers_of_channels():
    kernel = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1)
    np.testing.assert_allclose(fit_channels(kernel, 4)[:, :, 0, 0],
                               [[1 * 3 / 4] * 4, [4 * 3 / 4] * 4])
    np.testing.assert_allclose(fit_channels(kernel, 6, "repeat")[0, :, 0, 0],
                               np.float32([0, 1, 2, 0, 1, 2]) / 2)
    kept = fit_channels(kernel, 5, "keep")[:, :, 0, 0]
    np.testing.assert_array_equal(kept, [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0]])
    # There is nothing to keep in fewer channels.
    np.testing.assert_array_equal(fit_channels(kernel, 2, "keep"), fit_channels(kernel, 2))
    for channels, rule in ((1, "average"), (4, "average"), (6, "repeat")):
        # An image with equal channels gives the response that it gave.
        turned = fit_channels(kernel, channels, rule)
        np.testing.assert_allclose(turned.sum(1), kernel.sum(1), rtol=1e-6)
    model = PixelNet(SMALL, 4, 2, seed=0)
    table = load_caffe_weights(model, vgg())
    assert table.rows[0].detail == "3 channels to 4 by average"
    kernel = vgg().layers[0].blobs[0]
    load_caffe_weights(model, vgg(), channel_rule="keep")
    np.testing.assert_array_equal(model.parts["conv1_1"].kernel.numpy()[:, :, 3], 0)
    # A layer that mixes four modalities leaves the file's kernel as it is.
    mixing = PixelNet(dataclasses.replace(SMALL, mix_channels=True), 4, 2, seed=0)
    table = load_caffe_weights(mixing, vgg())
    assert {"mix_channels", "fc6_new"} < table.new_layers
    np.testing.assert_array_equal(mixing.parts["conv1_1"].kernel,
                                  kernel.transpose(2, 3, 1, 0))
    with pytest.raises(ModelError, match="channel_rule must be one of"):
        load_caffe_weights(model, vgg(), channel_rule="mean")


def test_start_weights_from_a_file(tmp_path):
    path = tmp_path / "vgg.caffemodel"
    write_caffemodel(path, vgg())
    model = PixelNet(SMALL, 3, 2, seed=0)
    table = load_caffemodel(model, path)
    assert len(table.loaded) == 15
    assert table.new_layers == {"fc6_new", "fc7_new", "cls_score_new"}
    np.testing.assert_array_equal(
        read_network(None, path).layer("conv1_1").blobs[1], model.parts["conv1_1"].bias
    )


def test_what_is_refused(tmp_path):
    model = PixelNet(SMALL, 3, 2, seed=0)
    network = vgg()
    bias = network.layer("conv2_1").blobs[1]
    with pytest.raises(ModelError, match=r"'conv2_1'.*\(2, 2, 5, 5\).*needs \(2, 2, 3, 3\)"):
        load_caffe_weights(model, with_blobs(network, "conv2_1",
                                             [np.zeros((2, 2, 5, 5), np.float32), bias]))
    with pytest.raises(ModelError, match="has 2 weight blobs, got 1"):
        load_caffe_weights(model, with_blobs(network, "conv2_1", network.layer("conv2_1")
                                             .blobs[:1]))
    with pytest.raises(ModelError, match=r"matrix \(5, 100\) does not make the kernel"):
        load_caffe_weights(model, with_blobs(network, "fc6", [np.zeros((5, 100), np.float32),
                                                              np.zeros(5, np.float32)]))
    path = tmp_path / "vgg.caffemodel"
    write_caffemodel(path, without(network, "conv3_2"))
    with pytest.raises(ModelError, match=r"vgg.caffemodel: layer 'conv3_2' is missing"):
        load_caffemodel(model, path)
    strange = Network("x", (Layer("a", "InnerProduct", params=InnerProductParams(1),
                                  blobs=(np.zeros((1, 1), np.float32),)),))
    with pytest.raises(ModelError, match="no layer with weights has a name"):
        load_caffe_weights(model, strange)
    write_caffemodel(path, network)
    with pytest.raises(ModelError, match="--classes"):
        import_pixelnet(None, path)


def prototxt_with(tmp_path, *changes: tuple[str, str]) -> Path:
    text = NARROW[0].read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "changed.prototxt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("compression_rate: 224", "compression_rate: 64"), "rates .*64.*RandBI|RandBI.*rates"),
        (("compression_rate: 224", "compression_rate: 32"), "goes with fc6 padded by 3"),
        (("{ pad: true", "{ pad: false"), "pad False"),
        (('bottom: "conv4_3"\n  bottom: "conv5_3"', 'bottom: "conv5_3"\n  bottom: "conv4_3"'),
         "reads 'conv5_3' where the project's model has 'conv4_3'"),
        (('name: "relu7"\n  type: "ReLU"', 'name: "relu7"\n  type: "TanH"'), "ReLU each"),
    ],
)
def test_forms_that_are_not_covered(change, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        import_pixelnet(prototxt_with(tmp_path, change), NARROW[1])


@pytest.mark.parametrize("name", ["fc7", "fc7_conv"])
def test_a_layer_without_outputs_under_the_name_of_one_with_them_is_refused(name):
    network = vgg(fully_connected=False)
    strange = Layer(name, "ReLU", ("x",), ("x",), ReLUParams())
    with pytest.raises(ModelError, match=rf"layer '{name}' \(type ReLU\) is no convolution"):
        pixelnet_form(dataclasses.replace(network, layers=(*network.layers, strange)))


def test_networks_that_are_no_pixelnet(tmp_path):
    rows = Layer("x", "ReLU", ("a",), ("a",), NoParams())
    path = tmp_path / "none.caffemodel"
    write_caffemodel(path, Network("none", (rows,)))
    with pytest.raises(ModelError, match="layer 'conv1_1' is missing"):
        import_pixelnet(None, path)
