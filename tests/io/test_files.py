"""Whole files, or none."""

import os
import stat

import pytest

from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.io import files
from pixelnet_tf.io.files import (
    digest,
    file_digest,
    read_json,
    read_json_lines,
    read_json_object,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_json,
    write_text,
)


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

    with pytest.raises(RunError, match="no space is left"):
        fill()
    assert read_json(path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_and_broken(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_json(str(tmp_path / "x"))
    # Python refuses numbers of thousands of digits by an error that is not JSON's.
    for text in ("{", "1" * 5000, "[" * 100_000):
        (tmp_path / "x").write_text(text)
        with pytest.raises(DataError, match="is not JSON"):
            read_json(str(tmp_path / "x"))
        (tmp_path / "x").write_text('{"step": 1}\n' + text)
        assert read_json_lines(str(tmp_path / "x")) == [{"step": 1}]


def test_text_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 10)
    (tmp_path / "x").write_text("[1,2,3,45]")
    assert read_json(str(tmp_path / "x")) == [1, 2, 3, 45]
    (tmp_path / "x").write_text("[1,2,3,456]")
    with pytest.raises(DataError, match="is larger than"):
        read_json(str(tmp_path / "x"))


def test_leftovers_of_a_killed_run_go(tmp_path):
    for name in (".a.tfrecord.12345678.tmp", "a.tfrecord", ".hidden"):
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.tfrecord"]
    remove_leftovers(str(tmp_path / "nowhere"))


def test_what_cannot_be_json_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_asked_for(tmp_path):
    write_json(tmp_path / "x", [1])
    with pytest.raises(DataError, match="must hold a JSON object, holds list; predict again"):
        read_json_object(tmp_path / "x", "predict again")


def test_lines_end_at_a_broken_one(tmp_path):
    assert read_json_lines(tmp_path / "x") == []
    write_text(tmp_path / "x", '{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(tmp_path / "x") == [{"step": 1}, {"step": 2}]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for text in ("one", "two"):
        with replacing_folder(tmp_path / "a") as folder:
            write_text(folder / "b" / "c", text)
    assert (tmp_path / "a" / "b" / "c").read_text() == "two"
    with pytest.raises(RunError, match="no space is left"):
        _fill_and_fail(tmp_path / "a")
    assert (tmp_path / "a" / "b" / "c").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _fill_and_fail(path):
    with replacing_folder(path) as folder:
        write_text(folder / "d", "three")
        raise OSError(28, "No space left on device")


def test_the_disk_holds_a_file_before_it_is_named(tmp_path, monkeypatch):
    """Order of events: the content is synced, then moved, then the folder's names are synced."""
    events = []
    real_replace, real_fsync = os.replace, os.fsync

    def replace(source, target):
        events.append("replace")
        real_replace(source, target)

    def fsync(handle):
        events.append("sync " + ("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"))
        real_fsync(handle)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "x", "text")
    assert events == ["sync file", "replace", "sync folder"]


def test_digests(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert file_digest(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
