"""Whole files, or none."""

import pytest

from pixelnet_tf.dataset.storage import read_json, remove_leftovers, replacing, write_json
from pixelnet_tf.errors import DataError, RunError


def test_json_there_and_back(tmp_path):
    path = str(tmp_path / "a" / "x.json")
    write_json(path, {"a": [1, "ü"]})
    assert read_json(path) == {"a": [1, "ü"]}


def test_an_error_keeps_the_old_file(tmp_path):
    path = str(tmp_path / "x")
    write_json(path, 1)

    def fill():
        with replacing(path) as temporary:
            open(temporary, "w").close()
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        fill()
    assert read_json(path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_and_broken(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_json(str(tmp_path / "x"))
    (tmp_path / "x").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_json(str(tmp_path / "x"))


def test_leftovers_of_a_killed_run_go(tmp_path):
    for name in (".a.tfrecord.12345678.tmp", "a.tfrecord", ".hidden"):
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.tfrecord"]
    remove_leftovers(str(tmp_path / "nowhere"))
