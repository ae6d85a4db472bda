import json
import multiprocessing
import os
import shutil

import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.io import manifest
from pixelnet_tf.io.files import (
    begin_folder,
    check_written,
    read_bytes,
    read_json,
    remove,
    replacing,
    write_bytes,
    write_json,
    write_text,
)
from pixelnet_tf.io.manifest import MANIFEST


@pytest.fixture
def folder(tmp_path):
    begin_folder(tmp_path / "out")
    return tmp_path / "out"


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def test_a_file_is_told_before_it_is_moved_and_after(folder, monkeypatch):
    before = []
    move = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (before.append(lines(folder)), move(a, b)))
    write_text(folder / "cases" / "a.json", "abc")
    # SHA-256 of "abc" from FIPS 180-2, appendix B.1.
    told = {"path": "cases/a.json", "bytes": 3, "sha256":
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert [line["event"] for line in before[0]] == ["begun", "announced"]
    announced, written = lines(folder)[1:]
    assert announced.items() >= {"event": "announced", **told}.items()
    assert written.items() >= {"event": "written", **told}.items()


@pytest.mark.parametrize("damage", [
    lambda data: b"x" + data[1:], lambda data: data[:-1], lambda data: data + b" ",
    lambda data: b""])
def test_what_is_read_is_compared(folder, damage):
    write_json(folder / "a.json", {"a": 1})
    assert read_json(folder / "a.json") == {"a": 1}
    data = (folder / "a.json").read_bytes()
    (folder / "a.json").write_bytes(damage(data))
    with pytest.raises(DataError, match=r"a.json: is not the file that was written .*take a copy; "
                       r"`pixelnet-tf check .*out` looks .* --accept a.json") as error:
        read_bytes(folder / "a.json", "take a copy")
    assert error.value.file == str(folder / "a.json")
    with pytest.raises(DataError, match="is not the file that was written"):
        check_written(folder / "a.json")
    write_json(folder / "a.json", {"a": 1})
    assert read_json(folder / "a.json") == {"a": 1}


def test_files_of_a_data_set_of_bids_are_told_of_at_their_depth(folder):
    place = folder / "sub-01" / "ses-02" / "anat" / "sub-01_ses-02_dseg.tsv"
    write_text(place, "index")
    assert list(manifest.read(folder).entries) == [place.relative_to(folder).as_posix()]
    place.write_text("other")
    with pytest.raises(DataError, match="is not the file that was written"):
        read_bytes(place)


def test_a_file_that_nothing_was_told_of_is_read_as_it_is(folder, tmp_path):
    (folder / "notes.txt").write_text("of a user")
    deep = folder.joinpath("a", "b", "c", "d")
    deep.mkdir(parents=True)
    write_text(deep / "x", "too deep for this manifest")
    write_text(tmp_path / "beside.txt", "x")
    assert read_bytes(folder / "notes.txt") == b"of a user"
    assert manifest.read(folder).entries == {}
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("crashes", [1, 3])
def test_a_write_that_stopped_before_the_move_leaves_no_damage(folder, monkeypatch, crashes):
    write_text(folder / "a", "first")
    for number in range(crashes):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write_text(folder / "a", f"not moved {number}")
    assert read_bytes(folder / "a") == b"first"
    assert manifest.read(folder).entries["a"].there


def test_a_write_that_stopped_after_the_move_leaves_no_damage(folder, monkeypatch):
    write_text(folder / "a", "first")
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "settle", lambda *_: None)
        write_text(folder / "a", "second")
    assert read_bytes(folder / "a") == b"second"
    # And what was written before is still the file that may be there.
    (folder / "a").write_text("first")
    assert read_bytes(folder / "a") == b"first"
    write_text(folder / "a", "third")
    (folder / "a").write_text("first")
    with pytest.raises(DataError):
        read_bytes(folder / "a")


def test_a_file_that_was_removed_need_not_be_there(folder):
    write_text(folder / "a", "x")
    write_text(folder / "b", "x")
    remove(folder / "a", folder / "never there")
    (folder / "b").unlink()
    entries = manifest.read(folder).entries
    assert {name: entry.there for name, entry in entries.items()} == {"a": False, "b": True}


def test_a_log_is_compared_as_far_as_it_was_told(folder):
    with replacing(folder / "log", grows=True) as temporary:
        with open(temporary, "w") as file:
            file.write("one\n")
    with (folder / "log").open("a") as file:
        file.write("two\n")
    assert read_bytes(folder / "log") == b"one\ntwo\n"
    manifest.record(folder / "log", grows=True)
    with (folder / "log").open("a") as file:
        file.write("three\n")
    check_written(folder / "log")
    for text in ("one\ntwX\nthree\n", "one\n"):
        (folder / "log").write_text(text)
        with pytest.raises(DataError):
            check_written(folder / "log")
        with pytest.raises(DataError):
            read_bytes(folder / "log")


def test_a_folder_may_be_copied_and_moved(folder, tmp_path):
    write_text(folder / "cases" / "a", "x")
    shutil.copytree(folder, tmp_path / "copy")
    folder.rename(tmp_path / "moved")
    for where in ("copy", "moved"):
        assert read_bytes(tmp_path / where / "cases" / "a") == b"x"
        (tmp_path / where / "cases" / "a").write_text("y")
        with pytest.raises(DataError):
            read_bytes(tmp_path / where / "cases" / "a")


def test_a_folder_within_has_a_manifest_of_its_own(folder):
    begin_folder(folder / "run")
    write_text(folder / "run" / "a", "x")
    assert list(manifest.read(folder / "run").entries) == ["a"]
    assert manifest.read(folder).entries == {}


@pytest.mark.parametrize("torn", [b'{"event": "announced", "pa', b"\0" * 20, b"\xff\xfe"])
def test_a_line_that_was_cut_short_is_passed_over(folder, torn):
    write_text(folder / "a", "x")
    with (folder / MANIFEST).open("ab") as file:
        file.write(torn)
    write_text(folder / "b", "y")
    found = manifest.read(folder)
    assert sorted(found.entries) == ["a", "b"]
    assert (found.broken, found.cut_short) == ([], [4])
    manifest.compact(folder)
    found = manifest.read(folder)
    assert sorted(found.entries) == ["a", "b"]
    assert (found.broken, found.cut_short) == ([], [])


def test_every_flipped_byte_of_a_manifest_is_seen(folder):
    write_text(folder / "a", "x")
    data = (folder / MANIFEST).read_bytes()
    for at in range(len(data)):
        (folder / MANIFEST).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        found = manifest.read(folder)
        assert found.broken or found.cut_short


def test_the_manifest_of_another_program_is_left_alone(folder):
    (folder / MANIFEST).write_text('{"audio": "x.wav"}\n')
    assert manifest.read(folder) is None


def test_compaction_says_the_same_in_fewer_lines(folder, monkeypatch):
    for number in range(20):
        write_text(folder / "a", f"{number}")
        write_text(folder / f"last-{number}", "x")
        remove(folder / f"last-{number}")
    write_text(folder / "gone", "x")
    (folder / "gone").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_text(folder / "a", "announced")
    before = manifest.read(folder)
    manifest.compact(folder)
    after = manifest.read(folder)
    assert after.entries == {name: before.entries[name] for name in ("a", "gone")}
    assert after.complete is before.complete is True
    assert len(lines(folder)) == 1 + 3 + 2


def test_a_manifest_that_grows_is_compacted(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_COMPACT_AT", 2000)
    begin_folder(tmp_path)
    for number in range(40):
        write_text(tmp_path / "a", f"{number}")
        assert (tmp_path / MANIFEST).stat().st_size < 3000
    assert read_bytes(tmp_path / "a") == b"39"


def _write_some(folder, name):
    manifest._COMPACT_AT = 4000
    for number in range(30):
        write_bytes(folder / f"{name}-{number % 10}", bytes([number]) * 10)


def test_processes_that_write_into_one_folder_do_not_disturb_each_other(folder):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_some, args=(folder, name)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = manifest.read(folder)
    assert len(found.entries) == 40
    assert (found.broken, found.cut_short) == ([], [])
    for path in manifest.files_in(folder):
        check_written(path)
        assert read_bytes(path)[0] >= 20


def test_processes_begin_a_manifest_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=lambda n=n: (begin_folder(tmp_path), write_text(
        tmp_path / f"{n}", "x"))) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(manifest.read(tmp_path).entries) == list("012345")
