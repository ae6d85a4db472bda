"""Opening a prepared study and reading it back."""

import json
import shutil

import numpy as np
import pytest

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.pipeline import in_turn, parse_record, training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.volumes.case_volume import prepare_case
from tests.earlier_version import copy_without_manifest


def test_a_volume_comes_back_as_it_was_prepared(small_prepared, small_study, small_config):
    study = PreparedStudy.open(small_prepared)
    case = find_cases(small_study, small_config.study)[1]
    expected = prepare_case(case, small_config.study, small_config.prepare)
    volume = study.read_volume(case.name)
    np.testing.assert_array_equal(volume.images, expected.images)
    np.testing.assert_array_equal(volume.labels, expected.labels)
    np.testing.assert_array_equal(volume.brain, expected.brain)
    assert volume.normalization == expected.normalization
    assert volume.geometry.header == expected.geometry.header
    assert (volume.plan.slices, volume.plan.height, volume.plan.width) == (12, 28, 32)


def test_records_fit_their_rows(small_prepared):
    study = PreparedStudy.open(small_prepared)
    assert len(study.index) == 48
    for row in (0, 17, 47):
        record = parse_record(study.read_record_bytes(row), 3)
        assert record["image"].shape == (study.index.height[row], study.index.width[row], 3)
        np.testing.assert_array_equal(np.bincount(np.ravel(record["labels"]), minlength=4),
                                      study.index.class_counts[row])
        assert np.mean(record["brain"]) == pytest.approx(study.index.brain_fraction[row])


def test_what_stands_beside_the_shards(small_prepared, small_config):
    study = PreparedStudy.open(small_prepared)
    assert study.config == small_config
    assert study.labelled
    assert study.cases == study.split.cases
    assert len(study.split.folds) == 3
    assert study.case_details(study.cases[0])["smir_id"] is None


def test_not_a_prepared_study(tmp_path):
    with pytest.raises(DataError, match="not a prepared study"):
        PreparedStudy.open(tmp_path)


def test_a_shard_that_was_cut(small_prepared, tmp_path):
    shutil.copytree(small_prepared, tmp_path / "copy")
    study = PreparedStudy.open(tmp_path / "copy")
    shard = tmp_path / "copy" / study.index.shard[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="cut short"):
        study.read_volume(study.cases[0])
    with pytest.raises(DataError, match="is not in the prepared study"):
        study.read_volume("nobody")


def test_a_flipped_bit_in_a_shard_is_told_by_its_file(small_prepared, tmp_path):
    """In a volume and in a training; the checksum is TFRecord's own."""
    shutil.copytree(small_prepared, tmp_path / "copy")
    study = PreparedStudy.open(tmp_path / "copy")
    shard = tmp_path / "copy" / study.index.shard[0]
    damaged = bytearray(shard.read_bytes())
    damaged[int(study.index.offset[1]) + 40] ^= 4
    shard.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"tfrecord: damaged: the record at byte \d+ does not have"):
        study.read_volume(study.cases[0])
    sampling = SamplingConfig(pixels=10)
    schedule = SliceSchedule(study, study.cases[:1], sampling, 1)
    batches = training_batches(study, schedule, sampling, batch_slices=12)
    with pytest.raises(DataError, match="tfrecord: damaged") as caught:
        list(in_turn(batches.take(2)))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(("name", "change", "words"), [
    ("index.json", lambda tree: tree["columns"].pop("slice"), "columns.slice must be a column"),
    ("index.json", lambda tree: tree["columns"]["case"].append(0), "has 48 rows, columns.case 49"),
    ("index.json", lambda tree: tree["columns"]["case"].__setitem__(3, 9), "count into the 4"),
    ("index.json", lambda tree: tree["columns"]["offset"].__setitem__(3, 10**30), "offset must be"),
    ("split.json", lambda tree: tree["split"].pop("train"), "train is missing"),
    ("split.json", lambda tree: tree.pop("settings"), "settings must map keys to values, got None"),
    ("split.json", lambda tree: tree["split"].update(test="ab"), "test must be a list"),
])
def test_a_file_that_holds_something_else(name, change, words, small_prepared, tmp_path):
    """The JSON of a prepared study, as another program or a hand may have left it."""
    copy_without_manifest(small_prepared, tmp_path / "copy")
    path = tmp_path / "copy" / name
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=f"{name}: .*{words}"):
        PreparedStudy.open(tmp_path / "copy")


@pytest.mark.parametrize(("change", "words"), [
    (lambda tree: tree.pop("shard"), "shard is missing"),
    (lambda tree: tree["geometry"].update(header="eA=="), "geometry is none"),
    (lambda tree: tree["geometry"]["affine"][0].__setitem__(0, 0), "geometry is none: .*singular"),
    (lambda tree: tree["geometry"].update(shape=[3, 4]), "geometry.shape must be a list of 3"),
    (lambda tree: tree["geometry"]["shape"].__setitem__(0, 5), "must be the header's"),
    (lambda tree: tree["normalization"].pop("t2"), "another shape"),
])
def test_the_file_of_a_case_that_holds_something_else(change, words, small_prepared, tmp_path):
    copy_without_manifest(small_prepared, tmp_path / "copy")
    study = PreparedStudy.open(tmp_path / "copy")
    path = tmp_path / "copy" / "cases" / f"{study.cases[1]}.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=words):
        study.read_volume(study.cases[1])


def test_a_configuration_that_is_no_yaml(small_prepared, tmp_path):
    """PyYAML raises ValueError for a date that there is not."""
    copy_without_manifest(small_prepared, tmp_path / "copy")
    for text in ("study: [", "study: {name: 2020-13-45}", "study: !!python/name:os x", "- 1"):
        (tmp_path / "copy" / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: (cannot be read as YAML|must hold)"):
            PreparedStudy.open(tmp_path / "copy")
