"""Networks made to take memory or time without bound: refused before they are built."""

import re
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import pixelnet_tf.caffe.import_pixelnet as importing
import pixelnet_tf.caffe.parity as parity
from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.import_pixelnet import import_pixelnet
from pixelnet_tf.caffe.parity import compare_with_golden
from pixelnet_tf.caffe.weights import MatchRow, MatchTable, names_in_files
from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ConfigError, DataError, ModelError, nearest_hint
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet

pytestmark = pytest.mark.no_cover
GOLDEN = Path(__file__).parents[1] / "golden"
NARROW = {"widths": (2, 3, 4, 4, 4), "fc_width": 3, "head_widths": (5, 6)}
INPUT = 'input: "data" input_dim: 1 input_dim: {} input_dim: {} input_dim: 8\n'


@pytest.mark.parametrize("form", [
    {}, {"fc7": "none"}, {"fc7": "aligned", "batch_norm": True}, {"head": "linear"}], ids=str)
def test_the_shapes_of_an_architecture_are_those_of_its_network(form):
    config = ModelConfig(**NARROW | form)
    model = PixelNet(config, 2, 3, seed=0)
    shapes = Architecture.of(config, 3).blob_shapes(2)
    assert shapes == {name: tuple(blob.shape for blob in get_blobs(layer))
                      for name, layer in model.parts.items() if layer.weights}


@pytest.mark.parametrize("layer", ["fc6_new", "fc7_new", "fc6_conv", "fc7_conv"])
def test_what_the_weights_lack_is_said_before_a_network_is_built(layer, tmp_path, monkeypatch):
    """The prototxt has a layer by another of its names than the weights, and wide."""
    before, _, after = (GOLDEN / "narrow_deploy.prototxt").read_text().partition(
        f'name: "{layer}"')
    wide = tmp_path / "wide.prototxt"
    wide.write_text(before + f'name: "{names_in_files(layer)[1]}"'
                    + re.sub(r"num_output: \d+", "num_output: 20000", after, count=1))
    monkeypatch.setattr(importing, "PixelNet", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(ModelError, match=rf"layer '{layer}' is missing|needs \(20000"):
        import_pixelnet(wide, GOLDEN / "narrow_init.caffemodel")


def test_a_form_that_the_model_cannot_have_is_the_file_s_fault(tmp_path):
    """Exit code 4, as for all that is wrong with a model; the border is an option's."""
    model = GOLDEN / "narrow_init.caffemodel"
    text = (GOLDEN / "narrow_deploy.prototxt").read_text()
    assert "dropout_ratio: 0.5" in text
    (tmp_path / "net.prototxt").write_text(text.replace("dropout_ratio: 0.5", "dropout_ratio: 4"))
    with pytest.raises(ModelError, match="cannot have this form: model"):
        import_pixelnet(tmp_path / "net.prototxt", model)
    with pytest.raises(ConfigError, match=r"model\.border"):
        import_pixelnet(GOLDEN / "narrow_deploy.prototxt", model, border=-1)


@pytest.mark.parametrize("layer", [
    "InnerProduct\" inner_product_param { num_output: 2000000",
    "Convolution\" convolution_param { num_output: 70000 kernel_size: 40",
    "Deconvolution\" convolution_param { num_output: 70000 kernel_size: 40",
    "Embed\" embed_param { num_output: 20000 input_dim: 20000",
    "PReLU\" prelu_param {",
    "BatchNorm\" batch_norm_param {",
], ids=lambda layer: layer.partition('"')[0])
def test_new_weights_have_a_limit(layer, network_of):
    channels = 250_000_000 if layer.startswith(("PReLU", "BatchNorm")) else 3
    network = network_of(INPUT.format(channels, 8)
                         + f'layer {{ name: "a" bottom: "data" top: "a" type: "{layer} }} }}')
    with pytest.raises(ModelError, match=r"layer 'a' .* weights that are in no file"):
        build_model(network)


def test_a_chain_too_long_for_keras_is_an_error_of_ours(network_of, request):
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(400)
    chain = "".join(f'layer {{ name: "r{i}" type: "AbsVal" bottom: "r{i - 1}" top: "r{i}" }}\n'
                    for i in range(1, 500))
    with pytest.raises(ModelError, match="chain of its 500 layers"):
        build_model(network_of(INPUT.format(3, 8).replace("data", "r0") + chain))


def test_channels_are_found_in_time_however_many_ways_lead_to_them(network_of):
    """Two ways a step: 2^40 ways to the layer that knows."""
    text = 'layer { name: "d" type: "Data" top: "a0" }\n'
    for i in range(40):
        text += "".join(f'layer {{ name: "{way}{i}" type: "AbsVal" bottom: "a{i}" '
                        f'top: "{way}{i}" }}\n' for way in "xy")
        text += (f'layer {{ name: "e{i}" type: "Eltwise" bottom: "x{i}" bottom: "y{i}" '
                 f'top: "a{i + 1}" }}\n')
    start = time.process_time()
    model = build_model(network_of(text))
    assert model.input["a0"].shape[-1] == 3
    assert time.process_time() - start < 5


def test_a_golden_file_unpacks_to_a_stated_size(tmp_path, monkeypatch):
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, data=np.zeros(2 << 20, np.uint8))
    monkeypatch.setattr(parity, "_SMALL_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"unpacks to 2,\d+,\d+ bytes, more than the 1,048,576"):
        compare_with_golden(GOLDEN / "narrow_deploy.prototxt", GOLDEN / "narrow_init.caffemodel",
                            path)


def test_a_long_name_widens_no_table(network_of):
    """A row for each of 2,000 layers, one of which has a name of a megabyte."""
    chain = "".join(f'layer {{ name: "r{i}" type: "AbsVal" bottom: "r{i - 1}" top: "r{i}" }}\n'
                    for i in range(1, 2000))
    network = network_of(INPUT.format(3, 8).replace("data", "r0")
                         + chain.replace('"r5"', f'"{"x" * 1_000_000}"', 1))
    assert 1_000_000 < len(str(network)) < 3_000_000
    rows = tuple(MatchRow("a", name, "matched") for name in ("x" * 1_000_000, *"y" * 2000))
    assert len(str(MatchTable(rows))) < 2_000_000


def test_a_long_name_is_no_slip_of_a_short_one():
    start = time.process_time()
    assert nearest_hint("ab" * 50_000, ["ba" * 50_000, "ab"]) == ""
    assert nearest_hint("kernal", ["kernel", "ab" * 50_000]) == " (did you mean 'kernel'?)"
    assert time.process_time() - start < 1
