import dataclasses

import numpy as np
import pytest

from prototxt_import import (
    CaffeFormatError,
    GenericParams,
    Layer,
    Network,
    load_network,
    save_caffemodel,
    save_prototxt,
)


def assert_same(first: Network, second: Network) -> None:
    assert first.name == second.name
    assert len(first.layers) == len(second.layers)
    for a, b in zip(first.layers, second.layers, strict=True):
        for field in dataclasses.fields(Layer):
            if field.name not in ("blobs", "line"):
                assert getattr(a, field.name) == getattr(b, field.name), (a.name, field.name)
        assert len(a.blobs) == len(b.blobs)
        for x, y in zip(a.blobs, b.blobs, strict=True):
            assert x.shape == y.shape
            np.testing.assert_array_equal(x, y)


def test_round_trip(tiny_prototxt, tiny_model, tmp_path):
    network = load_network(tiny_prototxt, tiny_model)
    save_caffemodel(tmp_path / "out.caffemodel", network)
    save_prototxt(tmp_path / "out.prototxt", network)
    assert_same(load_network(caffemodel=tmp_path / "out.caffemodel"), network)
    again = load_network(tmp_path / "out.prototxt", tmp_path / "out.caffemodel")
    assert_same(again, network)
    assert again.unmatched == ()
    assert (tmp_path / "out.caffemodel").read_bytes() == tiny_model.read_bytes()


def test_bytes_follow_caffes_field_numbers(tiny_model, encode):
    net = encode.walk(tiny_model.read_bytes())
    assert [number for number, _ in net] == [1] + [100] * 7
    assert net[0][1] == b"tiny"
    layers = {}
    for _, layer in net[1:]:
        fields = encode.walk(layer)
        layers[dict(fields)[1].decode()] = fields
    conv = layers["conv"]
    assert dict(conv)[2] == b"Convolution"
    assert [value for number, value in conv if number == 3] == [b"data"]
    settings = encode.walk(dict(conv)[106])
    assert {(1, 4), (3, 1), (4, 3)} <= {(n, v) for n, v in settings if isinstance(v, int)}
    assert dict(encode.walk(dict(settings)[7]))[1] == b"xavier"
    weights, bias = (dict(encode.walk(value)) for number, value in conv if number == 7)
    assert dict(encode.walk(weights[7]))[1] == bytes([4, 3, 3, 3])
    np.testing.assert_array_equal(np.frombuffer(weights[5], "<f4"), np.arange(108))
    np.testing.assert_array_equal(np.frombuffer(bias[5], "<f4"), np.arange(4))
    second = [encode.walk(value) for number, value in conv if number == 6][1]
    assert dict(second) == {3: b"\0\0\0\x40", 4: b"\0\0\0\0"}  # lr_mult 2, decay_mult 0
    assert encode.walk(dict(layers["taps"])[150]) == [(1, 1), (1, 224), (2, 1)]
    assert encode.walk(dict(layers["norm"])[149]) == [(1, 0), (4, 0)]
    assert [number for number, _ in layers["bn"]].count(6) == 3
    scale = dict(encode.walk(dict(layers["norm"])[7]))
    assert scale[7] == b""  # a single number: a shape without axes
    assert scale[5] == b"\0\0\0\0"


def test_golden_models_round_trip_exactly(shared_caffe, tmp_path):
    for name in ("narrow_iter_5", "lin_bn_iter_5", "legacy_v1", "legacy_conv"):
        network = load_network(caffemodel=shared_caffe / f"{name}.caffemodel")
        save_caffemodel(tmp_path / name, network)
        assert_same(load_network(caffemodel=tmp_path / name), network)


def test_what_caffe_saved_is_saved_again_with_the_same_fields(shared_caffe, tmp_path, encode):
    """Field for field the description that Caffe wrote, apart from defaults it spelt out."""
    source = shared_caffe / "narrow_init.caffemodel"
    save_caffemodel(tmp_path / "out", load_network(caffemodel=source))
    before = [dict(encode.walk(v)) for n, v in encode.walk(source.read_bytes()) if n == 100]
    after = [
        dict(encode.walk(v)) for n, v in encode.walk((tmp_path / "out").read_bytes()) if n == 100
    ]
    assert len(before) == len(after) > 0
    for old, new in zip(before, after, strict=True):
        for number in (1, 2, 3, 4, 6, 7, 10, 106, 143, 150):
            old_value, new_value = old.get(number), new.get(number)
            if number == 7 and old_value:
                old_value, new_value = dict(encode.walk(old_value)), dict(encode.walk(new_value))
            elif number in (106, 117) and old_value:
                old_value = [
                    pair for pair in encode.walk(old_value) if pair in encode.walk(new_value)
                ]
                new_value = encode.walk(new_value)
            assert old_value == new_value, (old[1], number)


def test_settings_outside_the_schema_and_size_limit(tmp_path):
    layer = Layer("q", "Quux", ("a",), ("b",), GenericParams({"quux_param": {"x": 1}}))
    with pytest.raises(CaffeFormatError, match="quux_param"):
        save_caffemodel(tmp_path / "out", Network("n", (layer,)))
    huge = np.broadcast_to(np.float32(0), (1 << 29,))  # 2 GiB as a file, 4 bytes in memory
    layer = Layer("big", "Parameter", blobs=(huge,))
    with pytest.raises(CaffeFormatError, match="more than the 2,147,483,647 that Caffe reads"):
        save_caffemodel(tmp_path / "out", Network("n", (layer,)))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, tiny_model):
    target = tmp_path / "kept.caffemodel"
    target.write_bytes(b"old")

    class Broken:
        size, shape = 1, (1,)

        def __array__(self, *_args, **_kwargs):
            raise OSError("disk")

    layer = Layer("x", "Parameter", blobs=(Broken(),))
    with pytest.raises(CaffeFormatError, match="cannot be written"):
        save_caffemodel(target, Network("n", (layer,)))
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir() if "kept" in p.name) == ["kept.caffemodel"]


def test_writing_to_a_directory(tmp_path):
    with pytest.raises(CaffeFormatError, match="directory"):
        save_prototxt(tmp_path, Network("n", ()))
