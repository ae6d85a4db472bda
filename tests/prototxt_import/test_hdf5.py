import builtins
import dataclasses

import numpy as np
import pytest

from prototxt_import import CaffeFormatError, load_network, save_caffemodel

h5py = pytest.importorskip("h5py")


def test_round_trip(tiny_prototxt, tiny_model, tmp_path):
    network = load_network(tiny_prototxt, tiny_model)
    path = tmp_path / "out.caffemodel.h5"
    save_caffemodel(path, network)
    with h5py.File(path) as file:
        assert sorted(file["data"]) == sorted(layer.name for layer in network.layers)
        assert file["data/conv/0"].dtype == np.dtype("<f4")
    again = load_network(tiny_prototxt, path)
    for a, b in zip(network.layers, again.layers, strict=True):
        assert len(a.blobs) == len(b.blobs)
        for x, y in zip(a.blobs, b.blobs, strict=True):
            assert x.shape == y.shape
            np.testing.assert_array_equal(x, y)


def test_file_that_caffe_wrote(shared_caffe):
    prototxt = shared_caffe / "narrow_train.prototxt"
    binary = load_network(prototxt, shared_caffe / "narrow_init.caffemodel")
    hdf5 = load_network(prototxt, shared_caffe / "narrow_init.caffemodel.h5")
    assert hdf5.unmatched == binary.unmatched == ()
    count = 0
    for a, b in zip(binary.layers, hdf5.layers, strict=True):
        for x, y in zip(a.blobs, b.blobs, strict=True):
            np.testing.assert_array_equal(x, y)
            count += 1
    assert count == 36


def test_shared_blobs_stand_once_in_the_file(write, tmp_path):
    layer = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "data" top: "{0}" param {{ name: "w" }} '
        "inner_product_param {{ num_output: 2 bias_term: false }} }}\n"
    )
    prototxt = write(layer.format("a") + layer.format("b"))
    weights = np.arange(6, dtype="f4").reshape(2, 3)
    network = load_network(prototxt)
    layers = tuple(dataclasses.replace(layer, blobs=(weights,)) for layer in network.layers)
    path = tmp_path / "shared.h5"
    save_caffemodel(path, dataclasses.replace(network, layers=layers))
    with h5py.File(path) as file:
        assert list(file["data/a"]) == ["0"]
        assert list(file["data/b"]) == []
    again = load_network(prototxt, path)
    np.testing.assert_array_equal(again.layer("b").blobs[0], weights)


def test_needs_a_prototxt(tiny_prototxt, tiny_model, tmp_path):
    path = tmp_path / "out.h5"
    save_caffemodel(path, load_network(tiny_prototxt, tiny_model))
    with pytest.raises(CaffeFormatError, match="give its prototxt too"):
        load_network(caffemodel=path)


def test_other_hdf5_files(tiny_prototxt, tmp_path):
    path = tmp_path / "other.h5"
    cases = (
        (lambda f: f.create_dataset("x", data=[1.0]), "no group `data`"),
        (lambda f: f.create_dataset("data/conv/0", data=[1]), "no array of floats"),
        (lambda f: f.create_dataset("data/conv/1", data=[1.0]), "are not all there"),
        (
            lambda f: f.create_dataset("data/conv/0", (2**40,), "f4", chunks=(1024,)),
            "does not fit the file's size",
        ),
        (lambda f: f.create_dataset("data/conv/0", data=[np.nan]), "is nan"),
        (lambda f: f.create_dataset("data/conv/0", data=[1e300]), "is inf"),
    )
    for fill, text in cases:
        with h5py.File(path, "w") as file:
            fill(file)
        with pytest.raises(CaffeFormatError, match=text):
            load_network(tiny_prototxt, path)


def test_truncated_file(tiny_prototxt, tiny_model, tmp_path):
    whole, part = tmp_path / "whole.h5", tmp_path / "part.h5"
    save_caffemodel(whole, load_network(tiny_prototxt, tiny_model))
    data = whole.read_bytes()
    for size in range(8, len(data), 1000):
        part.write_bytes(data[:size])
        with pytest.raises(CaffeFormatError, match="damaged"):
            load_network(tiny_prototxt, part)


def test_without_h5py_the_error_says_what_to_install(
    tiny_prototxt, tiny_model, tmp_path, monkeypatch
):
    path = tmp_path / "out.h5"
    save_caffemodel(path, load_network(tiny_prototxt, tiny_model))
    original = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(CaffeFormatError, match="pip install h5py"):
        load_network(tiny_prototxt, path)
