import tracemalloc

import numpy as np
import pytest

from prototxt_import import CaffeFormatError, load_network

HEAD = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }\n'


def conv(name: str, extra: str = "", num_output: int = 2) -> str:
    settings = f"convolution_param {{ num_output: {num_output} kernel_size: 1 }}"
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "data" top: "{name}" '
        f"{settings} {extra} }}\n"
    )


@pytest.fixture
def blobs(encode):
    """Blobs of a 1x1 convolution from 3 to 2 channels."""
    return encode.blob((2, 3, 1, 1), range(6)), encode.blob((2,), (7, 8))


def test_weights_go_to_layers_of_the_same_name(write, encode, blobs):
    model = write(encode.conv_layer("a", *blobs) + encode.conv_layer("old", *blobs))
    network = load_network(write(HEAD + conv("a") + conv("new")), model)
    np.testing.assert_array_equal(
        network.layer("a").blobs[0], np.arange(6, dtype="f4").reshape(2, 3, 1, 1)
    )
    np.testing.assert_array_equal(network.layer("a").blobs[1], [7, 8])
    assert network.layer("a").line == 2
    assert network.layer("new").blobs == ()
    assert network.unmatched == ("old",)
    assert network.without_weights == ("new",)


def test_model_alone_describes_itself(write, encode, blobs):
    network = load_network(caffemodel=write(encode.conv_layer("a", *blobs)))
    layer = network.layer("a")
    assert layer.params.num_output == 2
    assert layer.line is None
    assert layer.blobs[0].dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        layer.blobs[0][0] = 1


def test_old_four_axis_blobs_take_their_layers_shape(write, encode):
    model = write(
        encode.conv_layer(
            "a",
            encode.legacy_blob((2, 3, 1, 1), range(6)),
            encode.legacy_blob((1, 1, 1, 2), (7, 8)),
        )
    )
    shapes = [blob.shape for blob in load_network(caffemodel=model).layer("a").blobs]
    assert shapes == [(2, 3, 1, 1), (2,)]


@pytest.mark.parametrize(
    ("prototxt_outputs", "text"),
    [(3, "blob 0 has the shape 2 x 3 x 1 x 1, but the layer's settings ask for 3 x any x 1 x 1")],
)
def test_weights_of_the_wrong_shape(write, encode, blobs, prototxt_outputs, text):
    model = write(encode.conv_layer("a", *blobs))
    with pytest.raises(CaffeFormatError, match=text) as caught:
        load_network(write(HEAD + conv("a", num_output=prototxt_outputs)), model)
    assert caught.value.path == str(model)


@pytest.mark.parametrize(("shape", "axes"), [((2, 3, 1), 1), ((2, 3, 1, 1, 1), 3)])
def test_weights_of_another_dimension_are_called_so(write, encode, shape, axes):
    kernel, bias = encode.blob(shape, range(6)), encode.blob((2,), (7, 8))
    with pytest.raises(CaffeFormatError, match=f"that of a {axes}-D convolution; only 2-D ones are "
                                               "supported$"):
        load_network(caffemodel=write(encode.conv_layer("a", kernel, bias)))


def test_wrong_number_of_blobs(write, encode, blobs):
    with pytest.raises(CaffeFormatError, match="needs 2 weight blobs, but the file holds 1"):
        load_network(caffemodel=write(encode.conv_layer("a", blobs[0])))
    empty = write(encode.conv_layer("a"), "empty.caffemodel")
    with pytest.raises(CaffeFormatError, match="the file holds none"):
        load_network(write(HEAD + conv("a")), empty)
    relu = 'layer { name: "a" type: "ReLU" bottom: "data" top: "a" }'
    full = write(encode.conv_layer("a", *blobs), "full.caffemodel")
    with pytest.raises(CaffeFormatError, match="has no weights, but the file holds 2"):
        load_network(write(HEAD + relu), full)


def test_duplicate_layers(write, encode, blobs):
    with pytest.raises(CaffeFormatError, match="the first on line 2") as e:
        load_network(write(HEAD + conv("a") + conv("a")))
    assert e.value.line == 3
    model = write(encode.conv_layer("a", *blobs) * 2)
    with pytest.raises(CaffeFormatError, match=r"called 'a'.*must be trained with a name for each"):
        load_network(caffemodel=model)
    with pytest.raises(CaffeFormatError, match="two layers with weights are called 'a'"):
        load_network(write(HEAD + conv("a")), model)


def test_nan_and_infinity_are_refused_unless_allowed(write, encode):
    for value in (float("nan"), float("inf")):
        bias = encode.blob((2,), (0, value))
        model = write(encode.conv_layer("a", encode.blob((2, 3, 1, 1), range(6)), bias))
        with pytest.raises(CaffeFormatError, match=r"layer 'a', blob 1: the weight at \(1,\) is"):
            load_network(caffemodel=model)
        assert not np.isfinite(
            load_network(caffemodel=model, allow_nan=True).layer("a").blobs[1]
        ).all()


def test_phases_levels_and_stages(write):
    text = (
        'layer { name: "d" type: "Data" top: "data" include { phase: TRAIN } }\n'
        'layer { name: "d" type: "MemoryData" top: "data" include { phase: TEST } }\n'
        'layer { name: "drop" type: "Dropout" bottom: "data" top: "data" '
        "exclude { phase: TEST } }\n"
        'layer { name: "deep" type: "ReLU" bottom: "data" top: "data" '
        'include { min_level: 2 max_level: 3 } include { stage: "x" not_stage: "y" } }\n'
    )
    path = write(text)

    def names(**state):
        return [(layer.name, layer.type) for layer in load_network(path, **state).layers]

    train, test = ("d", "Data"), ("d", "MemoryData")
    assert [name for name, _ in names()] == ["d", "d", "drop", "deep"]
    assert names(phase="TRAIN") == [train, ("drop", "Dropout")]
    assert names(phase="TEST") == [test]
    assert names(phase="TEST", level=2) == [test, ("deep", "ReLU")]
    assert names(phase="TEST", level=4) == [test]
    assert names(phase="TEST", stages=["x"]) == [test, ("deep", "ReLU")]
    assert names(phase="TEST", stages=["x", "y"]) == [test]
    with pytest.raises(CaffeFormatError, match="TRAIN, TEST or None, got 'DEPLOY'"):
        load_network(path, phase="DEPLOY")


def test_state_of_the_file_counts(write):
    text = (
        'state { level: 1 stage: "x" }\n' + HEAD + conv("a", 'include { stage: "x" min_level: 1 }')
    )
    assert [layer.name for layer in load_network(write(text), phase="TEST").layers] == ["in", "a"]


def test_include_and_exclude_together(write):
    text = HEAD + conv("a", "include { phase: TRAIN } exclude { phase: TEST }")
    with pytest.raises(CaffeFormatError, match="both include and exclude"):
        load_network(write(text))


def test_caffes_own_split_layers_are_no_loss(shared_caffe):
    network = load_network(
        shared_caffe / "narrow_deploy.prototxt",
        shared_caffe / "narrow_init.caffemodel",
        phase="TEST",
    )
    assert network.unmatched == ("loss_cls",)
    assert network.without_weights == ()
    assert network.layer("rand_concat").params.rates == (1, 2, 4, 8, 16, 224)
    assert network.layer("cls_score_new").blobs[0].shape == (4, 64)


def test_weights_are_held_once(write, encode):
    """The peak of a load is little more than the file: no second copy on the way."""
    weights = np.arange(8_000_000, dtype="<f4")
    settings = encode.field(117, encode.field(1, 2000) + encode.field(2, 0))
    head = encode.field(1, "fc") + encode.field(2, "InnerProduct") + settings
    header = encode.field(7, encode.field(1, encode.varint(2000) + encode.varint(4000)))
    blob = encode.field(7, header + encode.field(5, weights.tobytes()))
    path = write(encode.field(100, head + blob))
    tracemalloc.start()
    network = load_network(caffemodel=path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(network.layer("fc").blobs[0].ravel(), weights)
    assert peak < 1.1 * path.stat().st_size


def test_table(tiny_prototxt, tiny_model):
    text = str(load_network(tiny_prototxt, tiny_model))
    assert "network 'tiny': 7 layers, 140 weights" in text
    assert "inputs: data 1x3x8x9, pixels 5x3" in text
    row = next(line for line in text.splitlines() if " conv " in line)
    assert row.split() == [
        "1", "conv", "Convolution", "data", "->", "conv",
        "num_output=4", "kernel=3x3", "pad=1x1", "4x3x3x3,", "4",
    ]  # fmt: skip
    assert "rates=1,224" in text


def test_nothing_given():
    with pytest.raises(CaffeFormatError, match="give a prototxt, a caffemodel or both"):
        load_network()
