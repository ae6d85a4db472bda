"""Shards: TFRecord files of one record a slice.

A record is a `tf.train.Example` whose arrays are zlib streams of their own. The container is not
compressed, so a record can be read by its place in the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence

import google_crc32c

from pixelnet_tf.dataset.encode import EncodedSlice
from pixelnet_tf.errors import DataError
from pixelnet_tf.io import remote
from pixelnet_tf.io.files import replacing

#: Changes when records are written in another way; older prepared cases are then done again.
RECORD_FORMAT = 2

#: TFRecord's frame: length (8 bytes) and its checksum (4), the payload, the payload's checksum.
_FRAME_HEAD, _FRAME_TAIL = struct.calcsize("<QI"), struct.calcsize("<I")


def write_shard(path: str, slices: Iterable[EncodedSlice]) -> list[tuple[int, int]]:
    """Write slices into one shard, whole or not at all.

    Returns:
        For each record, the byte offset of its payload in the file and the payload's length.

    Raises:
        RunError: writing failed, for instance on a full disk.
    """
    places = []
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for encoded in slices:
            record = to_record(encoded)
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", _checksum(length)))
            places.append((file.tell(), len(record)))
            file.write(record)
            file.write(struct.pack("<I", _checksum(record)))
    return places


def read_record(path: str, offset: int, length: int) -> bytes:
    """Read the payload of one record by its place, and verify its checksum.

    Args:
        offset, length: where the payload lies, as `write_shard` gave them.

    Raises:
        DataError: the file is missing, cut short, or not what was written there.
    """
    try:
        with remote.reading(path), open(path, "rb") as file:
            file.seek(offset - _FRAME_HEAD)
            frame = file.read(_FRAME_HEAD + length + _FRAME_TAIL)
    except (OSError, ValueError):
        frame = b""
    if len(frame) != _FRAME_HEAD + length + _FRAME_TAIL:
        raise DataError("missing or cut short", file=path, hint="run `pixelnet-tf prepare` again")
    return _payload(path, frame, offset, length)


def check_shard(path: str, places: Sequence[tuple[int, int]], size: int) -> None:
    """Read a whole shard and compare every record with its checksum; raises as `read_record`.

    Args:
        places: where each record lies, as `write_shard` gave them, in order.
        size: size of the file in bytes.
    """
    try:
        whole = os.path.getsize(path) == size
        with remote.reading(path), open(path, "rb") as file:
            for offset, length in places if whole else ():
                _payload(path, file.read(_FRAME_HEAD + length + _FRAME_TAIL), offset, length)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise DataError("missing or cut short", file=path, hint="run `pixelnet-tf prepare` again")


def _payload(path: str, frame: bytes, offset: int, length: int) -> bytes:
    payload = frame[_FRAME_HEAD:-_FRAME_TAIL]
    stored_length, stored = struct.unpack_from("<QI", frame.ljust(_FRAME_HEAD))
    if (stored_length != length or stored != _checksum(frame[:8])
            or struct.pack("<I", _checksum(payload)) != frame[-_FRAME_TAIL:]):
        raise DataError(f"damaged: the record at byte {offset} does not have the checksum that "
                        "was written with it", file=path,
                        hint="run `pixelnet-tf prepare` again, which makes this case anew")
    return payload


def _checksum(data: bytes) -> int:
    """CRC-32C as TFRecord writes it, rotated and shifted (its documentation says "masked")."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def to_record(encoded: EncodedSlice) -> bytes:
    """The message `tf.train.Example` that holds an encoded slice, as TensorFlow serializes it with
    its features in order; without TensorFlow, which takes longer to load than a case to write."""
    features = {
        "brain": _stream(encoded.brain), "height": _number(encoded.height),
        "image": _stream(encoded.image), "labels": _stream(encoded.labels),
        "width": _number(encoded.width)}
    entries = (_field(1, name.encode()) + _field(2, value) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _stream(data: bytes) -> bytes:
    """A `Feature` of one string."""
    return _field(1, _field(1, data))


def _number(value: int) -> bytes:
    """A `Feature` of one whole number."""
    return _field(3, _field(1, _varint(value)))


def _field(number: int, data: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes, a text or a message."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """A whole number of protobuf's wire format, not negative: seven bits a byte, the lowest first.
    """
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
