"""A model's file is read by Keras alone, once the room of its classes was imported."""

import io
import json
import math
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs import keras_file
from pixelnet_tf.runs.keras_file import load_model
from pixelnet_tf.training.solver import CaffePolicy, CaffeSGD

READ = """
import sys
import keras
import pixelnet_tf.{room}
model = keras.saving.load_model(sys.argv[1])
print(type(model).__name__, type(model.optimizer).__name__ if model.compiled else None)
"""


def read_elsewhere(path, room: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", READ.format(room=room), str(path)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_a_run_of_this_project(tmp_path):
    config = ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,), batch_norm=True)
    PixelNet(config, 2, 3, seed=0).save(tmp_path / "model.keras")
    assert read_elsewhere(tmp_path / "model.keras", "model") == ["PixelNet", "None"]


def test_a_model_compiled_with_caffes_solver(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(CaffeSGD(CaffePolicy(0.1, "exp", gamma=0.5)), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    assert read_elsewhere(tmp_path / "model.keras", "training") == ["Sequential", "CaffeSGD"]


def narrow(channels: int = 2, **fields) -> PixelNet:
    return PixelNet(ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,), fc7="none",
                                **fields), channels, 3, seed=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    model = narrow()
    bias = model.parts["conv3_2"].bias
    bias.assign(np.where(np.arange(bias.shape[0]) == 0, value, bias))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="weights of conv3_2/bias are not finite"):
        load_model(str(tmp_path / "model.keras"))


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    """The description speaks of layers that the arrays do not have."""
    narrow().save(tmp_path / "small.keras")
    narrow(batch_norm=True).save(tmp_path / "large.keras")
    with (zipfile.ZipFile(tmp_path / "small.keras") as small,
          zipfile.ZipFile(tmp_path / "large.keras") as large,
          zipfile.ZipFile(tmp_path / "mixed.keras", "w") as mixed):
        for name in small.namelist():
            source = large if name == "config.json" else small
            mixed.writestr(name, source.read(name))
    with pytest.raises(ModelError, match="cannot be loaded as a model of this project"):
        load_model(str(tmp_path / "mixed.keras"))


def with_member(path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> str:
    """Put another content into a .keras file; returns its path."""
    with zipfile.ZipFile(path) as old:
        members = {each: old.read(each) for each in old.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w") as new:
        for each, held in members.items():
            new.writestr(each, held, compression if each == name else zipfile.ZIP_STORED)
    return str(path)


@pytest.fixture
def saved(tmp_path):
    narrow().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def description(path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


FOREIGN = {
    "another class": (lambda tree: tree | {"registered_name": "Lambda", "class_name": "Lambda"},
                      "holds a 'Lambda', not a PixelNet"),
    "no description": (lambda tree: [tree], "describes no model"),
    "a policy that would be made": (lambda tree: tree | {"config": tree["config"] | {
        "dtype": {"module": "keras.layers", "class_name": "Lambda", "config": {}}}},
        "unknown .'dtype'."),
    "no classes": (lambda tree: tree | {"config": {
        key: tree["config"][key] for key in ("config", "channels", "name")}},
        "classes must be int, got None"),
    "more weights than it holds": (lambda tree: tree | {"config": tree["config"] | {
        "config": tree["config"]["config"] | {"widths": [60000] * 5}}},
        "asks for 388,8.* weights, it holds"),
    "layers without end": (lambda tree: tree | {"config": tree["config"] | {
        "config": tree["config"]["config"] | {"head_widths": [1] * 100_000}}},
        "model.head_widths may have 32 numbers"),
    "a description without end": (lambda tree: tree | {"x": "x" * (1 << 20)},
                                  "config.json unpacks to .* bytes, more than"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_of_a_description_nothing_is_made_but_a_pixelnet_that_the_file_fills(
        name, saved, monkeypatch):
    change, said = FOREIGN[name]
    with_member(saved, "config.json", json.dumps(change(description(saved))).encode())
    monkeypatch.setattr(keras.Model, "__init__", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(ModelError, match=said):
        load_model(str(saved))


def _bomb(path, content):
    return with_member(path, "model.weights.h5", bytes(64 << 20), zipfile.ZIP_DEFLATED)


def _unusual_packing(path, content):
    return with_member(path, "model.weights.h5", content, zipfile.ZIP_LZMA)


def _reads_another_file(path, content):
    weights = path.with_name("weights.h5")
    weights.write_bytes(content)
    with h5py.File(weights, "r+") as file:
        bias = file["layers/conv2d/vars/1"]
        name, shape = bias.name, bias.shape
        del file[name]
        file.create_dataset(name, shape, "<f4", external=[("/etc/passwd", 0, 4 * shape[0])])
    return with_member(path, "model.weights.h5", weights.read_bytes())


def _arrays_without_end(path, content):
    weights = path.with_name("weights.h5")
    weights.write_bytes(content)
    with h5py.File(weights, "r+") as file:
        for number in range(40):
            file.create_dataset(f"more{number}", (1 << 20,), "<f4", chunks=(1 << 20,))
    return with_member(path, "model.weights.h5", weights.read_bytes())


def _complex(path, content):
    weights = path.with_name("weights.h5")
    weights.write_bytes(content)
    with h5py.File(weights, "r+") as file:
        bias = file["layers/conv2d/vars/1"]
        name, values = bias.name, bias[()]
        del file[name]
        file[name] = values.astype(np.complex64)
    return with_member(path, "model.weights.h5", weights.read_bytes())


@pytest.mark.parametrize(("damage", "said"), [
    (_complex, "layers/conv2d/vars/1 is of complex64, not of real numbers"),
    (_bomb, "unpacks to 67,108,864 bytes, more than"),
    (_unusual_packing, "packed by the method 14"),
    (_reads_another_file, "layers/conv2d/vars/1 reads its values from other files"),
    (_arrays_without_end, "the arrays take more memory than a file of this size may"),
], ids=lambda each: getattr(each, "__name__", ""))
def test_the_arrays_of_a_model_are_its_own_and_no_larger_than_its_file(
        damage, said, saved, monkeypatch):
    with zipfile.ZipFile(saved) as archive:
        content = archive.read("model.weights.h5")
    path, unpacked = damage(saved, content), []
    read = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read",
                        lambda *_: unpacked.append(read(*_)) or unpacked[-1])
    with pytest.raises(ModelError, match=said):
        load_model(path)
    # What it unpacks to is known before.
    assert sum(map(len, unpacked)) <= 2 * len(content)


def test_an_array_that_lies_nowhere_brings_nothing_of_the_memory(saved):
    with zipfile.ZipFile(saved) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        name, shape = "layers/conv2d_5/vars/0", file["layers/conv2d_5/vars/0"].shape
        del file[name]
        late = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        late.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        late.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE,
                        h5py.h5s.create_simple(shape), late)
    path = with_member(saved, "model.weights.h5", content.getvalue())
    # Arrays of its size that were there before.
    held = [np.full(math.prod(shape) + 16, 3, np.float32) for _ in range(500)]
    del held
    np.testing.assert_array_equal(load_model(path).parts["conv3_2"].kernel, 0)


@pytest.mark.parametrize(("place", "value"), [
    (8, 1), (24, 1 << 24), (0, 0x04034b51)], ids=["encrypted", "longer", "no header"])
def test_a_member_that_is_not_where_the_archive_says_is_refused(
        place, value, saved, monkeypatch):
    """Of the directory's entry the flags and the unpacked size; of the header its first bytes."""
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        member = archive.getinfo("model.weights.h5")
    start = (member.header_offset if place == 0 else
             content.rindex(b"PK\1\2", 0, content.rindex(b"model.weights.h5")))
    content[start + place:start + place + (2 if place == 8 else 4)] = value.to_bytes(
        2 if place == 8 else 4, "little")
    saved.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded as a model of this project"):
        load_model(str(saved))
    # Even where nothing else would tell.
    monkeypatch.setattr(keras_file, "_check_bytes", lambda path: None)
    with pytest.raises(ModelError, match=r"damaged at its member model|weights.h5 unpacks to"):
        load_model(str(saved))


def test_a_file_that_is_replaced_meanwhile_is_not_taken_for_the_other_one(saved, monkeypatch):
    checked = keras_file._check_bytes

    def replacing(path):
        narrow().save(saved.with_name("other.keras"))
        saved.with_name("other.keras").replace(saved)
        return checked(path)

    monkeypatch.setattr(keras_file, "_check_bytes", replacing)
    with pytest.raises(ModelError, match="another file took its place while it was read"):
        load_model(str(saved))


def test_what_the_machine_lacks_is_no_fault_of_the_model(saved, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(np, "zeros", fail)
    with pytest.raises(MemoryError):
        load_model(str(saved))


@pytest.mark.parametrize("fields", [{}, {"batch_norm": True}, {"mix_channels": True, "channels": 4},
                                    {"context_slices": 3}, {"head": "linear"}], ids=str)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_weight_is_the_one_that_keras_reads(fields, compression, saved):
    model = narrow(**fields)
    for variable in model.weights:
        variable.assign(np.random.default_rng(0).random(variable.shape, np.float32))
    model.save(saved)
    with zipfile.ZipFile(saved) as archive:
        with_member(saved, "model.weights.h5", archive.read("model.weights.h5"), compression)
    mine, theirs = load_model(str(saved)), keras.saving.load_model(saved)
    assert len(mine.weights) == len(theirs.weights) >= len(model.weights)
    for one, other in zip(mine.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_weights_are_read_once_and_stay_where_they_are(saved, monkeypatch):
    """Nobody else holds their memory, which a training changes."""
    lain = []
    take = tf.experimental.dlpack.from_dlpack
    monkeypatch.setattr(tf.experimental.dlpack, "from_dlpack", lambda capsule: lain.append(
        take(capsule)) or lain[-1])
    model = load_model(str(saved))
    assert {np.asarray(tensor).ctypes.data for tensor in lain} == {
        np.asarray(tf.convert_to_tensor(variable.value)).ctypes.data for variable in model.weights}
    lain.clear()
    before = model.get_weights()
    for variable in model.weights:
        variable.assign_add(tf.ones_like(variable))
    for values, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(variable, values + 1)


def test_a_file_without_a_manifest_is_compared_with_its_own_checksum(saved):
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        weights = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(weights)) as file:
        place = content.index(weights) + file["layers/conv2d/vars/0"].id.get_offset()
    content[place] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelError, match="Bad CRC-32"):
        load_model(str(saved))
