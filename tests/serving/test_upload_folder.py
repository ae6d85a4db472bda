"""What a server that was killed leaves of patients' volumes is removed at the next start."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pixelnet_tf.serving import upload_folder as module
from pixelnet_tf.serving.upload_folder import remove_leftovers, upload_folder

HOLD = ("import sys, time\n"
        "from pixelnet_tf.serving.upload_folder import upload_folder\n"
        "with upload_folder() as folder:\n"
        "    (folder / '0.nii').write_bytes(b'a patient')\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def another_server() -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_with_its_request(temporary):
    def request():
        with upload_folder() as folder:
            (folder / "0.nii").write_bytes(b"a patient")
            assert folder.parent == temporary
            assert folder.stat().st_mode & 0o077 == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        request()
    assert list(temporary.iterdir()) == []


def test_leftovers_of_the_killed_go_and_folders_of_the_living_stay(temporary):
    killed, left = another_server()
    living, held = another_server()
    killed.kill()
    killed.wait()
    assert (left / "0.nii").is_file()
    with upload_folder() as own:
        assert remove_leftovers() == 1
        assert not left.exists()
        assert (held / "0.nii").is_file()
        assert own.is_dir()
    living.communicate()
    assert living.returncode == 0
    assert list(temporary.iterdir()) == []


def test_what_is_not_ours_stays(temporary, monkeypatch):
    (temporary / "theirs").mkdir()
    (temporary / "theirs" / "file").write_text("x")
    (temporary / "pixelnet-upload-link").symlink_to(temporary / "theirs")
    (temporary / "pixelnet-uploads").mkdir()
    assert remove_leftovers() == 0
    (temporary / "pixelnet-upload-other").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert remove_leftovers() == 0
    assert (temporary / "theirs" / "file").is_file()
    assert len(list(temporary.iterdir())) == 4


def test_a_server_that_starts_never_takes_a_folder_from_another(temporary):
    """Also in the moment in which it is made."""
    stop, removed = threading.Event(), []

    def clean():
        while not stop.is_set():
            removed.append(remove_leftovers())

    thread = threading.Thread(target=clean)
    thread.start()
    try:
        for _ in range(300):
            with upload_folder() as folder:
                (folder / "0.nii").write_bytes(b"x")
                assert folder.is_dir()
    finally:
        stop.set()
        thread.join()
    assert sum(removed) == 0


def test_the_server_removes_them_when_it_starts(temporary, small):
    pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
    from starlette.testclient import TestClient

    from pixelnet_tf.serving.app import build_app
    from pixelnet_tf.serving.registry import ModelRegistry

    (temporary / f"{module._HELD}left").mkdir()
    (temporary / f"{module._HELD}left" / "0.nii").write_bytes(b"a patient")
    events = []
    with TestClient(build_app(ModelRegistry(small),
                              log=lambda event, **fields: events.append((event, fields)))):
        assert list(temporary.iterdir()) == []
    assert events[0] == ("leftovers_removed", {"folders": 1})
