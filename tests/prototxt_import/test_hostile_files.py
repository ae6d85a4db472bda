"""Files made to read others, or to take time and memory without bound: refused, and at once."""

import time
import zlib

import numpy as np
import pytest

from prototxt_import import (
    CaffeFormatError,
    SolverState,
    load_network,
    load_solver,
    load_solverstate,
    save_solverstate,
)
from prototxt_import.hdf5 import hdf5_layer_names
from prototxt_import.text_tree import MAX_BACKSLASHES, MAX_FIELDS

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.no_cover

#: Of the processor. No file here takes more; before they were refused, some took over a minute.
SECONDS = 2.0


@pytest.fixture(autouse=True)
def _at_once():
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, as floats and as HDF5."""
    path = tmp_path / "secret"
    path.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 4)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((4, 3, 3, 3), np.float32)
    return path


def _external_storage(group, name, secret):
    group.create_dataset(name, (32,), "<f4", external=[(str(secret), 0, 128)])


def _external_link(group, name, secret):
    group[name] = h5py.ExternalLink(f"{secret}.h5", "/x")


def _soft_link(group, name, secret):
    group[name] = h5py.SoftLink("/elsewhere")


def _virtual(group, name, secret):
    layout = h5py.VirtualLayout((4, 3, 3, 3), "<f4")
    layout[...] = h5py.VirtualSource(f"{secret}.h5", "x", (4, 3, 3, 3))
    group.create_virtual_dataset(name, layout)


def _foreign_filter(group, name, secret):
    group.create_dataset(name, data=np.zeros(400, "<f4"), compression="lzf")


def _filter_twice(group, name, secret):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((400,))
    made.set_deflate(9)
    made.set_deflate(9)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE,
                    h5py.h5s.create_simple((400,)), made).write(
                        h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(400, "<f4"))


def _unpacks_without_end(group, name, secret):
    """Its chunk says a kilobyte and unpacks to 64 MiB."""
    one = group.create_dataset(name, (256,), "<f4", chunks=(256,), compression="gzip")
    one.id.write_direct_chunk((0,), zlib.compress(bytes(64 << 20)))


def _many_large(group, name, secret):
    """Each fits 64 times into its file, all together they do not."""
    group.create_dataset(name, (50_000,), "<f4", chunks=(50_000,))
    for number in range(40):
        group.parent.create_dataset(f"more{number}/0", (50_000,), "<f4", chunks=(50_000,))


def _large_chunk(group, name, secret):
    group.create_dataset(name, (4,), "<f4", maxshape=(None,), chunks=(1 << 28,))


def _group_in_itself(group, name, secret):
    group["a"] = group
    group["b"] = group


def _deep(group, name, secret):
    for _ in range(40):
        group = group.create_group("x" * 1000)


HOSTILE = {
    _deep: "its groups lie more than 32 deep",
    _external_storage: "reads its values from other files",
    _external_link: "is a link to another place",
    _soft_link: "is a link to another place",
    _virtual: "reads its values from other files",
    _foreign_filter: "is packed by filters",
    _filter_twice: "is packed by filters",
    _unpacks_without_end: "unpacks to more than the 1,024 bytes of its chunk",
    _many_large: "does not fit the file's size",
    _large_chunk: "does not fit the file's size",
    _group_in_itself: "a group that lies in two places",
}


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
def test_hdf5_holds_its_own_arrays_and_no_more_than_it_can(fill, secret, tmp_path, write):
    prototxt = write('layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" '
                     "inner_product_param { num_output: 4 bias_term: false } }")
    model, state = tmp_path / "x.caffemodel.h5", tmp_path / "x.solverstate.h5"
    with h5py.File(model, "w") as file:
        fill(file.create_group("data/fc"), "0", secret)
    save_solverstate(state, SolverState(5, "net", (), 1))
    with h5py.File(state, "r+") as file:
        fill(file["history"], "0", secret)
    for read in (lambda: load_network(prototxt, model), lambda: hdf5_layer_names(model),
                 lambda: load_solverstate(state)):
        with pytest.raises(CaffeFormatError, match=HOSTILE[fill]):
            read()


@pytest.mark.parametrize("options", [
    {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"fletcher32": True}, {"chunks": (100,)}], ids=str)
def test_packed_models_are_read_as_before(options, tmp_path, write):
    prototxt = write('layer { name: "bn" type: "PReLU" bottom: "x" top: "y" }')
    values = np.random.default_rng(0).normal(size=1000).astype("<f4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data/bn/0", data=values, **options)
    read, = load_network(prototxt, tmp_path / "x.h5").layer("bn").blobs
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("name", ["iter", "current_step", "learned_net"])
def test_a_state_says_each_thing_once(name, tmp_path):
    path = tmp_path / "x.solverstate.h5"
    save_solverstate(path, SolverState(5, "net", (np.ones(4, np.float32),), 1))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = [b"12"] * 100
    with pytest.raises(CaffeFormatError, match=f"its {name} is no single value"):
        load_solverstate(path)


@pytest.mark.parametrize(("name", "value"), [
    ("iter", 5.5), ("iter", b"5"), ("current_step", b"x"), ("learned_net", 7), ("learned_net", 1j)])
def test_a_state_holds_numbers_and_texts_in_their_places(name, value, tmp_path):
    path = tmp_path / "x.solverstate.h5"
    save_solverstate(path, SolverState(5, "net", (np.ones(4, np.float32),), 1))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(CaffeFormatError, match=f"its {name} is "):
        load_solverstate(path)


LAYER = 'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" ' \
        "inner_product_param { num_output: 1 } include { min_level: %d } }\n"
TEXTS = {
    "backslashes": ('name: "' + "\\" * 75_000 + 'x"', f"more than {MAX_BACKSLASHES} backslashes"),
    "quotes": ('name: ' + '"ab" ' * 100_000, "describes no layer"),
    "values": ("a: [" + "1," * (MAX_FIELDS + 1) + "]", f"more than {MAX_FIELDS:,} values"),
    "depth": ("layer {" * 5000, "levels of nesting"),
    "open string": ('name: "' + "a\\" * 300_000, "syntax error"),
    "long line": ("name: x" + " " * 500_000 + "}", "syntax error"),
    "namesakes": ("".join(LAYER % level for level in range(3000)), None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_takes_no_more_than_its_length(name, write):
    text, said = TEXTS[name]
    path = write(text)
    if said is None:
        assert len(load_network(path).layers) == 3000
    else:
        with pytest.raises(CaffeFormatError, match=said) as caught:
            load_network(path)
        assert len(str(caught.value)) < 5000
    if name not in ("values", "quotes", "namesakes"):
        with pytest.raises(CaffeFormatError):
            load_solver(path)


@pytest.mark.parametrize(("piece", "said"), [
    ((5 << 3 | 5, 4), "more than 10,000 pieces"), ((8 << 3 | 1, 8), "more than 10,000 pieces"),
    ((1 << 3 | 0, 1), "a dimension below 1"),
], ids=["data", "double_data", "num"])
def test_a_blob_of_many_pieces_takes_no_more_than_its_length(piece, said, write, encode):
    """Each value alone, with another field between: the rest was looked through for each."""
    tag, size = piece
    other = encode.field(2, 1)
    blob = encode.floats([]) + (bytes([tag]) + bytes(size) + other) * 200_000
    model = encode.conv_layer("conv", blob + encode.field(7, encode.field(1, 1))
                              + encode.field(5, encode.floats([1])))
    with pytest.raises(CaffeFormatError, match=said):
        load_network(caffemodel=write(model))


def test_a_shape_without_end(write, encode):
    shape = encode.field(7, encode.field(1, 1) * 500_000)
    model = encode.conv_layer("conv", shape + encode.field(5, encode.floats([1])))
    with pytest.raises(CaffeFormatError, match="more than 32 axes"):
        load_network(caffemodel=write(model))
