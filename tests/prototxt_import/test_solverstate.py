"""A solver's state against Caffe's own files and against bytes written by hand."""

import contextlib

import numpy as np
import pytest

from prototxt_import import (
    CaffeFormatError,
    SolverState,
    load_network,
    load_solverstate,
    save_solverstate,
)

h5py = pytest.importorskip("h5py")
STATE = SolverState(
    5, "some/where/net_iter_5.caffemodel",
    (np.arange(6, dtype=np.float32).reshape(2, 3), np.float32([7, -8]), np.float32(0.5)), 2)


def assert_same(one: SolverState, other: SolverState) -> None:
    assert (one.iter, one.learned_net, one.current_step) == (
        other.iter, other.learned_net, other.current_step)
    assert len(one.history) == len(other.history)
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == np.float32
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["net.solverstate", "net.solverstate.h5"])
def test_written_and_read(name, tmp_path):
    save_solverstate(tmp_path / name, STATE)
    found = load_solverstate(tmp_path / name)
    assert_same(found, STATE)
    with pytest.raises(ValueError, match="read-only"):
        found.history[0][0] = 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_that_is_not_utf8(write, tmp_path):
    found = load_solverstate(write(b"\x08\x05\x12\x02a\xff", "hand.solverstate"))
    assert found.learned_net == "a\udcff"
    for name in ("again.solverstate", "again.solverstate.h5"):
        save_solverstate(tmp_path / name, found)
        assert load_solverstate(tmp_path / name).learned_net == "a\udcff"


def test_binary_fields(write, encode):
    """Caffe's numbers: 1 iter, 2 learned_net, 3 history, 4 current_step; shapes old and new."""
    text = (encode.field(1, 7) + encode.field(2, "a.caffemodel")
            + encode.field(3, encode.legacy_blob((1, 1, 1, 2), [1, 2]))
            + encode.field(3, encode.field(7, encode.field(1, encode.varint(2)))
                           + encode.field(5, encode.floats([3, 4]))))
    found = load_solverstate(write(text, "hand.solverstate"))
    assert_same(found, SolverState(
        7, "a.caffemodel", (np.float32([[[[1, 2]]]]), np.float32([3, 4]))))


def test_hdf5_fields(tmp_path):
    """As Caffe's `hdf5_load_int` and `hdf5_load_string` read them."""
    path = tmp_path / "net.solverstate.h5"
    save_solverstate(path, STATE)
    with h5py.File(path) as file:
        assert set(file) == {"iter", "learned_net", "current_step", "history"}
        assert (file["iter"].shape, file["iter"].dtype, file["iter"][0]) == ((1,), "i4", 5)
        kind = file["learned_net"].id.get_type()
        assert (file["learned_net"].shape, kind.is_variable_str()) == ((), False)
        # A C string with its end.
        assert kind.get_size() == len(STATE.learned_net) + 1
        assert sorted(file["history"]) == ["0", "1", "2"]
        assert file["history/2"].shape == ()


@pytest.mark.parametrize("net", ["narrow", "lin_bn"])
def test_what_caffe_wrote_comes_out_byte_for_byte(net, shared_caffe, tmp_path):
    path = shared_caffe / f"{net}_iter_5.solverstate"
    state = load_solverstate(path)
    assert (state.iter, state.current_step) == (5, 1)
    assert state.learned_net == f"{net}_iter_5.caffemodel"
    blobs = [blob for layer in load_network(None, shared_caffe / state.learned_net).layers
             for blob in layer.blobs]
    assert [array.shape for array in state.history] == [blob.shape for blob in blobs]
    save_solverstate(tmp_path / "again.solverstate", state)
    assert_same(load_solverstate(tmp_path / "again.solverstate"), state)
    # Only the order differs of the fields, which protobuf leaves open.
    assert (tmp_path / "again.solverstate").stat().st_size == path.stat().st_size


@pytest.mark.parametrize("name", ["net.solverstate", "net.solverstate.h5"])
def test_truncated(name, tmp_path):
    save_solverstate(tmp_path / name, STATE)
    data = (tmp_path / name).read_bytes()
    step = 1 if len(data) < 500 else 97
    counts = []
    for size in range(0, len(data), step):
        (tmp_path / name).write_bytes(data[:size])
        with contextlib.suppress(CaffeFormatError):
            counts.append(len(load_solverstate(tmp_path / name).history))
    # At the border of two fields a binary file is a shorter state; whoever pairs it with its
    # weights misses the histories.
    assert counts == ([0, 0, 0, 1, 2] if name == "net.solverstate" else [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html></html>", "web page"),
        (b"\x20\x01", "names no iteration"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "iteration is -1"),
        (b"\x08\x05\x2a\x00", "holds a field 5"),
        (b"\x08\x05\x20", "in the middle of a number"),
        (b"\x08\x05\x1a\x04\x3a\x02\x0a\x00", "history 0"),
    ],
)
def test_no_solverstate(content, message, write):
    with pytest.raises(CaffeFormatError, match=message):
        load_solverstate(write(content, "bad.solverstate"))


def test_other_hdf5_files(tmp_path):
    path = tmp_path / "other.solverstate.h5"
    cases = (
        (lambda f: f.create_dataset("x", data=[1.0]), "no solverstate"),
        (lambda f: (f.create_dataset("iter", data=[1]), f.create_dataset("history/1", data=[1.0])),
         "not all there"),
        (lambda f: (f.create_dataset("iter", data=[1]),
                    f.create_dataset("history/0", data=[np.inf])), "history 0.* inf"),
    )
    for fill, text in cases:
        with h5py.File(path, "w") as file:
            fill(file)
        with pytest.raises(CaffeFormatError, match=text):
            load_solverstate(path)


def test_nan(tmp_path):
    path = tmp_path / "net.solverstate"
    save_solverstate(path, SolverState(1, "a", (np.float32([1, np.nan]),)))
    with pytest.raises(CaffeFormatError, match=r"history 0: the weight at \(1,\) is nan"):
        load_solverstate(path)
    assert np.isnan(load_solverstate(path, allow_nan=True).history[0][1])
