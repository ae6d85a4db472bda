import pytest

from prototxt_import import wire


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\0"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_varint_both_ways(value, encoded):
    assert wire.encode_varint(value) == encoded
    assert wire.read_varint(encoded, 0, len(encoded)) == (value, len(encoded))


def test_negative_numbers_take_64_bits():
    value, _ = wire.read_varint(b"\xff" * 9 + b"\x01", 0, 10)
    assert wire.signed(value) == -1


def test_walk_gives_each_field_with_its_span():
    data = b"\x08\x05" + b"\x12\x02ab" + b"\x1d\0\0\x80\x3f" + b"\x21" + b"\0" * 8
    fields = list(wire.walk(data, 0, len(data)))
    assert [(f.number, f.wire_type) for f in fields] == [(1, 0), (2, 2), (3, 5), (4, 1)]
    assert fields[0].value == 5
    assert data[fields[1].value_start : fields[1].end] == b"ab"
    assert fields[-1].end == len(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x80", "in the middle of a number"),
        (b"\x80" * 10 + b"\x01", "more than 10 bytes"),
        (b"\x00\x01", "impossible number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x12\x05ab", "announces 5 bytes, but only 2 are left"),
        (b"\x12" + b"\xff" * 9 + b"\x01", "but only 0 are left"),
        (b"\x1d\0\0", "announces 4 bytes, but only 2"),
    ],
)
def test_broken_bytes_are_named(data, text):
    with pytest.raises(wire.WireError, match=text):
        list(wire.walk(data, 0, len(data)))


def test_header_counts_the_length():
    assert wire.encode_header(100, 300) == b"\xa2\x06\xac\x02"
