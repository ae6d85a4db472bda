"""Shards: TFRecord files of one record a slice.

A record is a `tf.train.Example` whose arrays are zlib streams of their own. The container is not
compressed, so a record can be read by its place in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import google_crc32c
import tensorflow as tf

from pixelnet_tf.dataset.encode import EncodedSlice
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.io import remote
from pixelnet_tf.io.files import replacing

#: Changes when records are written in another way; older prepared cases are then done again.
RECORD_FORMAT = 2

#: TFRecord's frame: length (8 bytes) and its checksum (4), the payload, the payload's checksum.
_FRAME_HEAD, _FRAME_TAIL = struct.calcsize("<QI"), struct.calcsize("<I")

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "labels": tf.io.FixedLenFeature([], tf.string),
    "brain": tf.io.FixedLenFeature([], tf.string),
    "height": tf.io.FixedLenFeature([], tf.int64),
    "width": tf.io.FixedLenFeature([], tf.int64),
}


def write_shard(path: str, slices: Iterable[EncodedSlice]) -> list[tuple[int, int]]:
    """Write slices into one shard, whole or not at all.

    Returns:
        For each record, the byte offset of its payload in the file and the payload's length.

    Raises:
        RunError: writing failed, for instance on a full disk.
    """
    places, end = [], 0
    with replacing(path) as temporary:
        try:
            with tf.io.TFRecordWriter(temporary) as writer:
                for encoded in slices:
                    record = to_example(encoded).SerializeToString(deterministic=True)
                    writer.write(record)
                    places.append((end + _FRAME_HEAD, len(record)))
                    end += _FRAME_HEAD + len(record) + _FRAME_TAIL
        except tf.errors.ResourceExhaustedError:
            raise RunError("cannot be written: no space is left on the device", file=path) from None
        except tf.errors.OpError as error:
            raise RunError(f"cannot be written: {error.message}", file=path) from None
    return places


def read_record(path: str, offset: int, length: int) -> bytes:
    """Read the payload of one record by its place, and verify its checksum.

    Args:
        offset, length: where the payload lies, as `write_shard` gave them.

    Raises:
        DataError: the file is missing, cut short, or not what was written there.
    """
    try:
        with remote.reading(path), tf.io.gfile.GFile(path, "rb") as file:
            file.seek(offset - _FRAME_HEAD)
            frame = file.read(_FRAME_HEAD + length + _FRAME_TAIL)
    except (OSError, ValueError, tf.errors.OpError):
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
        whole = tf.io.gfile.stat(path).length == size
        with remote.reading(path), tf.io.gfile.GFile(path, "rb") as file:
            for offset, length in places if whole else ():
                _payload(path, file.read(_FRAME_HEAD + length + _FRAME_TAIL), offset, length)
    except (ValueError, tf.errors.OpError):
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


def to_example(encoded: EncodedSlice) -> tf.train.Example:
    """Put an encoded slice into the message that a record holds."""
    def stream(data: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    def number(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    return tf.train.Example(features=tf.train.Features(feature={
        "image": stream(encoded.image), "labels": stream(encoded.labels),
        "brain": stream(encoded.brain), "height": number(encoded.height),
        "width": number(encoded.width)}))


def parse_record(serialized: tf.Tensor, channels: int) -> dict[str, tf.Tensor]:
    """Decode one record inside a graph.

    Args:
        serialized: scalar string, as `PreparedStudy.read_record_bytes` or a TFRecordDataset
            gives it.
        channels: number of the image's channels.

    Returns:
        image (height, width, channel) float32, labels (height, width) int32 class indices,
        brain (height, width) bool.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.stack([record["height"], record["width"]])

    def array(name: str, dtype: tf.DType, *last: int) -> tf.Tensor:
        flat = tf.io.decode_raw(tf.io.decode_compressed(record[name], "ZLIB"), dtype)
        return tf.ensure_shape(tf.reshape(flat, [*tf.unstack(shape), *last]), [None, None, *last])

    return {"image": array("image", tf.float32, channels),
            "labels": tf.cast(array("labels", tf.uint8), tf.int32),
            "brain": tf.cast(array("brain", tf.uint8), tf.bool)}
