import pytest

from prototxt_import.schema import ENUMS, MESSAGES, new_message


def test_pixelnet_fields_have_the_original_numbers(encode):
    layer = new_message("LayerParameter")
    layer.rand_comp_param.compression_rate.extend((1, 224))
    layer.rand_comp_param.pad = True
    layer.norm_param.fix_scale = False
    found = dict(encode.walk(layer.SerializeToString()))
    assert found[150] == b"\x08\x01\x08\xe0\x01\x10\x01"
    assert found[149] == b"\x20\x00"


def test_numbers_and_names_are_unique_in_each_message():
    for name, fields in MESSAGES.items():
        entries = [entry.split(" ") for entry in fields.split(", ")]
        for column in (0, 1):
            values = [entry[column] for entry in entries]
            assert len(set(values)) == len(values), name


def test_every_enum_and_message_is_used():
    text = " ".join(MESSAGES.values())
    for enum in ENUMS:
        assert f"@{enum}" in text
    for message in set(MESSAGES) - {"NetParameter", "SolverParameter", "SolverState"}:
        assert f" {message}" in text


def test_defaults():
    assert new_message("LRNParameter").local_size == 5
    assert new_message("PoolingParameter").round_mode == 0
    assert new_message("NormalizeParameter").eps == pytest.approx(1e-10)
    assert new_message("SolverParameter").type == "SGD"


def test_what_caffe_wrote_is_known_byte_for_byte(shared_caffe, encode):
    """Every layer that Caffe saved, without its blobs, comes out again as it went in."""
    for file in ("narrow_init.caffemodel", "lin_bn_init.caffemodel", "legacy_v1.caffemodel"):
        for number, value in encode.walk((shared_caffe / file).read_bytes()):
            if number not in (2, 100):
                continue
            message = new_message("LayerParameter" if number == 100 else "V1LayerParameter")
            message.ParseFromString(value)
            assert message.SerializeToString() == value
            assert message.name
            assert str(message)  # no unknown field hides in it
            known = {field.number for field in message.DESCRIPTOR.fields}
            assert {n for n, _ in encode.walk(value)} <= known
