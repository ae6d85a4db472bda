import pytest

from prototxt_import import CaffeFormatError, GenericParams, Input, load_network, save_prototxt

BODY = """layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }
"""
DIMS = 'input: "data" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5\n'
DIMS += 'input: "labels" input_dim: 6 input_dim: 1 input_dim: 1 input_dim: 1\n'
SHAPES = """input: "data"
input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }
input: "labels"
input_shape: { dim: [6, 1, 1, 1] }
"""
LAYERS = """layer {
  name: "in" type: "Input" top: "data" top: "labels"
  input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } shape { dim: 6 dim: 1 dim: 1 dim: 1 } }
}
"""


@pytest.mark.parametrize("head", [DIMS, SHAPES, LAYERS])
def test_three_spellings_of_inputs_are_one(write, head):
    network = load_network(write(head + BODY))
    assert network.inputs == (Input("data", (2, 3, 4, 5)), Input("labels", (6, 1, 1, 1)))
    assert [layer.type for layer in network.layers] == ["Input", "ReLU"]
    assert network.layers[1].is_in_place
    assert network.layers[1].line == head.count("\n") + 1


def test_one_shape_serves_all_tops(write):
    text = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 7 } } }'
    assert load_network(write(text)).inputs == (Input("a", (7,)), Input("b", (7,)))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ('input: "data" input_dim: 1\n', "1 inputs, but 1 input_dim"),
        ('input: "data"\n', "1 inputs, but 0 input_dim"),
        ('input: "a" input: "b" input_shape { dim: 1 }\n', "2 inputs, but 1 input_shape"),
        (LAYERS.replace("shape { dim: 6 dim: 1 dim: 1 dim: 1 }", "shape {} shape {}"), "got 3"),
        (LAYERS.replace("dim: 6", "dim: -6"), "outside 0 to"),
        (LAYERS.replace("dim: 6", f"dim: {2**40}"), "outside 0 to"),
    ],
)
def test_inputs_that_do_not_add_up(write, head, text):
    with pytest.raises(CaffeFormatError, match=text):
        load_network(write(head + BODY))


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (LAYERS + 'layer { name: "x" type: "ReLU" botom: "data" }', 5, 32),
        (LAYERS + 'layer { name: "x" name: "y" }', 5, 25),
        (LAYERS + 'layer {\n name: "c"\n convolution_param { num_output: -3 } }', 7, 34),
        (LAYERS + "layer {", 5, 8),
        ("layer }", 1, 7),
        ('name: "x', 1, 7),
    ],
)
def test_syntax_errors_have_line_and_column(write, text, line, column):
    path = write(text)
    with pytest.raises(CaffeFormatError, match="syntax error") as caught:
        load_network(path)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"{path}:{line}:{column}: ")


def test_unknown_type_keeps_settings_outside_the_schema(write, tmp_path):
    text = (
        LAYERS
        + BODY
        + (
            'layer {\n name: "roi" type: "ROIPooling" bottom: "data" top: "roi"\n'
            " roi_pooling_param { pooled_w: 7 scale: 0.0625 }\n power_param { power: 2 }\n}\n"
        )
    )
    network = load_network(write(text))
    layer = network.layer("roi")
    assert layer.type == "ROIPooling"
    assert layer.line == 6
    assert isinstance(layer.params, GenericParams)
    assert layer.params.raw == {
        "roi_pooling_param": {"pooled_w": 7, "scale": 0.0625},
        "power_param": {"power": 2.0},
    }
    with pytest.raises(CaffeFormatError, match=r"'roi' \(ROIPooling\) cannot be written"):
        save_prototxt(tmp_path / "out.prototxt", network)
    assert not (tmp_path / "out.prototxt").exists()


def test_errors_after_an_unknown_layer_keep_their_line(write):
    text = 'layer { name: "q" type: "Q"\n q_param {\n z: 1\n }\n}\nlayer { nme: "x" }\n'
    with pytest.raises(CaffeFormatError) as caught:
        load_network(write(text))
    assert caught.value.line == 6


def test_comments_in_an_old_encoding_and_windows_lines(write):
    data = b"\xef\xbb\xbf# caf\xe9 \xb2\xe2\r\n" + LAYERS.replace("\n", "\r\n").encode()
    network = load_network(write(data, "old.prototxt"))
    assert network.layers[0].line == 2


def test_weights_in_a_prototxt_are_left_out_with_a_note(write):
    text = LAYERS + 'layer { name: "s" type: "Scale" bottom: "data" blobs { data: 1 } }'
    network = load_network(write(text))
    assert network.layer("s").blobs == ()
    assert "left out" in network.notes[0]


def test_layer_name_unknown_lists_the_names(write):
    with pytest.raises(KeyError, match="there are in, relu"):
        load_network(write(LAYERS + BODY)).layer("conv9")
