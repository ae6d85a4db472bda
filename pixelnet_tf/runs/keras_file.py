"""A .keras file of a network: looked through before any of it is believed, read without copies."""

from __future__ import annotations

import io
import json
import math
import os
import re
import reprlib
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import h5py
import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.reading import checked_hdf5
from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ModelError, RunError, is_out_of_memory
from pixelnet_tf.io import remote
from pixelnet_tf.io.files import check_written
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import values_of

#: Members of a .keras file.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
#: How much larger than its file a model may be. Keras packs nothing.
_MAX_INFLATION = 64
#: A description takes some 2 KB.
_MAX_CONFIG_BYTES = 1 << 20
#: What `PixelNet.get_config` writes.
_CONFIG_TYPES = {"config": dict, "channels": int, "classes": int, "name": str}
#: Of every weight; and where numbers begin that TensorFlow takes as they lie.
_NUMBER, _ALIGNED_BYTES = np.dtype(np.float32), 64
#: Of a member's flags in an archive.
_ENCRYPTED = 1
#: Read at once where a whole file is gone through.
_BLOCK_BYTES = 1 << 20


def load_model(path: str) -> PixelNet:
    """Load a .keras file of this project.

    The file need not be trusted. Of its description the class' name is compared and the sizes are
    read, nothing in it is made or called; the network is this project's own, and the file gives it
    arrays alone. What it unpacks to is measured first.

    Raises:
        ModelError: it is broken, of another class, lacks weights, holds weights that are not
            finite, which would make every voxel background, takes far more memory than its size,
            or is not the one that was written into its folder.
        RunError: the object store that it lies in does not answer.
    """
    return load_known_model(path)[0]


def load_known_model(path: str) -> tuple[PixelNet, str | None]:
    """A model as `load_model` gives it, and its file's SHA-256 where the folder's manifest has it.
    """
    remote.need(path)
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            most_bytes = os.fstat(file.fileno()).st_size * _MAX_INFLATION
            config = _own_config(archive)
            _check_member(archive, _WEIGHTS, most_bytes)
            # A digest takes as long as all the rest, and another core may work it out meanwhile.
            with ThreadPoolExecutor(1) as beside:
                undamaged = beside.submit(_check_bytes, path)
                try:
                    model = _filled(config, path, _weights_file(archive, file), most_bytes)
                except Exception as error:
                    if not is_out_of_memory(error):
                        # What was damaged is said first: the rest follows from it.
                        undamaged.result()
                    raise
            digest = undamaged.result()
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                raise ModelError("another file took its place while it was read",
                                 hint="run the same command again")
            return model, digest
    except RunError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise almost any class.
        if is_out_of_memory(error):
            raise
        if isinstance(error, ModelError) and error.file == path:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"cannot be loaded as a model of this project: {reason}",
                         file=path) from None


def _check_bytes(path: str) -> str | None:
    """Compare a file, whose members were looked at, with what was written, by its folder's
    manifest, or else by its own checksum.

    Returns the SHA-256 where the manifest has it.
    """
    digest = check_written(path, "take it from a copy, or let `pixelnet-tf train --resume` make it")
    if digest is None:
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as member:
            # At the end zipfile compares.
            while member.read(_BLOCK_BYTES):
                pass
    return digest


def _filled(config: dict[str, Any], path: str, weights: BinaryIO, most_bytes: int) -> PixelNet:
    """The network of a description, with the arrays of an HDF5 file that may hold anything."""
    held, needed = checked_hdf5(path, most_bytes, weights), _weights_of(config)
    if held < needed:
        raise ModelError(f"its description asks for {needed:,} weights, it holds {held:,}")
    model = PixelNet(**config, draw=False)
    with h5py.File(weights, "r") as arrays:
        for layer, name in _named(model):
            layer.load_own_variables(_Stored(arrays[f"layers/{name}/vars"]))
    for variable in model.weights:
        values = values_of(variable)
        # Both are NaN where any value is; and no array of the weights' size is made.
        if not np.isfinite([values.min(), values.max()]).all():
            raise ModelError(f"the weights of {variable.path} are not finite; the training went "
                             "astray: train anew at a lower learning rate", file=path)
    return model


def _named(model: PixelNet) -> Iterator[tuple[keras.layers.Layer, str]]:
    """Every layer that has weights, and how Keras calls it in a file: by its class, numbered."""
    met: Counter[str] = Counter()
    for layer in model.layers:
        name = re.sub("([a-z])([A-Z])", r"\1_\2",
                      re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        if layer.variables:
            yield layer, f"{name}_{met[name]}" if met[name] else name
        met[name] += 1


class _Stored(Mapping[str, tf.Tensor]):
    """The arrays of a layer in a file, each read once, to where TensorFlow takes it as it lies.

    Keras would read an array and copy it twice, to be sure that nobody else changes it.
    """

    def __init__(self, group: Any):
        self._group = group

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)

    def __getitem__(self, name: str) -> tf.Tensor:
        stored = self._group[name]
        count = math.prod(stored.shape)
        # Of an array that says where it lies, but lies nowhere, HDF5 reads nothing: what memory
        # held before would become weights.
        room = np.zeros(count * _NUMBER.itemsize + _ALIGNED_BYTES, np.uint8)
        start = -room.ctypes.data % _ALIGNED_BYTES
        values = room[start:start + count * _NUMBER.itemsize].view(_NUMBER).reshape(stored.shape)
        if count:
            stored.read_direct(values)
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def _weights_file(archive: zipfile.ZipFile, file: BinaryIO) -> BinaryIO:
    """The weights' HDF5 file within the archive; in memory where the archive packs it."""
    member = archive.getinfo(_WEIGHTS)
    if member.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(member))
    # What lies before it: a header of 30 bytes, which ends with the lengths of name and more.
    header = os.pread(file.fileno(), 30, member.header_offset)
    name, more = struct.unpack("<26x2H", header)
    start = member.header_offset + len(header) + name + more
    if (header[:4] != b"PK\3\4" or member.flag_bits & _ENCRYPTED
            or member.file_size != member.compress_size
            or start + member.file_size > os.fstat(file.fileno()).st_size):
        raise zipfile.BadZipFile(f"the archive is damaged at its member {_WEIGHTS}")
    return io.BufferedReader(_Part(file.fileno(), start, member.file_size))


class _Part(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, number: int, start: int, size: int):
        super().__init__()
        self._number, self._start, self._size, self._place = number, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place,
                                os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        left = memoryview(buffer)[:max(self._size - self._place, 0)]
        found = os.preadv(self._number, [left], self._start + self._place)
        if left and not found:
            raise EOFError("the file ends within its weights")
        self._place += found
        return found


def _own_config(archive: zipfile.ZipFile) -> dict[str, Any]:
    """What `PixelNet` is to be made with, of a description that may say anything."""
    _check_member(archive, _CONFIG, _MAX_CONFIG_BYTES)
    saved = json.loads(archive.read(_CONFIG))
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise ModelError(f"{_CONFIG} describes no model")
    own = keras.saving.get_registered_name(PixelNet)
    if saved.get("registered_name") != own:
        raise ModelError(f"holds a {saved.get('class_name')!r}, not a PixelNet")
    config = saved["config"]
    for name, kind in _CONFIG_TYPES.items():
        if type(config.get(name)) is not kind:
            raise ModelError(f"{_CONFIG}: {name} must be {kind.__name__}, got "
                             f"{reprlib.repr(config.get(name))}",
                             value=config.get(name))
    if unknown := set(config) - set(_CONFIG_TYPES):
        raise ModelError(f"{_CONFIG}: unknown {reprlib.repr(sorted(unknown))}; a PixelNet has "
                         f"{', '.join(_CONFIG_TYPES)}")
    return config


def _check_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> None:
    """Refuse a member that unpacks to more than `most_bytes`; zipfile reads no more than it says.
    """
    member = archive.getinfo(name)
    if member.file_size > most_bytes:
        raise ModelError(f"{name} unpacks to {member.file_size:,} bytes, more than the "
                         f"{most_bytes:,} that such a file may")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others take memory that the file names.
        raise ModelError(f"{name} is packed by the method {member.compress_type}, which Keras "
                         "does not use")


def _weights_of(config: dict[str, Any]) -> int:
    """How many weights a network of this description has."""
    table = Architecture.of(config_from_dict({"model": config["config"]}).model, config["classes"])
    shapes = table.blob_shapes(config["channels"]).values()
    return sum(math.prod(shape) for of_layer in shapes for shape in of_layer)
