"""Shards: a record by its place, and the same from TFRecordDataset."""

import errno

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.dataset.encode import EncodedSlice, encode_slices
from pixelnet_tf.dataset.pipeline import parse_record
from pixelnet_tf.dataset.shards import to_record, write_shard
from pixelnet_tf.errors import RunError
from pixelnet_tf.volumes.case_volume import PreparedVolume


def volume(labelled: bool = True) -> PreparedVolume:
    rng = np.random.default_rng(0)
    return PreparedVolume(
        "A", rng.normal(size=(3, 6, 5, 2)).astype(np.float32),
        rng.integers(0, 4, (3, 6, 5)).astype(np.uint8) if labelled else None,
        rng.random((3, 6, 5)) < 0.5, None, None, {})


def test_counts_and_fraction():
    source = volume()
    first = encode_slices(source, 4)[0]
    assert first.class_counts == tuple((source.labels[0] == k).sum() for k in range(4))
    assert first.brain_fraction == pytest.approx(source.brain[0].sum() / 30)
    assert encode_slices(volume(labelled=False), 4)[0].class_counts == (0, 0, 0, 0)


def test_records_come_back_by_their_place_and_in_order(tmp_path):
    source = volume()
    path = str(tmp_path / "cases" / "A.tfrecord")
    places = write_shard(path, encode_slices(source, 4))
    data = (tmp_path / "cases" / "A.tfrecord").read_bytes()
    parse = tf.function(lambda record: parse_record(record, 2))
    for number, (record, (offset, length)) in enumerate(
            zip(tf.data.TFRecordDataset(path), places, strict=True)):
        assert record.numpy() == data[offset:offset + length]
        parsed = parse(record)
        assert {name: tensor.dtype for name, tensor in parsed.items()} == {
            "image": tf.float32, "labels": tf.int32, "brain": tf.bool}
        np.testing.assert_array_equal(parsed["image"], source.images[number])
        np.testing.assert_array_equal(parsed["labels"], source.labels[number])
        np.testing.assert_array_equal(parsed["brain"], source.brain[number])
    assert len(places) == 3


def test_static_channels_in_a_pipeline(tmp_path):
    path = str(tmp_path / "A.tfrecord")
    write_shard(path, encode_slices(volume(), 4))
    dataset = tf.data.TFRecordDataset(path).map(lambda record: parse_record(record, 2))
    assert dataset.element_spec["image"].shape.as_list() == [None, None, 2]
    assert dataset.element_spec["labels"].shape.as_list() == [None, None]


@pytest.mark.parametrize("size", [1, 127, 128, 20_000])
def test_records_are_those_that_tensorflow_writes(size, tmp_path):
    def stream(data):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    def number(value):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    encoded = EncodedSlice(size, 3, size * b"i", b"", b"brain", (), 0.0)
    example = tf.train.Example(features=tf.train.Features(feature={
        "image": stream(encoded.image), "labels": stream(encoded.labels),
        "brain": stream(encoded.brain), "height": number(encoded.height),
        "width": number(encoded.width)})).SerializeToString(deterministic=True)
    assert to_record(encoded) == example
    write_shard(str(tmp_path / "mine"), [encoded, encoded])
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(example)
        writer.write(example)
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_equal_slices_give_equal_bytes(tmp_path):
    for name in "ab":
        write_shard(str(tmp_path / name), encode_slices(volume(), 4))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_shard(tmp_path):
    path = tmp_path / "A.tfrecord"
    path.write_bytes(b"old")

    def slices():
        yield encode_slices(volume(), 4)[0]
        raise OSError(errno.ENOSPC, "write failed")

    with pytest.raises(RunError, match=r"A\.tfrecord.*no space is left"):
        write_shard(str(path), slices())
    assert [p.name for p in tmp_path.iterdir()] == ["A.tfrecord"]
    assert path.read_bytes() == b"old"


def test_the_encoding_module_does_not_load_tensorflow():
    import subprocess
    import sys
    code = ("import sys; from pixelnet_tf.dataset.encode import encode_case; "
            "from pixelnet_tf.volumes.checks import check_case; "
            "sys.exit('tensorflow' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert EncodedSlice.__module__ == "pixelnet_tf.dataset.encode"
