"""Files that are no models: each a clear error, quickly and without taking memory."""

import pickle
import time
import tracemalloc

import numpy as np
import pytest

from prototxt_import import CaffeFormatError, load_network, load_solver

STAND_INS = {
    "empty": (b"", "the file is empty"),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 553432081\n",
        "git lfs pull",
    ),
    "web page": (b"\n<!DOCTYPE html><html><head><title>404</title>", "web page"),
    "xml error of a bucket": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page"),
    "keras model": (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
    "gzip": (b"\x1f\x8b\x08\0" + b"\0" * 100, "gzip"),
    "numpy": (b"\x93NUMPY\x01\0" + b"\0" * 100, "numpy"),
}


@pytest.mark.parametrize("kind", STAND_INS)
def test_stand_ins_under_the_name_of_a_model(write, kind):
    content, text = STAND_INS[kind]
    path = write(content)
    for load in (
        lambda: load_network(path),
        lambda: load_network(caffemodel=path),
        lambda: load_solver(path),
    ):
        with pytest.raises(CaffeFormatError, match=text) as caught:
            load()
        assert str(caught.value).startswith(str(path))


def test_directory_missing_file_and_odd_names(tmp_path):
    for path, text in (
        (tmp_path, "directory"),
        (tmp_path / "none.caffemodel", "no such file"),
        (tmp_path / "none" / "x", "no such file"),
        ("a\0b", "cannot be read"),
    ):
        for kwargs in ({"prototxt": path}, {"caffemodel": path}):
            with pytest.raises(CaffeFormatError, match=text):
                load_network(**kwargs)


def test_files_taken_for_each_other(tiny_prototxt, tiny_model):
    with pytest.raises(CaffeFormatError, match="pass a binary model as caffemodel"):
        load_network(prototxt=tiny_model)
    with pytest.raises(CaffeFormatError, match="this is text, perhaps a prototxt"):
        load_network(caffemodel=tiny_prototxt)


def test_truncated_at_every_place(tiny_prototxt, tiny_model, write, encode):
    """Cut between two layers a model is a shorter model; the prototxt then tells."""
    data, refused, sound = tiny_model.read_bytes(), 0, 0
    for size in range(1, len(data)):
        path = write(data[:size], "cut.caffemodel")
        try:
            network = load_network(caffemodel=path)
        except CaffeFormatError as error:
            refused += str(path) in str(error)
            continue
        encode.walk(data[:size])  # raises unless the cut is between two fields
        assert len(network.layers) < 7
        sound += 1
    assert refused + sound == len(data) - 1
    assert sound == 6  # after each of the seven layers but the last


def test_golden_model_truncated_at_every_thousandth_byte(shared_caffe, write):
    start = time.perf_counter()
    for name in ("narrow_init.caffemodel", "legacy_v1.caffemodel"):
        data = (shared_caffe / name).read_bytes()
        for size in range(0, len(data), 1000):
            with pytest.raises(CaffeFormatError, match=r"damaged|empty"):
                load_network(caffemodel=write(data[:size]))
    assert time.perf_counter() - start < 60


def test_random_bytes(write):
    generator = np.random.default_rng(5)
    for size in (1, 2, 10, 100, 10_000, 1_000_000):
        for _ in range(20):
            path = write(generator.bytes(size), "random.caffemodel")
            with pytest.raises(CaffeFormatError):
                load_network(caffemodel=path)
            with pytest.raises(CaffeFormatError):
                load_network(path)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, 3, 1), "that is 6 values, but holds 4"),
        ((-4,), "-4.*, with a dimension below 1"),
        ((2**40,), "1,099,511,627,776 values, but holds 4"),
        ((2**40, 2**40, 2**40), "but holds 4"),
        ((0, 4), "below 1"),
    ],
)
def test_shapes_that_do_not_fit_take_no_memory(write, encode, shape, text):
    for make in (encode.blob, encode.legacy_blob):
        dims = shape if make is encode.blob else (*shape, 1, 1, 1, 1)[:4]
        path = write(encode.conv_layer("big", make(dims, (1, 2, 3, 4))))
        tracemalloc.start()
        with pytest.raises(CaffeFormatError, match=f"layer 'big', blob 0: .*{text}"):
            load_network(caffemodel=path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6


def test_lengths_past_the_end_take_no_memory(write, encode):
    for number in (1, 2, 3, 100):
        path = write(encode.varint(number * 8 + 2) + encode.varint(2**62) + b"ab")
        with pytest.raises(CaffeFormatError, match="but only 2 are left"):
            load_network(caffemodel=path)


def test_a_layer_described_without_end(write, encode):
    bottoms = encode.field(3, "b" * 1000) * 20_000
    with pytest.raises(CaffeFormatError, match="described by more than"):
        load_network(caffemodel=write(encode.field(100, bottoms)))


def test_hostile_text(write):
    for text in ("layer { " * 10_000, "a" * 100_000, '"' * 9999, "layer {} " * 2000, "[[[[", "\\"):
        with pytest.raises(CaffeFormatError):
            load_network(write(text))


def test_errors_survive_pickling():
    """An error of a worker process comes out with its place."""
    error = CaffeFormatError("what", "net.prototxt", 3, 4)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path, again.line) == ("net.prototxt:3:4: what", "net.prototxt", 3)


@pytest.mark.parametrize("name", [b"score", b"BatchNorm", b"conv"])
def test_a_name_that_is_no_text(name, tiny_model, write):
    """Protobuf hands the name of a layer, a type or a blob out as bytes then, which is no text."""
    damaged = bytearray(tiny_model.read_bytes())
    damaged[damaged.index(name) + 2] ^= 0x80
    with pytest.raises(CaffeFormatError, match="has a text that is no UTF-8"):
        load_network(caffemodel=write(bytes(damaged)))
