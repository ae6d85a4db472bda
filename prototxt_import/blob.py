"""Blobs, Caffe's arrays of weights, between the wire format and numpy."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np

from prototxt_import import wire

MAX_AXES = 32  # Caffe's own limit
MAX_PIECES = 10_000  # Caffe writes one
_CHUNK = 1 << 20  # elements handled at a time where a second copy is unavoidable
_DATA, _SHAPE, _DOUBLE = 5, 7, 8
_DTYPES: dict[int, np.dtype] = {_DATA: np.dtype("<f4"), _DOUBLE: np.dtype("<f8")}
_FIXED = {_DATA: wire.FIXED32, _DOUBLE: wire.FIXED64}


class BlobError(ValueError):
    """A blob that contradicts itself; the text says how."""


class Blob(NamedTuple):
    """A float32 array (read-only) and whether its shape was given in the old 4-axis form."""

    data: np.ndarray
    is_legacy_shape: bool


class _Run(NamedTuple):
    """Values that stand together in the file: packed (stride = itemsize) or each with a tag."""

    start: int
    values: int
    stride: int


def read_blob(file: io.FileIO, buffer: wire.Buffer, start: int, end: int) -> Blob:
    """Return the BlobProto that fills `buffer[start:end]`, a map of the unbuffered `file`.

    Values may be packed, one by one, or in several pieces; `double_data` counts before `data`,
    as in Caffe. A shape that does not fit the number of values raises BlobError before any
    memory is taken.
    """
    runs: dict[int, list[_Run]] = {_DATA: [], _DOUBLE: []}
    legacy: dict[int, int] = {}
    shape: list[int] = []
    position = start
    while position < end:
        field = wire.read_field(buffer, position, end)
        position = field.end
        if field.number in runs:
            run = _find_run(buffer, field, end)
            if len(runs[field.number]) == MAX_PIECES:
                raise BlobError(f"its data stand in more than {MAX_PIECES:,} pieces")
            runs[field.number].append(run)
            position = max(position, run.start - 1 + run.values * run.stride)
        elif field.number == _SHAPE and field.wire_type == wire.BYTES:
            shape += _read_dims(buffer, field.value_start, field.end)
            if len(shape) > MAX_AXES:
                raise BlobError(f"it declares more than {MAX_AXES} axes")
        elif 1 <= field.number <= 4 and field.wire_type == wire.VARINT:
            legacy[field.number] = wire.signed(field.value)
    dims = [legacy.get(axis, 0) for axis in (1, 2, 3, 4)] if legacy else shape
    number = _DOUBLE if runs[_DOUBLE] else _DATA
    count = sum(run.values for run in runs[number])
    _check_shape(dims, count)
    return Blob(_load(file, runs[number], number, count).reshape(dims), bool(legacy))


def blob_header(array: np.ndarray) -> bytes:
    """Return what stands before the values in a BlobProto that holds `array`: shape and length."""
    dims = b"".join(wire.encode_varint(size) for size in array.shape)
    packed = wire.encode_header(1, len(dims)) + dims if dims else b""
    shape = wire.encode_header(_SHAPE, len(packed)) + packed
    return shape + wire.encode_header(_DATA, 4 * array.size)


def _find_run(buffer: wire.Buffer, field: wire.Field, end: int) -> _Run:
    itemsize = _DTYPES[field.number].itemsize
    if field.wire_type == wire.BYTES:
        length = field.end - field.value_start
        if length % itemsize:
            raise BlobError(f"its data of {length:,} bytes are no whole number of values")
        return _Run(field.value_start, length // itemsize, itemsize)
    if field.wire_type != _FIXED[field.number]:
        raise BlobError(f"its data have the wrong wire type {field.wire_type}")
    if field.value_start - field.start != 1:  # an over-long key: valid, and never in a run
        return _Run(field.value_start, 1, itemsize)
    # One tag byte before each value: follow the tags in blocks instead of one by one.
    stride, tag, count, position = itemsize + 1, buffer[field.start], 0, field.start
    block = 16
    while position + stride <= end:
        # Twice as many each time: a run may be a single value, and a blob have many such runs.
        block = min(2 * block, _CHUNK, (end - position) // stride)
        tags = np.frombuffer(buffer[position : position + block * stride], np.uint8)[::stride]
        differing = np.flatnonzero(tags != tag)
        found = int(differing[0]) if differing.size else block
        count += found
        position += found * stride
        if found < block:
            break
    return _Run(field.start + 1, count, stride)


def _read_dims(buffer: wire.Buffer, start: int, end: int) -> list[int]:
    dims: list[int] = []
    for field in wire.walk(buffer, start, end):
        if field.number != 1:
            continue
        if len(dims) > MAX_AXES:
            break
        if field.wire_type == wire.VARINT:
            dims.append(wire.signed(field.value))
            continue
        position = field.value_start
        while position < field.end and len(dims) <= MAX_AXES:
            value, position = wire.read_varint(buffer, position, field.end)
            dims.append(wire.signed(value))
    return dims


def _check_shape(dims: list[int], count: int) -> None:
    if len(dims) > MAX_AXES:
        raise BlobError(f"it declares more than {MAX_AXES} axes")
    text = " x ".join(str(size) for size in dims) or "a single number"
    if any(size < 1 for size in dims):
        raise BlobError(f"it declares the shape {text}, with a dimension below 1")
    if math.prod(dims) != count:
        raise BlobError(
            f"it declares the shape {text}, that is {math.prod(dims):,} values, but holds {count:,}"
        )


def _load(file: io.FileIO, runs: list[_Run], number: int, count: int) -> np.ndarray:
    dtype = _DTYPES[number]
    array = np.empty(count, np.dtype("<f4"))
    filled = 0
    for run in runs:
        if run.stride == dtype.itemsize == array.itemsize:
            _read_into(file, run.start, array[filled : filled + run.values])
            filled += run.values
            continue
        for first in range(0, run.values, _CHUNK):
            size = min(_CHUNK, run.values - first)
            raw = np.zeros(size * run.stride, np.uint8)
            # The last value of a tagged run has no tag after it: its record is one byte short.
            used = raw[: size * run.stride - (run.stride - dtype.itemsize)]
            _read_into(file, run.start + first * run.stride, used)
            values = raw.reshape(size, run.stride)[:, : dtype.itemsize].copy().view(dtype)[:, 0]
            with np.errstate(over="ignore"):
                array[filled : filled + size] = values
            filled += size
    array.flags.writeable = False
    return array


def _read_into(file: io.FileIO, start: int, target: np.ndarray) -> None:
    view = target.data.cast("B")
    file.seek(start, io.SEEK_SET)
    while view:
        size = file.readinto(view)
        if not size:
            raise BlobError("the file became shorter while it was read")
        view = view[size:]
