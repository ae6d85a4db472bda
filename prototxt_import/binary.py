"""Reading `.caffemodel` files, of the current format, V1 and V0."""

from __future__ import annotations

import io
import mmap
import os
import string

import numpy as np
from google.protobuf.message import DecodeError, Message

from prototxt_import import wire
from prototxt_import.blob import Blob, BlobError, read_blob
from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import check_model_file
from prototxt_import.message_value import is_repeated
from prototxt_import.raw_net import RawLayer, RawNet
from prototxt_import.schema import new_message

MAX_LAYERS = 100_000
MAX_DESCRIPTION_BYTES = 16 << 20  # of one layer without its blobs
_NET_LAYER, _NET_V1_LAYER = 100, 2
_BLOBS, _V1_BLOBS, _V0_LAYER, _V0_BLOBS = 7, 6, 1, 50
_FINITE_CHUNK = 1 << 20
_PRINTABLE = frozenset(bytes(string.printable, "ascii"))
_DAMAGED = "the file is damaged or no caffemodel; copy or download it again"


def read_caffemodel(path: str | os.PathLike, *, allow_nan: bool = False) -> RawNet:
    """Return the network of a binary model, blobs as float32 arrays of their own memory.

    Reads each weight once, from the file into its array; everything else is parsed under
    Caffe's schema. Raises CaffeFormatError for damaged files, blobs whose shape does not fit
    their data, and (unless `allow_nan`) weights that are NaN or infinite.
    """
    head = check_model_file(path, "caffemodel")
    path = os.fspath(path)
    if all(byte in _PRINTABLE for byte in head):
        raise CaffeFormatError(
            "this is text, perhaps a prototxt, not a caffemodel; pass a prototxt as prototxt", path
        )
    with (
        open(path, "rb", buffering=0) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer,
    ):
        return _Reader(path, file, buffer, allow_nan).read()


class _Reader:
    def __init__(self, path: str, file: io.FileIO, buffer: mmap.mmap, allow_nan: bool) -> None:
        self.path = path
        self.file = file
        self.buffer = buffer
        self.allow_nan = allow_nan

    def read(self) -> RawNet:
        rest = bytearray()
        layers: dict[int, list[RawLayer]] = {_NET_LAYER: [], _NET_V1_LAYER: []}
        try:
            for field in wire.walk(self.buffer, 0, len(self.buffer)):
                found = layers.get(field.number)
                if found is None or field.wire_type != wire.BYTES:
                    self._keep(rest, field, "the network")
                    continue
                if len(found) >= MAX_LAYERS:
                    raise self._error(f"more than {MAX_LAYERS:,} layers; {_DAMAGED}")
                found.append(self._read_layer(field, len(found)))
        except wire.WireError as error:
            raise self._error(f"{error}; {_DAMAGED}") from None
        net = self._parse(new_message("NetParameter"), bytes(rest), "the network's description")
        # Where old layers stand, Caffe ignores new ones.
        chosen = layers[_NET_V1_LAYER] or layers[_NET_LAYER]
        if not chosen:
            raise self._error(f"it holds no layer; {_DAMAGED}")
        return RawNet(net, chosen, self.path)

    def _read_layer(self, field: wire.Field, index: int) -> RawLayer:
        is_v1 = field.number == _NET_V1_LAYER
        blob_number = _V1_BLOBS if is_v1 else _BLOBS
        where = f"layer number {index + 1} (at byte {field.start:,})"
        rest, blobs = bytearray(), []
        try:
            for part in wire.walk(self.buffer, field.value_start, field.end):
                if part.number == blob_number and part.wire_type == wire.BYTES:
                    blobs.append(part)
                elif is_v1 and part.number == _V0_LAYER and part.wire_type == wire.BYTES:
                    old = bytearray()
                    for inner in wire.walk(self.buffer, part.value_start, part.end):
                        if inner.number == _V0_BLOBS and inner.wire_type == wire.BYTES:
                            blobs.append(inner)
                        else:
                            self._keep(old, inner, where)
                    rest += wire.encode_header(_V0_LAYER, len(old)) + old
                else:
                    self._keep(rest, part, where)
        except wire.WireError as error:
            raise self._error(f"{where}: {error}; {_DAMAGED}") from None
        empty = new_message("V1LayerParameter" if is_v1 else "LayerParameter")
        message = self._parse(empty, bytes(rest), where)
        name = message.name or (message.layer.name if is_v1 else "")
        where = f"layer {name!r}" if name else where
        return RawLayer(
            message, tuple(self._read_blob(part, where, i) for i, part in enumerate(blobs))
        )

    def _read_blob(self, field: wire.Field, where: str, index: int) -> Blob:
        where = f"{where}, blob {index}"
        try:
            blob = read_blob(self.file, self.buffer, field.value_start, field.end)
        except (wire.WireError, BlobError) as error:
            raise self._error(f"{where}: {error}; {_DAMAGED}") from None
        if not self.allow_nan:
            check_finite(blob.data, where, self.path)
        return blob

    def _keep(self, rest: bytearray, field: wire.Field, where: str) -> None:
        if len(rest) + field.end - field.start > MAX_DESCRIPTION_BYTES:
            raise self._error(
                f"{where} is described by more than {MAX_DESCRIPTION_BYTES:,} bytes; {_DAMAGED}"
            )
        rest += self.buffer[field.start : field.end]

    def _parse(self, message: Message, data: bytes, where: str) -> Message:
        try:
            message.ParseFromString(data)
        except (DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._error(f"{where} cannot be read ({error}); {_DAMAGED}") from None
        broken = _no_text(message)
        if broken is not None:
            raise self._error(f"{where} has a text that is no UTF-8 ({broken!r}); {_DAMAGED}")
        return message

    def _error(self, text: str) -> CaffeFormatError:
        return CaffeFormatError(text, self.path)


def check_finite(array: np.ndarray, where: str, path: str) -> None:
    """Raise CaffeFormatError naming the first value of `array` that is NaN or infinite."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _FINITE_CHUNK):
        finite = np.isfinite(flat[start : start + _FINITE_CHUNK])
        if not finite.all():
            first = start + int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(first, array.shape))
            raise CaffeFormatError(
                f"{where}: the weight at {index} is {flat[first]}; the training behind this model "
                "diverged, or the file is damaged (allow_nan=True reads it all the same)",
                path,
            )


def _no_text(message: Message) -> bytes | None:
    """The first text within a message that is not UTF-8: protobuf hands it out as bytes."""
    for field, value in message.ListFields():
        if field.cpp_type not in (field.CPPTYPE_STRING, field.CPPTYPE_MESSAGE):
            continue
        if field.type == field.TYPE_BYTES:
            continue
        for item in value if is_repeated(field) else (value,):
            if isinstance(item, bytes):
                return item
            found = None if isinstance(item, str) else _no_text(item)
            if found is not None:
                return found
    return None
