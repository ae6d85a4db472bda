"""What a program that was killed leaves in the temporary folder is removed by the next one."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pixelnet_tf.errors import RunError
from pixelnet_tf.io.disk import is_temporary
from pixelnet_tf.io.scratch import remove_leftovers, scratch_folder

HOLD = ("import sys, time\n"
        "from pixelnet_tf.io.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / '0.nii').write_bytes(b'a patient')\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def another_program() -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_with_its_work(temporary):
    def work():
        with scratch_folder() as folder:
            (folder / "0.nii").write_bytes(b"a patient")
            assert folder.parent == temporary
            assert folder.stat().st_mode & 0o077 == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert list(temporary.iterdir()) == []


def test_leftovers_of_the_killed_go_and_folders_of_the_living_stay(temporary):
    killed, left = another_program()
    living, held = another_program()
    killed.kill()
    killed.wait()
    assert (left / "0.nii").is_file()
    with scratch_folder() as own:
        # It has removed them before it made its own.
        assert not left.exists()
        assert remove_leftovers() == 0
        assert (held / "0.nii").is_file()
        assert own.is_dir()
    living.communicate()
    assert living.returncode == 0
    assert list(temporary.iterdir()) == []


def test_leftovers_beside_a_file_go_with_the_next_one_there(tmp_path):
    place = tmp_path / "out"
    code = HOLD.replace("scratch_folder()", f"scratch_folder({str(place)!r})")
    killed = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    left = Path(killed.stdout.readline().strip())
    assert left.parent == place
    assert is_temporary(left.name)
    with scratch_folder(place):
        assert left.is_dir()
    killed.kill()
    killed.communicate()
    with scratch_folder(place) as own:
        assert list(place.iterdir()) == [own]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_became_full_is_named(fault, temporary):
    with pytest.raises(RunError, match=r"temporary files cannot be written: .*TMPDIR") as caught:
        with scratch_folder():
            raise OSError(fault, os.strerror(fault))
    assert caught.value.file == str(temporary)
    assert list(temporary.iterdir()) == []


def test_errors_that_are_not_of_the_disk_stay_as_they_are():
    with pytest.raises(PermissionError), scratch_folder():
        raise PermissionError(errno.EACCES, "not this one")


def test_without_a_temporary_folder_the_error_says_so(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    with pytest.raises(RunError, match=r"nowhere: temporary files cannot be written: .*TMPDIR"):
        with scratch_folder():
            pass


def test_on_a_disk_that_cannot_lock_folders_it_works_and_removes_nothing(temporary, monkeypatch):
    """As network shares, which want a file that is open for writing."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments):
        raise OSError(errno.EBADF, "Bad file descriptor")

    (temporary / ".pixelnet-scratch-other").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch_folder() as own:
        assert own.is_dir()
    assert [path.name for path in temporary.iterdir()] == [".pixelnet-scratch-other"]


def test_what_is_not_ours_stays(temporary, monkeypatch):
    (temporary / "theirs").mkdir()
    (temporary / "theirs" / "file").write_text("x")
    (temporary / ".pixelnet-scratch-link").symlink_to(temporary / "theirs")
    (temporary / ".pixelnet-scratches").mkdir()
    assert remove_leftovers() == 0
    (temporary / ".pixelnet-scratch-other").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert remove_leftovers() == 0
    assert (temporary / "theirs" / "file").is_file()
    assert len(list(temporary.iterdir())) == 4


def test_a_program_that_starts_never_takes_a_folder_from_another(temporary):
    """Also in the moment in which it is made."""
    stop, removed = threading.Event(), []

    def clean():
        while not stop.is_set():
            removed.append(remove_leftovers())

    thread = threading.Thread(target=clean)
    thread.start()
    try:
        for _ in range(300):
            with scratch_folder() as folder:
                (folder / "0.nii").write_bytes(b"x")
                assert folder.is_dir()
    finally:
        stop.set()
        thread.join()
    assert sum(removed) == 0
