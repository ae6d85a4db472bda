"""Protobuf's wire format: walking it field by field, and encoding keys and lengths.

Caffe models are walked here rather than handed to protobuf whole, so that the weights go from
the file straight into numpy arrays: no second copy of a file of several hundred megabytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

#: What is walked: a file that is mapped to memory, or bytes.
Buffer = bytes | mmap.mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_MASK64 = (1 << 64) - 1


class WireError(ValueError):
    """Bytes that are no protobuf message; the text says what and at which byte."""


class Field(NamedTuple):
    """One field: number, wire type, where it starts, where its value starts and ends, and the
    value itself of a varint (0 for the others)."""

    number: int
    wire_type: int
    start: int
    value_start: int
    end: int
    value: int


def read_varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return the unsigned 64-bit number at `position` and the position after it."""
    result = shift = 0
    while position < end:
        byte = buffer[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK64, position
        shift += 7
        if shift > 63:
            raise WireError(f"a number of more than 10 bytes ends at byte {position}")
    raise WireError(f"it ends at byte {end} in the middle of a number")


def read_field(buffer: Buffer, position: int, end: int) -> Field:
    """Return the field that starts at `position`; a length past `end` raises WireError."""
    key, value_start = read_varint(buffer, position, end)
    number, wire_type = key >> 3, key & 7
    if number == 0 or number >= 1 << 29:
        raise WireError(f"byte {position} starts a field of the impossible number {number}")
    value = 0
    if wire_type == VARINT:
        value, value_end = read_varint(buffer, value_start, end)
    elif wire_type == BYTES:
        length, value_start = read_varint(buffer, value_start, end)
        value_end = value_start + length
    elif wire_type in _WIDTHS:
        value_end = value_start + _WIDTHS[wire_type]
    else:
        raise WireError(f"byte {position} starts a field of the unknown wire type {wire_type}")
    if value_end > end:
        raise WireError(
            f"field {number} at byte {position} announces {value_end - value_start:,} bytes, "
            f"but only {max(end - value_start, 0):,} are left"
        )
    return Field(number, wire_type, position, value_start, value_end, value)


def walk(buffer: Buffer, position: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message that fills `buffer[position:end]`."""
    while position < end:
        field = read_field(buffer, position, end)
        yield field
        position = field.end


def signed(value: int) -> int:
    """Return a varint's value as the signed 64-bit number it stands for."""
    return value - (1 << 64) if value >> 63 else value


def encode_varint(value: int) -> bytes:
    """Return the encoding of an unsigned number."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_header(number: int, length: int) -> bytes:
    """Return the key and length that stand before a field of `length` bytes."""
    return encode_varint(number << 3 | BYTES) + encode_varint(length)
