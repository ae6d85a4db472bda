"""Builders of small Caffe files, and a reader of the wire format that shares no code with ours."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from prototxt_import import load_network, save_caffemodel
from tests.tiny_network import NET, with_weights


def varint(value: int) -> bytes:
    """Encode a number; a negative one as protobuf does, in 64 bits."""
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    """Encode one field, a number as varint and the others with their length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number * 8 + 2) + varint(len(value)) + value


def floats(values) -> bytes:
    """Pack float32 values."""
    values = np.ravel(values)
    return struct.pack(f"<{len(values)}f", *values)


def blob(shape, values) -> bytes:
    """Encode a BlobProto of the current form."""
    return field(7, field(1, b"".join(map(varint, shape)))) + field(5, floats(values))


def legacy_blob(shape, values) -> bytes:
    """Encode a BlobProto with num, channels, height, width."""
    return b"".join(field(i, n) for i, n in enumerate(shape, 1)) + field(5, floats(values))


def conv_layer(name: str, *blobs: bytes, num_output: int = 2, kernel: int = 1) -> bytes:
    """Encode a current Convolution layer as field 100."""
    settings = field(106, field(1, num_output) + field(4, kernel))
    head = field(1, name) + field(2, "Convolution") + field(3, "data") + field(4, name)
    return field(100, head + settings + b"".join(field(7, b) for b in blobs))


def walk(data: bytes) -> list[tuple[int, object]]:
    """Return (field number, value) of a message: int, bytes or the raw bytes of a fixed one."""
    found, i = [], 0

    def number() -> int:
        nonlocal i
        value = shift = 0
        while True:
            byte = data[i]
            i += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while i < len(data):
        key = number()
        if key % 8 == 0:
            found.append((key // 8, number()))
            continue
        size = {1: 8, 5: 4}.get(key % 8) or (number() if key % 8 == 2 else None)
        assert size is not None, f"wire type {key % 8}"
        assert i + size <= len(data)
        found.append((key // 8, data[i : i + size]))
        i += size
    return found


class Wire:
    """The functions above, handed to tests as one fixture."""

    varint = staticmethod(varint)
    field = staticmethod(field)
    floats = staticmethod(floats)
    blob = staticmethod(blob)
    legacy_blob = staticmethod(legacy_blob)
    conv_layer = staticmethod(conv_layer)
    walk = staticmethod(walk)


@pytest.fixture(scope="session")
def encode() -> type[Wire]:
    """Encoders and the independent walk."""
    return Wire


@pytest.fixture
def write(tmp_path: Path):
    """Write text or bytes to a file and return its path."""

    def write_file(content: str | bytes, name: str | None = None) -> Path:
        is_text = isinstance(content, str)
        path = tmp_path / (name or ("net.prototxt" if is_text else "net.caffemodel"))
        path.write_bytes(content.encode() if is_text else content)
        return path

    return write_file


@pytest.fixture
def tiny_prototxt(write) -> Path:
    """A prototxt with one layer of each kind that carries weights in PixelNet."""
    return write(NET, "tiny.prototxt")


@pytest.fixture
def tiny_model(tiny_prototxt: Path, tmp_path: Path) -> Path:
    """A caffemodel for `tiny_prototxt` with the weights 0, 1, 2, ..."""
    path = tmp_path / "tiny.caffemodel"
    save_caffemodel(path, with_weights(load_network(tiny_prototxt)))
    return path
