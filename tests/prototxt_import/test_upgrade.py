import json
from pathlib import Path

import numpy as np
import pytest

from prototxt_import import CaffeFormatError, ParamSpec, load_network
from tests.tiny_network import V0

GOLDEN = Path(__file__).parents[1] / "golden" / "prototxt"


def check_as_caffe_upgraded(network, golden, with_blobs):
    """Compare with the dump of what Caffe's own upgrade left of the same file."""
    assert [layer.name for layer in network.layers] == [x["name"] for x in golden["layer"]]
    for layer, expected in zip(network.layers, golden["layer"], strict=True):
        assert layer.type == expected["type"]
        assert list(layer.bottoms) == expected["bottom"]
        assert list(layer.tops) == expected["top"]
        assert layer.param_specs == tuple(ParamSpec("", **spec) for spec in expected["param"])
        if with_blobs:
            assert len(layer.blobs) == len(expected["blobs"])
            for blob, dims in zip(layer.blobs, expected["blobs"], strict=True):
                axes = [dims[name] for name in ("num", "channels", "height", "width")]
                assert (1,) * (4 - blob.ndim) + blob.shape == tuple(axes)
                assert blob.size == dims["data"] + dims["double_data"]


def test_v1_text_becomes_what_caffe_makes_of_it():
    golden = json.loads((GOLDEN / "legacy_upgraded.json").read_text())
    network = load_network(GOLDEN / "legacy_v1_shortened.prototxt")
    check_as_caffe_upgraded(network, golden, with_blobs=False)
    assert network.inputs == (("data", (1, 3, 224, 224)),)
    assert network.layer("drop6").params.dropout_ratio == 0.5
    assert network.layer("conv1_1").params.pad == (1, 1)
    assert network.layer("conv1_1").line == 2


def test_v1_binary_exactly(shared_caffe):
    golden = json.loads((GOLDEN / "legacy_upgraded.json").read_text())
    network = load_network(caffemodel=shared_caffe / "legacy_v1.caffemodel")
    check_as_caffe_upgraded(network, golden, with_blobs=True)
    resaved = load_network(caffemodel=shared_caffe / "legacy_resaved_v2.caffemodel")
    with np.load(shared_caffe / "legacy.npz") as arrays:
        for key in arrays.files:
            if key.startswith("param/"):
                _, name, index = key.split("/")
                for source in (network, resaved):
                    found = source.layer(name).blobs[int(index)]
                    assert found.shape == arrays[key].shape
                    np.testing.assert_array_equal(found, arrays[key])


def test_inner_product_as_convolution_exactly(shared_caffe):
    stem = shared_caffe / "legacy_conv"
    network = load_network(stem.with_suffix(".prototxt"), stem.with_suffix(".caffemodel"))
    assert network.unmatched == ()
    assert network.without_weights == ()
    with np.load(shared_caffe / "legacy.npz") as arrays:
        for name in ("fc6_conv", "fc7_conv"):
            np.testing.assert_array_equal(
                network.layer(name).blobs[0], arrays[f"conv_kernel/{name}"]
            )


def test_v0_text(write):
    network = load_network(write(V0))
    names = ["input", "conv1", "pool1", "norm1", "cat", "fc", "drop", "loss"]
    assert [layer.name for layer in network.layers] == names
    conv = network.layer("conv1")
    assert conv.bottoms == ("data",)  # the padding layer is folded in
    assert (conv.params.pad, conv.params.kernel, conv.params.stride) == ((2, 2), (5, 5), (2, 2))
    assert conv.params.bias_term is False
    assert (conv.params.weight_filler.std, conv.params.weight_filler.sparse) == (0.01, 3)
    assert conv.param_specs == (ParamSpec("", 1.0, 0.5),)
    assert conv.line == 8
    assert network.layer("pool1").params.pool == "AVE"
    assert network.layer("norm1").params.local_size == 3
    assert network.layer("cat").params.axis == 0
    assert network.layer("fc").params.num_output == 7
    assert network.layer("drop").params.dropout_ratio == 0.25
    assert network.layer("loss").type == "SoftmaxWithLoss"
    assert any("dropout_ratio does not belong to type 'conv'" in note for note in network.notes)


def test_v0_binary_with_blobs(write, encode):
    values = np.arange(12, dtype="f4")
    old = encode.field(1, "fc") + encode.field(2, "innerproduct") + encode.field(3, 3)
    old += encode.field(50, encode.legacy_blob((1, 1, 3, 4), values))
    old += encode.field(50, encode.legacy_blob((1, 1, 1, 3), values[:3]))
    layer = encode.field(1, old) + encode.field(2, "data") + encode.field(3, "fc")
    data = encode.field(3, "data") + b"".join(encode.field(4, n) for n in (1, 4, 1, 1))
    network = load_network(caffemodel=write(data + encode.field(2, layer)))
    weights, bias = network.layer("fc").blobs
    np.testing.assert_array_equal(weights, values.reshape(3, 4))
    np.testing.assert_array_equal(bias, values[:3])


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('type: "pool" pool', 'type: "puddle" pool', "unknown V0 type 'puddle'"),
        ('bottom: "conv1" top', 'bottom: "conv9" top', "unknown blob 'conv9'"),
        ('type: "conv"', 'type: "relu"', "must stand between"),
    ],
)
def test_v0_that_caffe_refuses(write, old, new, text):
    assert old in V0
    with pytest.raises(CaffeFormatError, match=text) as caught:
        load_network(write(V0.replace(old, new)))
    assert caught.value.line


def test_v1_data_settings_move_to_the_transformation(write):
    text = """layers { name: "d" type: IMAGE_DATA top: "data" top: "label"
      image_data_param { source: "list.txt" batch_size: 5 scale: 0.5 crop_size: 224 mirror: true
                         mean_file: "mean" } }"""
    params = load_network(write(text)).layer("d").params
    assert (params.scale, params.crop_size, params.mirror) == (0.5, 224, True)
    assert (params.mean_file, params.batch_size) == ("mean", 5)


def test_v1_shared_parameters_and_rules(write):
    text = """layers { name: "a" type: INNER_PRODUCT bottom: "data" top: "a"
      include { phase: TRAIN } param: "w" param: "b" blob_share_mode: PERMISSIVE blobs_lr: 3
      inner_product_param { num_output: 2 } loss_weight: 0.5 }"""
    layer = load_network(write(text)).layer("a")
    assert layer.param_specs == (ParamSpec("w", 3.0, 1.0, "PERMISSIVE"), ParamSpec("b"))
    assert layer.include[0].phase == "TRAIN"
    assert layer.loss_weights == (0.5,)


def test_v1_without_type_names_the_types(write):
    with pytest.raises(CaffeFormatError, match="expected one of NONE"):
        load_network(write('layers { name: "a" bottom: "data" }'))


@pytest.mark.parametrize("specs", ["", "param { lr_mult: 0 } " * 3, "param { lr_mult: 1 }"])
def test_statistics_of_batch_norm_are_never_trained(write, specs):
    text = f'layer {{ name: "bn" type: "BatchNorm" bottom: "a" top: "b" {specs} }}'
    layer = load_network(write(text)).layer("bn")
    assert [spec.lr_mult for spec in layer.param_specs] == [0.0, 0.0, 0.0]
