"""Opening a prepared study and reading it back."""

import shutil

import numpy as np
import pytest

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.shards import parse_record
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.prepare import prepare_case


def test_a_volume_comes_back_as_it_was_prepared(small_prepared, small_study, small_config):
    study = PreparedStudy.open(small_prepared)
    case = find_cases(small_study, small_config.study)[1]
    expected, volume = prepare_case(case, small_config), study.read_volume(case.name)
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
