"""The verbs with folders in S3, against moto's server: a real S3 API over HTTP."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import pytest

from pixelnet_tf.io import mirror, remote
from pixelnet_tf.io.files import begin_folder, write_text
from pixelnet_tf.io.locks import exclusive
from pixelnet_tf.io.stores import FsspecStore
from pixelnet_tf.reporting import LogReporter
from tests.main_job import TINY, run_main
from tests.stores import forgotten


@pytest.fixture(scope="session")
def server():
    """The address of an S3, with nothing in it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer("127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server, tmp_path, monkeypatch):
    """Its client, with a bucket `bucket`; this process knows where it is, and of no mirror."""
    def post(path, data=b""):
        asked = urllib.request.Request(f"{server}/moto-api/{path}", data,
                                       {"Content-Type": "text/plain"})
        urllib.request.urlopen(asked, timeout=60)

    for name, value in (("AWS_ENDPOINT_URL", server), ("AWS_ACCESS_KEY_ID", "test"),
                        ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
                        (mirror.CACHE, str(tmp_path / "cache")), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror, "FIRST_WAIT", 0.001)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    post("reset")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    client.post = post
    with forgotten():
        yield client
    s3fs.S3FileSystem.clear_instance_cache()


def objects(client, prefix=""):
    found = client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return {each["Key"]: client.get_object(Bucket="bucket", Key=each["Key"])["Body"].read()
            for each in found}


def test_what_a_verb_writes_to_s3_is_what_it_writes_to_a_disk(s3, main_job, tmp_path, capsys):
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", main_job / "study",
                    "--out", "s3://bucket/a/prepared", "--workers", 1) == 0
    out, err = capsys.readouterr()
    assert "prepared study: s3://bucket/a/prepared" in out
    assert "s3://bucket/a/prepared: through fsspec (s3fs" in err
    there = objects(s3)
    assert {name.removeprefix("a/prepared/") for name in there} == {
        str(path.relative_to(main_job / "prepared")) for path in (main_job / "prepared").rglob("*")
        if path.is_file()}
    for name, data in there.items():
        assert data == (main_job / "prepared" / name.removeprefix("a/prepared/")).read_bytes(), name
    with forgotten():
        # From an empty cache, and the names alone: nothing is to be done.
        assert run_main("check", "s3://bucket/a/prepared") == 0
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", main_job / "study",
                    "--out", "s3://bucket/a/prepared", "--workers", 1) == 0
    assert "0 prepared, 4 kept" in capsys.readouterr().out
    assert run_main("train", "--config", "phantom", *TINY, "--data", "s3://bucket/a/prepared",
                    "--out", "s3://bucket/a/run", "--dry-run") == 0
    assert str(tmp_path) not in "".join(capsys.readouterr())


def test_the_lock_is_made_only_where_there_is_none(s3):
    store = FsspecStore("s3://bucket/run")
    assert store.create(".lock", b"1")
    assert not store.create(".lock", b"2")
    assert objects(s3) == {"run/.lock": b"1"}
    store.delete(".lock")
    store.delete(".lock")
    assert store.read(".lock") is None


def call(*options):
    """`train` by its dry run, which reads PREPARED and looks at RUN."""
    return run_main("train", "--config", "phantom", *options, "--dry-run")


@pytest.mark.parametrize("url", ["s3://nobody-has-it/prepared", "s3://Bad_Bucket!/prepared"])
def test_a_bucket_that_is_not_there_is_one_line_and_code_2(s3, capsys, url):
    begun = time.monotonic()
    assert call("--data", url, "--out", "run") == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {url}: ")
    assert "no such bucket" in line or "make sense of it" in line
    assert time.monotonic() - begun < 150


def test_wrong_credentials_are_one_line_and_code_2(s3, capsys, monkeypatch):
    s3.post("reset-auth", b"0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    try:
        assert call("--data", "s3://bucket/prepared", "--out", "run") == 2
    finally:
        s3.post("reset-auth", b"inf")
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("error: s3://bucket/prepared: the store refuses to list (")
    assert "see to the credentials" in line


def test_what_may_be_read_and_not_written_is_one_line_and_code_5(s3, monkeypatch):
    """A bucket that is refused in the middle is no mistake of the call's."""
    from pixelnet_tf.errors import RunError

    path = remote.local("s3://bucket/run")

    def refused(self, source, name):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(FsspecStore, "put", refused)
    with pytest.raises(RunError, match=r"^s3://bucket/run/manifest.jsonl: the store refuses to wr"):
        begin_folder(path)


def test_no_credentials_are_one_line_and_code_2(s3, capsys, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert call("--data", "s3://bucket/prepared", "--out", "run") == 2
    line, = capsys.readouterr().err.splitlines()
    assert "Unable to locate credentials" in line


def test_a_server_that_is_not_there_is_code_5_after_some_tries(s3, capsys, monkeypatch):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert call("--data", "s3://bucket/prepared", "--out", "run") == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: s3://bucket/prepared: the store does not answer (")
    assert "give the same command again" in error


def test_two_machines_do_not_write_to_one_folder(s3, tmp_path, monkeypatch, capsys):
    path = remote.local("s3://bucket/run")
    with exclusive(path, "train", LogReporter()):
        write_text(f"{path}/a.txt", "a")
        assert set(objects(s3)) == {"run/.lock", "run/a.txt"}
        monkeypatch.setenv(mirror.CACHE, str(tmp_path / "other"))
        with forgotten():
            assert run_main("prepare", "--config", "phantom", *TINY, "--data", "nowhere",
                            "--out", "s3://bucket/run") == 3
            elsewhere = remote.local("s3://bucket/run")
            with pytest.raises(Exception, match="s3://bucket/run: is in use by `train`"):
                exclusive(elsewhere, "train", LogReporter()).__enter__()
    assert set(objects(s3)) == {"run/a.txt"}


def test_the_end_under_tensorflow_io_keeps_the_exit_code(tmp_path):
    """Its library aborts a process that ends as others do, so ours leaves before that."""
    (tmp_path / "tensorflow_io.py").write_text("")
    lines = ("import atexit, os, sys, tensorflow_io\n"
             "class Abort:\n"
             "    def __del__(self):\n"
             "        os._exit(134)\n"
             "tensorflow_io.library = Abort()\n"
             "atexit.register(lambda: print('last words'))\n"
             "from pixelnet_tf.cli import main\n"
             "main(['train', '--config', 'nothing', '--data', 'x', '--out', 'y'])\n")
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])})
    assert done.returncode == 2
    assert done.stdout.endswith("last words\n")
    assert "error: nothing" in done.stderr
