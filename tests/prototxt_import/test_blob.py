import io
import struct

import numpy as np
import pytest

from prototxt_import.blob import BlobError, blob_header, read_blob

VALUES = np.arange(6, dtype=np.float32) - 2.5


def read(data: bytes, pad: bytes = b"pad"):
    """Read a blob that stands in the middle of a file, as it does in a model."""
    whole = pad + data + b"tail"
    return read_blob(io.BytesIO(whole), whole, len(pad), len(pad) + len(data))


def one_by_one(values) -> bytes:
    return b"".join(b"\x2d" + struct.pack("<f", v) for v in values)


def test_packed_data_and_shape(encode):
    result = read(encode.blob((2, 3), VALUES))
    np.testing.assert_array_equal(result.data, VALUES.reshape(2, 3))
    assert result.data.dtype == np.float32
    assert not result.is_legacy_shape
    assert not result.data.flags.writeable


def test_every_encoding_of_the_values_gives_the_same(encode):
    shape = encode.field(7, encode.field(1, b"\x06"))
    packed, split = encode.field(5, encode.floats(VALUES)), b""
    for piece in np.split(VALUES, [1, 4]):
        split += encode.field(5, encode.floats(piece))
    mixed = one_by_one(VALUES[:2]) + encode.field(5, encode.floats(VALUES[2:5]))
    mixed += one_by_one(VALUES[5:])
    for data in (packed, split, one_by_one(VALUES), mixed):
        np.testing.assert_array_equal(read(data + shape).data, VALUES)
        np.testing.assert_array_equal(read(shape + data).data, VALUES)
        interrupted = data + encode.field(6, encode.floats(VALUES)) + shape  # diff is passed over
        np.testing.assert_array_equal(read(interrupted).data, VALUES)


def test_long_run_of_single_values(encode):
    values = np.random.default_rng(0).standard_normal(1_100_000).astype("f4")
    records = np.zeros((len(values), 5), np.uint8)
    records[:, 0] = 0x2D
    records[:, 1:] = values.view(np.uint8).reshape(-1, 4)
    data = encode.field(7, encode.field(1, encode.varint(len(values)))) + records.tobytes()
    np.testing.assert_array_equal(read(data).data, values)


def test_over_long_tag_is_one_value(encode):
    data = encode.field(7, encode.field(1, b"\x01")) + b"\xad\x00" + struct.pack("<f", 1.5)
    np.testing.assert_array_equal(read(data).data, [1.5])


def test_double_data_count_before_float_data(encode):
    doubles = struct.pack("<2d", 0.1, -3.0)
    shape = encode.field(7, encode.field(1, b"\x02"))
    expected = np.array([0.1, -3.0]).astype("f4")
    alone = shape + encode.field(8, doubles)
    np.testing.assert_array_equal(read(alone).data, expected)
    np.testing.assert_array_equal(read(alone + encode.field(5, b"\0" * 8)).data, expected)
    single = shape + b"\x41" + doubles[:8] + b"\x41" + doubles[8:]
    np.testing.assert_array_equal(read(single).data, expected)


def test_old_four_axes_count_before_shape(encode):
    result = read(encode.legacy_blob((1, 1, 2, 3), VALUES))
    assert result.is_legacy_shape
    assert result.data.shape == (1, 1, 2, 3)


def test_a_shape_without_axes_is_one_number(encode):
    assert read(encode.field(7, b"") + encode.field(5, encode.floats([4]))).data.shape == ()


@pytest.mark.parametrize("shape", [(), (1,), (4, 3, 2, 2), (300, 2)])
def test_header_written_is_read_back(shape):
    array = np.random.default_rng(1).random(shape, np.float32)
    result = read(blob_header(array) + array.tobytes()).data
    assert result.shape == shape
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, 2), "2 x 2, that is 4 values, but holds 6"),
        ((-1, 6), "below 1"),
        ((0, 6), "below 1"),
        ((2**40, 2**40), "holds 6"),
        ((2**62,), "holds 6"),
        ((1,) * 33, "more than 32 axes"),
    ],
)
def test_shape_that_does_not_fit(encode, shape, text):
    with pytest.raises(BlobError, match=text):
        read(encode.blob(shape, VALUES))


def test_data_of_broken_length(encode):
    with pytest.raises(BlobError, match="7 bytes are no whole number"):
        read(encode.field(5, b"1234567"))


def test_data_as_varint(encode):
    with pytest.raises(BlobError, match="wrong wire type 0"):
        read(encode.field(5, 7))
