"""Folders of an object store and their mirrors: what is brought, kept, sent, and in which order."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.io import locks, manifest, mirror, remote
from pixelnet_tf.io.files import begin_folder, read_text, remove, replacing_folder, write_text
from pixelnet_tf.io.locks import Owner, exclusive, shared
from pixelnet_tf.io.stores import Fault, FsspecStore, GfileStore
from tests.stores import contents, forgotten, recorded_stores


class Ears:
    """A reporter that keeps what it hears."""

    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)

    def warning(self, text):
        self.said.append(text)

    def progress(self, task, done, total, detail=""):
        pass


@pytest.fixture
def store(tmp_path):
    """A store in a folder; gives the folder, its URL, and the class that records."""
    with recorded_stores(tmp_path / "cache") as kind:
        folder = tmp_path / "store" / "study"
        folder.mkdir(parents=True)
        yield folder, f"file://{folder}", kind


def write_study(url):
    """A folder with a shard, its index, a file that is replaced, and one that is removed."""
    path = Path(remote.local(url))
    with exclusive(path, "prepare", Ears()):
        begin_folder(path)
        write_text(path / "cases" / "a.tfrecord", "shard" * 10)
        write_text(path / "state.json", "1")
        write_text(path / "state.json", "2")
        write_text(path / "gone.txt", "x")
        remove(path / "gone.txt")
        write_text(path / "index.json", "index")
    return path


def test_what_is_written_is_in_the_store_as_it_is_here(store):
    folder, url, _ = store
    path = write_study(url)
    assert contents(folder) == contents(path)
    assert set(contents(folder)) == {"manifest.jsonl", "cases/a.tfrecord", "state.json",
                                     "index.json"}
    assert remote.named(path / "index.json") == f"{url}/index.json"


def test_before_every_object_stands_the_manifest_that_announces_it(store):
    """Whenever the program dies: what the store holds is what its manifest says, or nothing."""
    _, url, kind = store
    write_study(url)
    told = None
    for what, name, data in kind.log:
        if name.endswith(manifest.MANIFEST):
            told = manifest._parse("study", data)
        elif what == "put":
            assert told.entries[name.partition("/")[2]].right[-1].length == len(data), name
        else:
            assert told.entries[name.partition("/")[2]].removed
    assert [name for what, name, _ in kind.log if "manifest" not in name][-1] == "study/index.json"


def test_shards_are_brought_when_they_are_read_and_the_rest_when_the_folder_is_opened(
        store, tmp_path, monkeypatch):
    _, url, _ = store
    write_study(url)
    monkeypatch.setenv(mirror.CACHE, str(tmp_path / "other"))
    with forgotten():
        path = Path(remote.local(url))
        shard = path / "cases" / "a.tfrecord"
        assert shard.stat().st_size == 50
        assert shard.read_bytes() == b"\0" * 50
        assert (path / "index.json").read_text() == "index"
        with remote.reading(shard):
            assert shard.read_text() == "shard" * 10


def test_a_shard_that_is_not_what_was_written_is_told_with_its_url(store, tmp_path, monkeypatch):
    folder, url, _ = store
    write_study(url)
    (folder / "cases" / "a.tfrecord").write_text("other" * 10)
    monkeypatch.setenv(mirror.CACHE, str(tmp_path / "other"))
    with forgotten():
        shard = Path(remote.local(url)) / "cases" / "a.tfrecord"
        for _ in range(2):
            with pytest.raises(DataError, match=r"a.tfrecord: is not the file that was") as told:
                remote.reading(shard).__enter__()
        assert str(told.value).startswith(f"{url}/cases/a.tfrecord")


def test_what_was_kept_here_and_damaged_is_brought_again(store):
    """The cache's own disk may be the one that flips a bit."""
    _, url, _ = store
    path = write_study(url)
    (path / "cases" / "a.tfrecord").write_text("wrong" * 10)
    (path / "index.json").write_text("wrong")
    (path / "nothing.txt").write_text("of a program that died before it was sent")
    with forgotten():
        remote.local(url)
        assert read_text(path / "index.json") == "index"
        with remote.reading(path / "cases" / "a.tfrecord"):
            assert (path / "cases" / "a.tfrecord").read_text() == "shard" * 10
        assert not (path / "nothing.txt").exists()


def test_shards_that_were_used_longest_ago_make_room(store, monkeypatch):
    _, url, _ = store
    monkeypatch.setenv(mirror.CACHE_GB, str(120e-9))
    path = Path(remote.local(url))
    begin_folder(path)
    shards = [path / f"{name}.tfrecord" for name in "abc"]
    for number, shard in enumerate(shards):
        write_text(shard, shard.name * 5)
        if shard.stat().st_mtime_ns:
            os.utime(shard, ns=(number, shard.stat().st_mtime_ns))
    assert [shard.stat().st_mtime_ns > 0 for shard in shards] == [False, True, True]
    with remote.reading(shards[1]), remote.reading(shards[0]):
        # One that is being read stays, whenever it was used.
        assert [shard.stat().st_mtime_ns > 0 for shard in shards] == [True, True, False]
        assert [shard.read_text() for shard in shards[:2]] == ["a.tfrecord" * 5, "b.tfrecord" * 5]
    monkeypatch.setenv(mirror.CACHE_GB, "many")
    with forgotten(), pytest.raises(ConfigError, match="PIXELNET_CACHE_GB must be a number of GB"):
        remote.local(url)


def test_a_folder_that_takes_anothers_place_is_told_of_last(store):
    folder, url, kind = store
    path = Path(remote.local(url))
    for text, names in (("1", ("old", "saved_model.pb")), ("2", ("new", "saved_model.pb"))):
        kind.log.clear()
        with replacing_folder(path / "model" / "1") as temporary:
            begin_folder(temporary)
            for name in names:
                write_text(temporary / name, text)
    assert contents(folder / "model" / "1") == contents(path / "model" / "1")
    done = [(what, Path(name).name) for what, name, _ in kind.log]
    assert sorted(done[:2]) == [("delete", "manifest.jsonl"), ("delete", "saved_model.pb")]
    assert done[2:] == [("delete", "old"), ("put", "new"), ("put", "saved_model.pb"),
                        ("put", "manifest.jsonl")]


def test_one_program_at_a_time_writes_to_a_folder_of_a_store(store, tmp_path, monkeypatch):
    folder, url, _ = store
    path = Path(remote.local(url))
    with exclusive(path, "train", Ears()):
        owner = json.loads((folder / ".lock").read_text())
        assert (owner["verb"], owner["pid"]) == ("train", os.getpid())
        # Another machine, which has a cache of its own.
        monkeypatch.setenv(mirror.CACHE, str(tmp_path / "other"))
        with forgotten():
            elsewhere = remote.local(url)
            with pytest.raises(RunError, match="is in use by `train`") as refused:
                exclusive(elsewhere, "train", Ears()).__enter__()
            with pytest.raises(RunError, match="in use"):
                locks.check_free(elsewhere)
            assert str(refused.value).startswith(f"{url}: is in use")
    assert not (folder / ".lock").exists()
    with shared(path, "prepare", "key", Ears()) as sharing, sharing.turn():
        assert (folder / ".lock").exists()


@pytest.mark.parametrize("left_by", ["a process that died here", "a machine that fell silent"])
def test_the_lock_of_a_dead_program_is_taken_over(store, left_by, monkeypatch):
    folder, url, _ = store
    monkeypatch.setattr(locks, "_CONFIRM_SECONDS", 0.0)
    path = remote.local(url)
    owner = Owner.this("train")
    there = {**owner.__dict__, "id": "another"}
    if left_by == "a process that died here":
        there |= {"started": "0", "beat": time.time()}
    else:
        there |= {"host": "node7", "beat": time.time() - locks.STALE_SECONDS - 1}
    (folder / ".lock").write_text(json.dumps(there))
    ears = Ears()
    with exclusive(path, "train", ears):
        assert json.loads((folder / ".lock").read_text())["id"] != "another"
    assert any("died at work there; this one takes its place" in line for line in ears.said)


def test_who_lost_the_lock_writes_nothing_more(store, monkeypatch):
    folder, url, _ = store
    path = Path(remote.local(url))
    monkeypatch.setattr(locks, "CLAIM_SECONDS", 0.01)
    with exclusive(path, "train", Ears()):
        there = json.loads((folder / ".lock").read_text())
        (folder / ".lock").write_text(json.dumps({**there, "id": "another"}))
        claim = remote.mirror_of(path).claims[0].__self__
        deadline = time.monotonic() + 60
        while not claim._lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(RunError, match="another program has taken its lock over"):
            write_text(path / "x.txt", "x")
    assert not (folder / "x.txt").exists()
    assert json.loads((folder / ".lock").read_text())["id"] == "another"


def test_faults_that_may_pass_are_tried_again_and_said_once(store):
    folder, url, kind = store
    ears = Ears()
    path = Path(remote.local(url, ears))
    begin_folder(path)
    put, failures = kind.put, iter([True, True, False])

    def failing(self, source, name):
        if next(failures, False):
            raise ConnectionError("reset by peer")
        put(self, source, name)

    kind.put = failing
    write_text(path / "a.txt", "a")
    assert (folder / "a.txt").read_text() == "a"
    assert [line for line in ears.said if "reset by peer" in line] == [
        f"{url}/manifest.jsonl: the store does not answer (reset by peer); trying 4 times again"]


def test_a_store_that_is_gone_ends_the_work_with_code_5_and_its_url(store):
    _, url, kind = store
    path = Path(remote.local(url))
    begin_folder(path)
    kind.left = 0
    with pytest.raises(RunError, match=r"does not answer .*give the same command ag") as gone:
        write_text(path / "a.txt", "a")
    assert str(gone.value).startswith(url)
    assert gone.value.exit_code == 5
    # What could not be sent is not here either.
    assert not (path / "a.txt").exists()


@pytest.mark.parametrize(("url", "parts"), [
    ("s3://b/job/run", ("s3://b/job/run", "", "")),
    ("s3://b/job/run/checkpoints/best", ("s3://b/job/run", "checkpoints/best", "")),
    ("s3://b/cv/fold_*", ("s3://b/cv", "fold_*", "")),
    ("s3://b/job/run/model.keras", ("s3://b/job/run", "model.keras", "")),
    ("s3://b/caffe.keras", ("s3://b", "caffe.keras", "caffe")),
    ("file:///a/model.zip", ("file:///a", "model.zip", "model.zip")),
])
def test_what_is_mirrored_for_what_stands_for_a_run(url, parts):
    assert mirror._parted(url) == parts


@pytest.mark.parametrize("kind", [FsspecStore, GfileStore])
def test_a_store_does_what_is_asked_of_it(kind, tmp_path):
    """On a folder, which both ways know; S3 is in tests/cli/test_stores.py."""
    folder = tmp_path / "bucket"
    (folder / "x").mkdir(parents=True)
    (tmp_path / "here").write_text("five!")
    (tmp_path / "empty").write_text("")
    store = kind(f"file://{folder}")
    assert store.list() == {}
    store.put(str(tmp_path / "here"), "x/a")
    store.put(str(tmp_path / "empty"), "b")
    assert store.list() == {"x/a": 5, "b": 0}
    store.put(str(tmp_path / "empty"), "x/a")
    assert store.read("x/a") == b""
    assert store.create("c", b"1")
    assert not store.create("c", b"2")
    assert store.read("c") == b"1"
    store.get("c", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"1"
    store.delete("c")
    store.delete("c")
    assert store.read("c") is None
    with pytest.raises(Exception, match="c") as missing:
        store.get("c", str(tmp_path / "got"))
    assert store.fault(missing.value) == Fault.MISSING
    assert kind.__name__[:5].lower() in store.way.lower() or "TensorFlow" in store.way


def test_a_scheme_that_tensorflow_lacks_names_the_other_way(monkeypatch, tmp_path):
    monkeypatch.setenv(mirror.CACHE, str(tmp_path))
    monkeypatch.setenv("PIXELNET_STORE", "tensorflow")
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(ConfigError, match=r"knows no s3://.*requirements-io.txt, or set PIXELNET_"):
        remote.local("s3://bucket/x")


def test_a_disk_that_is_full_is_not_a_store_that_is_gone(store):
    folder, url, kind = store
    (folder / "a.txt").write_text("a")

    def full(self, name, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    kind.get = full
    with pytest.raises(RunError, match=r"cannot be kept in .*no space is left.*PIXELNET_CACHE"):
        remote.local(url)


@pytest.mark.parametrize(("url", "words"), [
    ("s3://", "names no folder of a store"), ("s3://bucket/../x", "names no folder of a store"),
    ("nothing://bucket/x", "Protocol not known: nothing"),
])
def test_urls_that_name_nothing_are_refused(url, words, tmp_path, monkeypatch):
    monkeypatch.setenv(mirror.CACHE, str(tmp_path))
    with pytest.raises(ConfigError, match=words):
        remote.local(url)


def test_without_the_package_its_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(mirror.CACHE, str(tmp_path))
    find = mirror.open_store.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (
        None if name in ("s3fs", "gcsfs", "tensorflow_io") else find(name)))
    with pytest.raises(ConfigError, match=r'pip install "\.\[cloud\]"$'):
        remote.local("s3://bucket/x")
    with pytest.raises(ConfigError, match=r'pip install "\.\[cloud\]" gcsfs$'):
        remote.local("gs://bucket/x")
    monkeypatch.setenv("PIXELNET_STORE", "ftp")
    with pytest.raises(ConfigError, match="PIXELNET_STORE is 'ftp': it must be fsspec or tens"):
        remote.local("s3://bucket/x")


def test_a_url_is_known_with_one_slash_and_an_object_with_a_wicked_name_is_not_written(store):
    folder, url, _ = store
    (folder / "a.txt").write_text("a")
    path = remote.local(Path(url))
    assert remote.named(path) == url
    assert remote.local(tmp := "/no/url") == tmp
    found = remote.mirror_of(path)
    with pytest.raises(DataError, match="is no path in a folder"):
        found._path("../../x")
    # Where nobody makes a mirror of it, no folder of the name `s3:` appears.
    with pytest.raises(ConfigError, match="lies in an object store, where this cannot be written"):
        write_text(Path("s3://bucket") / "x.txt", "x")


def test_without_a_url_nothing_of_it_is_loaded():
    lines = ("import sys\n"
             "from pixelnet_tf.io import files, locks, manifest, remote\n"
             "remote.local('folder')\n"
             "remote.need('folder/file')\n"
             "stores = {'fsspec', 'pixelnet_tf.io.mirror', 'pixelnet_tf.io.stores'}\n"
             "print(sorted(stores & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True,
                          timeout=100, check=True)
    assert done.stdout == "[]\n"
