"""Damage to files: bytes of any, and fields of the formats that the product reads.

Each takes a file's bytes and a generator, and returns the bytes of another file.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import h5py
import numpy as np

from prototxt_import import wire

Mutation = Callable[[bytes, np.random.Generator], bytes]

#: Numbers of both wire forms of protobuf and of text, often read as lengths.
_NUMBERS = (
    b"\xff" * 9 + b"\x01",
    b"\x80\x80\x80\x80\x80\x20",
    b"\0",
    b"\x7f",
    b"-1",
    b"99999999999",
)
#: Sizes that programs stumble over, or take memory for.
SIZES = (0, 1, 2, 3, 255, 4096, 16384, 20000, 65536, 10**6, 2**28, 2**31 - 1, 2**31, 2**32 - 1,
         2**63 - 1)


def one_of(generator: np.random.Generator, choices: Any) -> Any:
    """One of a sequence."""
    return choices[int(generator.integers(len(choices)))]


def flipped_bits(data: bytes, bits: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """(bit, the file with this one bit flipped), for some bits, counted from the file's first."""
    for bit in bits:
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(broken)


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """A few changes of bytes: flips, cuts, copies, and numbers put in."""
    result = bytearray(data)
    for _ in range(generator.integers(1, 6)):
        size = max(len(result), 1)
        at, to = sorted(int(i) for i in generator.integers(0, size, 2))
        match generator.integers(0, 6):
            case 0:
                result[at : at + 1] = bytes([generator.integers(0, 256)])
            case 1:
                del result[at : min(to, at + 50)]
            case 2:
                result[at:at] = result[at : min(to, at + 200)]
            case 3:
                del result[at:]
            case 4:
                number = one_of(generator, _NUMBERS)
                result[at : at + len(number)] = number
            case 5:
                result[at:at] = generator.bytes(int(generator.integers(1, 20)))
    return bytes(result)


def binary_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Four bytes, often read as a length or a number, with another value."""
    at = int(generator.integers(min(len(data), 400)))
    value = [b"\0" * 4, b"\xff" * 4, struct.pack("<I", 2**31), generator.bytes(4)]
    return data[:at] + value[generator.integers(4)] + data[at + 4:]


_VALUES = (None, True, -1, 3.5, 10**30, 20000, 2**31, "", "x", [], [[]], {}, {"x": 1},
           float("nan"))


def json_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Another value, a missing or an unknown key somewhere in a JSON tree."""
    tree = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(min(len(node), 4))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(tree)
    # Every depth is as likely: most places are rows of long lists.
    node, key = places[int(generator.integers(len(places)) * generator.random())]
    what = generator.integers(4)
    if what == 0 and isinstance(node, dict):
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node["unheard of"] = 1
    else:
        node[key] = one_of(generator, _VALUES)
    if generator.integers(20) == 0:
        tree = one_of(generator, _VALUES)
    return json.dumps(tree).encode()


def text_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Another word in the place of one in a text."""
    words = list(re.finditer(rb"[^\s:,\"{}\[\]]+", data))
    word = words[generator.integers(len(words))]
    others = (b"", b"-1", b"1e400", b"unheard_of", b"[", b"{", b"null", b"\xff",
              b"!!python/name:os",
              b"99999999999999999999", b"2020-13-45")
    return data[:word.start()] + one_of(generator, others) + data[word.end():]


# Protobuf's text format.

_WORDS = re.compile(rb'"[^"\n]*"|[\w.+-]+')


def prototxt_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Other numbers, texts and names, fields and blocks away, twice, hundreds of times, nested."""
    for _ in range(generator.integers(1, 4)):
        words, blocks = list(_WORDS.finditer(data)), _blocks(data)
        if not words:
            return data
        word = one_of(generator, words)
        blocks = blocks or [word.span()]
        start, end = one_of(generator, blocks)
        at, to = word.span()
        match generator.integers(0, 8):
            case 0:
                numbers = [one for one in words if re.fullmatch(rb"-?\d[\d.]*", one.group())]
                at, to = one_of(generator, numbers or words).span()
                value = one_of(generator, (*SIZES, -1, "1e400", "nan", "-0.0", "1e-50", "07"))
                data = data[:at] + str(value).encode() + data[to:]
            case 1:
                texts = [one for one in words if one.group().startswith(b'"')]
                at, to = one_of(generator, texts or words).span()
                other = one_of(generator, (
                    b'""', b'"' + b"\\" * int(generator.integers(1, 3000)) + b'"', b'"\\xff\\777"',
                    b'"' + b"ab" * 2000 + b'"', b"'a' \"b\" 'c'", b'"a/b"', b'"\xff"',
                    one_of(generator, words).group()))
                data = data[:at] + other + data[to:]
            case 2:
                data = data[:at] + one_of(generator, words).group() + data[to:]
            case 3:
                data = data[:start] + data[end:]
            case 4:
                count = one_of(generator, (1, 2, 30, 300))
                data = data[:end] + data[start:end] * count + data[end:]
            case 5:
                depth = one_of(generator, (1, 10, 70, 2000))
                data = data[:start] + b"layer {" * depth + data[start:end] + b"}" * depth \
                    + data[end:]
            case 6:
                other_start, other_end = one_of(generator, blocks)
                data = data[:start] + data[other_start:other_end] + data[end:]
            case 7:
                line_end = data.find(b"\n", at) + 1 or len(data)
                data = data[:at] + data[line_end:]
        if len(data) > 1 << 20:
            break
    return data


def _blocks(data: bytes) -> list[tuple[int, int]]:
    """Where each `name { ... }` starts and ends."""
    found, open_at = [], []
    for match in re.finditer(rb"\w+\s*\{|\}", data):
        if match.group() != b"}":
            open_at.append(match.start())
        elif open_at:
            found.append((open_at.pop(), match.end()))
    return found


# Protobuf's binary format.


class _Part:
    """A field: number, wire type, and its value: a number, bytes or the fields in it."""

    def __init__(self, number: int, wire_type: int, value: int | bytes | list[_Part]):
        self.number, self.wire_type, self.value = number, wire_type, value


def wire_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Other values, numbers, types and lengths of fields, fields away, twice, nested; lengths of
    what they lie in fit."""
    tree = _parts(data, 0)
    if tree is None:
        return damage(data, generator)
    for _ in range(generator.integers(1, 4)):
        lists = [tree]
        for each in lists:
            lists += [part.value for part in each if isinstance(part.value, list)]
        siblings = one_of(generator, [each for each in lists if each] or [[]])
        if not siblings:
            break
        at = int(generator.integers(len(siblings)))
        part = siblings[at]
        match generator.integers(0, 8):
            case 0:
                del siblings[at]
            case 1:
                siblings[at:at] = [part] * one_of(generator, (1, 2, 50, 500))
            case 2:
                part.number = one_of(generator, (1, 2, 5, 7, 8, 50, 100, 106, 2**29 - 1,
                                                 int(generator.integers(1, 200))))
            case 3:
                part.wire_type = int(generator.integers(0, 6))
            case 4:
                other = one_of(generator, one_of(generator, [each for each in lists if each]))
                part.value = other.value if not isinstance(other.value, list) else \
                    _encoded(other.value)
            case 5:
                depth = one_of(generator, (2, 20, 150))
                inner: list[_Part] = [part]
                for _ in range(depth):
                    inner = [_Part(part.number, wire.BYTES, inner)]
                siblings[at] = inner[0]
            case _:
                part.value = _other_value(part.value, generator)
    return _encoded(tree)


def _other_value(value: int | bytes | list[_Part], generator: np.random.Generator
                 ) -> int | bytes:
    if isinstance(value, int):
        return one_of(generator, (*SIZES, 2**64 - 1, int(generator.integers(1, 300))))
    data = _encoded(value) if isinstance(value, list) else value
    cut = int(generator.integers(len(data) + 1))
    return one_of(generator, (
        b"", data[:cut], data + data[:cut], generator.bytes(8), b"\xff\xfe", b"a" * 5000,
        wire.encode_varint(one_of(generator, SIZES)) * int(generator.integers(1, 5)),
        struct.pack("<2f", float("nan"), 3e38)))


def _parts(data: bytes, depth: int) -> list[_Part] | None:
    """The fields of a message; None for bytes that are none."""
    found = []
    try:
        for field in wire.walk(data, 0, len(data)):
            value: int | bytes | list[_Part] = field.value
            if field.wire_type != wire.VARINT:
                value = data[field.value_start:field.end]
                if field.wire_type == wire.BYTES and 2 <= len(value) < 1 << 16 and depth < 6:
                    value = _parts(value, depth + 1) or value
            found.append(_Part(field.number, field.wire_type, value))
    except wire.WireError:
        return None
    return found


def _encoded(parts: list[_Part]) -> bytes:
    result = bytearray()
    for part in parts:
        result += wire.encode_varint(part.number << 3 | part.wire_type)
        value = _encoded(part.value) if isinstance(part.value, list) else part.value
        if isinstance(value, int):
            result += wire.encode_varint(value)
            continue
        if part.wire_type == wire.BYTES:
            result += wire.encode_varint(len(value))
        result += value
    return bytes(result)


# HDF5.


def hdf5_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Objects away, elsewhere, of other shapes, types and storage, links of every kind."""
    stream = io.BytesIO(data)
    with contextlib.suppress(Exception), h5py.File(stream, "r+") as file:  # what HDF5 cannot write
        for _ in range(generator.integers(1, 4)):
            names: list[str] = []
            file.visit(names.append)
            if names:
                _change_object(file, one_of(generator, names), one_of(generator, names), generator)
    return stream.getvalue()


def _change_object(file: h5py.File, name: str, other: str, generator: np.random.Generator) -> None:
    what = int(generator.integers(0, 14))
    old = file[name]
    kept = old[()] if isinstance(old, h5py.Dataset) else np.ones(4, np.float32)
    if what != 13:
        del file[name]
    size = one_of(generator, SIZES)
    match what:
        case 0:
            pass
        case 1:
            file[name] = h5py.SoftLink(f"/{other}")
        case 2:
            file[name] = h5py.ExternalLink("/etc/hostname", "/x")
        case 3:
            file[name] = file[other]
        case 4:
            file.create_dataset(name, np.shape(kept) or (1,), "<f4",
                                external=[("/etc/passwd", 0, max(4, 4 * np.size(kept)))])
        case 5:
            layout = h5py.VirtualLayout((4,), "<f4")
            layout[...] = h5py.VirtualSource("/etc/x.h5", "x", (4,))
            file.create_virtual_dataset(name, layout)
        case 6:
            file.create_dataset(name, (size,), "<f4", chunks=(min(size, 1 << 20) or 1,))
        case 7:
            file.create_dataset(name, (4,), "<f4", maxshape=(None,),
                                chunks=(min(size, 2**28) or 1,))
        case 8:
            file.create_dataset(name, data=np.zeros(200_000, "<f4"), compression="gzip",
                                compression_opts=9)
        case 9:
            file.create_dataset(name, data=one_of(generator, (
                np.float64(1e300), np.int32(2**31 - 1), np.full(3, np.nan, "<f4"),
                np.ones((2,) * 12, "<f2"), np.bytes_(b"\xff" * 50), ["text"], np.ones(4, complex),
                np.zeros((0, 3), "<f4"), np.ones(2, [("r", "<f4"), ("g", "<f4")]), True)))
        case 10:
            file.create_group(name)
        case 11:
            file.create_dataset(f"{name}_", data=kept)
        case 12:
            file.create_dataset(name, data=np.ravel(kept), **(
                {"compression": one_of(generator, ("gzip", "lzf")), "shuffle": True}
                if np.size(kept) > 1 else {}))
        case 13:
            old.attrs["dtype"] = one_of(generator, ("bfloat16", "x" * 1000, 1, [1, 2]))


# Keras' archives.


def keras_field(data: bytes, generator: np.random.Generator) -> bytes:
    """A foreign field in the description within a .keras archive, or a member less."""
    return _with_member(data, "config.json", lambda content: json_field(content, generator),
                        left_out=generator.integers(4) == 0, generator=generator)


def keras_weights(data: bytes, generator: np.random.Generator) -> bytes:
    """Other arrays within a .keras archive, or ones packed to a thousandth of their size."""
    if generator.integers(10) == 0:
        return _with_member(data, "model.weights.h5", lambda content: content + bytes(1 << 24),
                            compression=zipfile.ZIP_DEFLATED, generator=generator)
    change = one_of(generator, (hdf5_field, hdf5_field, damage, binary_field))
    return _with_member(data, "model.weights.h5", lambda content: change(content, generator),
                        generator=generator)


def _with_member(data: bytes, changed: str, change: Callable[[bytes], bytes],
                 generator: np.random.Generator, left_out: bool = False,
                 compression: int = zipfile.ZIP_STORED) -> bytes:
    old, sink = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    gone = one_of(generator, old.namelist()) if left_out else None
    with zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == changed:
                content = change(content)
            if name != gone:
                new.writestr(zipfile.ZipInfo(name), content,
                             compression if name == changed else zipfile.ZIP_STORED)
    return sink.getvalue()
