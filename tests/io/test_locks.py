"""Locks: one program at a time, none left behind, dead owners' taken over by one alone."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pixelnet_tf.errors import RunError
from pixelnet_tf.io import locks
from pixelnet_tf.io.locks import STALE_SECONDS, Owner, check_free, exclusive, shared
from tests.listening import Listening

#: No TensorFlow here, so that a fork is safe and quick.
PROCESSES = multiprocessing.get_context("fork")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_pid() -> int:
    """Number of a process that has ended."""
    process = PROCESSES.Process(target=lambda: None)
    process.start()
    process.join()
    return process.pid


def write_lock(path: Path, owner: Owner, age: float = 0.0) -> None:
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age,) * 2)


def test_a_folder_is_one_program_s_alone(tmp_path):
    with exclusive(tmp_path / "run", "train", Listening()) as lock:
        lock.check()
        assert names(tmp_path / "run") == [".lock"]
        words = rf"run: is in use by `train` \(process {os.getpid()} on {socket.gethostname()}, si"
        with (pytest.raises(RunError, match=words) as refused,
              exclusive(tmp_path / "run", "train", Listening())):
            pass
        assert "\n" not in str(refused.value)
        with pytest.raises(RunError, match=words):
            check_free(tmp_path / "run")
        with pytest.raises(RunError, match=words), shared(tmp_path / "run", "p", "k", Listening()):
            pass
        (tmp_path / "run" / "file").touch()
    check_free(tmp_path / "run")
    assert names(tmp_path / "run") == ["file"]


@pytest.mark.parametrize("error", [RunError("x"), KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("hold", [
    lambda folder: exclusive(folder, "train", Listening()),
    lambda folder: shared(folder, "predict", "key", Listening())])
def test_whatever_ends_it_no_lock_stays_and_no_empty_folder(error, hold, tmp_path):
    def fail():
        with hold(tmp_path / "a" / "b") as held:
            if hasattr(held, "take"):
                assert next(held.take([SimpleNamespace(name="case")], lambda _: False, []))
            assert any(".lock" in name for name in names(tmp_path / "a" / "b"))
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


def _owner(**changes) -> Owner:
    return replace(Owner.this("train"), id="before", **changes)


@pytest.mark.parametrize(("changes", "age", "stale"), [
    ({}, 0, False),
    # A process of this host is asked for, whatever its heartbeat says.
    ({}, 10 * STALE_SECONDS, False),
    ({"pid": "dead"}, 0, True),
    # Another process has its number now.
    ({"started": "1"}, 0, True),
    ({"host": "elsewhere", "pid": "dead"}, STALE_SECONDS - 60, False),
    ({"host": "elsewhere"}, STALE_SECONDS + 60, True),
    # Another container of this machine, of its host's name: the number says nothing.
    ({"machine": "same pid:[1]", "pid": "dead"}, 5, False),
    # This host before it was started again; or another one of its name, which goes on.
    ({"machine": "other-boot pid:[1]"}, 1e9, True),
    ({"machine": "other-boot pid:[1]", "pid": "dead"}, 0, False),
])
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")
def test_whose_lock_is_stale(changes, age, stale, tmp_path):
    if changes.get("pid") == "dead":
        changes["pid"] = dead_pid()
    if "machine" in changes:
        boot, _, namespace = changes["machine"].partition(" ")
        own_boot = locks._machine().split()[0]
        changes["machine"] = f"{own_boot if boot == 'same' else boot} {namespace}"
    write_lock(tmp_path / ".lock", _owner(**changes), age)
    ears = Listening()
    if not stale:
        with pytest.raises(RunError, match="in use"), exclusive(tmp_path, "train", ears):
            pass
        assert names(tmp_path) == [".lock"]
        return
    check_free(tmp_path)
    with exclusive(tmp_path, "train", ears):
        pass
    assert [line for line in ears.said if "`train` (process" in line and "taken over" in line]
    assert names(tmp_path) == []


def test_a_zombie_is_dead(tmp_path):
    process = PROCESSES.Process(target=time.sleep, args=(60,))
    process.start()
    write_lock(tmp_path / ".lock", replace(
        Owner.this("train"), pid=process.pid, started=locks._start_of(process.pid)))
    with pytest.raises(RunError, match=f"process {process.pid} "):
        check_free(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    # Nobody has asked for how it ended yet.
    deadline = time.monotonic() + 10
    while locks._start_of(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    check_free(tmp_path)
    process.join()


def test_a_lock_that_says_nothing_is_given_its_time(tmp_path):
    (tmp_path / ".lock").write_bytes(b"")
    with pytest.raises(RunError, match="a program that has just begun"):
        check_free(tmp_path)
    os.utime(tmp_path / ".lock", (time.time() - STALE_SECONDS - 60,) * 2)
    # An heir that died before it had said who it was.
    (tmp_path / ".lock..heir").write_bytes(b"")
    os.utime(tmp_path / ".lock..heir", (time.time() - STALE_SECONDS - 60,) * 2)
    with exclusive(tmp_path, "train", Listening()):
        assert names(tmp_path) == [".lock"]


def test_a_program_that_was_suspended_finds_its_lock_taken_over(tmp_path, monkeypatch):
    with exclusive(tmp_path, "train", Listening()) as lock:
        other = _owner(host="elsewhere")
        write_lock(tmp_path / "other", other)
        (tmp_path / "other").rename(tmp_path / ".lock")
        with pytest.raises(RunError, match="another program has taken the lock over"):
            lock.check()
    assert json.loads((tmp_path / ".lock").read_text())["host"] == "elsewhere"


def test_a_lock_has_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    with exclusive(tmp_path, "train", Listening()):
        os.utime(tmp_path / ".lock", (1.0, 1.0))
        deadline = time.monotonic() + 10
        while (tmp_path / ".lock").stat().st_mtime == 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60


def test_programs_of_one_key_share_and_others_are_refused(tmp_path):
    cases = [SimpleNamespace(name=f"case {number}") for number in range(3)]
    ears, removed = Listening(), []
    with shared(tmp_path, "prepare", "key", ears, alone=lambda: removed.append("first")) as first:
        busy = []
        taking = first.take(cases, lambda case: False, busy)
        assert next(taking) is cases[0]
        with shared(tmp_path, "prepare", "key", ears, lambda: removed.append("second")) as second:
            taken = second.take(cases, lambda case: case is cases[1], busy)
            assert next(taken) is cases[2]
            assert busy == [cases[0]]
            assert list(taking) == [cases[1]]
            assert busy == [cases[0], cases[2]]
            first.give_back("case 0")
            second.wait([cases[0]])
            with first.turn():
                pass
            with pytest.raises(RunError, match=r"is in use by `prepare`.* with other settings"):
                shared(tmp_path, "prepare", "other key", ears).__enter__()
        with pytest.raises(RunError, match="in use by `prepare`"):
            exclusive(tmp_path, "train", ears).__enter__()
    assert removed == ["first"]
    assert any("at work on the same; the cases are shared" in line for line in ears.said)
    assert names(tmp_path) == []


def _compete(folder: Path, seed: int, seconds: float, dies: float, links: bool) -> None:
    """Take the folder again and again, alone; now and then die with it."""
    if not links:
        def link(*_):
            raise OSError(errno.EPERM, "no links here")
        os.link = link
    rng, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(RunError), exclusive(folder, "train", Listening()) as lock:
            lock.check()
            # Whoever holds the lock owns this file: the name says which process.
            inside = folder / f"inside.{os.getpid()}"
            inside.touch()
            others = [path for path in folder.glob("inside.*") if path != inside
                      and locks._start_of(int(path.suffix[1:])) is not None]
            if others:
                (folder / "broken").write_text(f"{inside} {others}")
            with open(folder / "turns", "ab") as file:
                file.write(b".")
            if rng.random() < dies:
                os.kill(os.getpid(), signal.SIGKILL)
            inside.unlink()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_many_processes_and_deaths_never_two_at_once(links, tmp_path):
    seconds = float(os.environ.get("PIXELNET_LOCK_SECONDS", "1"))
    start, running, deaths = time.monotonic(), [], 0
    number, turns = 0, tmp_path / "turns"
    # Beside other work a second is not enough for many turns.
    while (now := time.monotonic() - start) < seconds or (
            now < 60 and not (turns.exists() and turns.stat().st_size > 5)):
        while len(running) < 6:
            number += 1
            process = PROCESSES.Process(target=_compete, args=(
                tmp_path, number, max(seconds - now, 0.2), 0.3, links))
            process.start()
            running.append(process)
        for process in [process for process in running if not process.is_alive()]:
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
            deaths += process.exitcode != 0
            running.remove(process)
        time.sleep(0.005)
    for process in running:
        process.join()
    assert not (tmp_path / "broken").exists(), (tmp_path / "broken").read_text()
    assert deaths > 0
    assert turns.stat().st_size > 5
    with exclusive(tmp_path, "train", Listening()):
        pass
    left = {name for name in names(tmp_path) if not name.startswith("inside.")}
    assert left == {"turns"}


def _heir(folder: Path, start, held) -> None:
    start.wait()
    with contextlib.suppress(RunError), exclusive(folder, "train", Listening()):
        held.value += 1
        time.sleep(0.3)


def test_of_many_that_find_a_dead_one_s_lock_one_alone_takes_it(tmp_path):
    for _ in range(3):
        write_lock(tmp_path / ".lock", _owner(pid=dead_pid()))
        # And one that died just before it took it.
        write_lock(tmp_path / ".lock.before.heir", replace(_owner(pid=dead_pid()), id="heir"))
        start, held = PROCESSES.Event(), PROCESSES.Value("i", 0)
        processes = [PROCESSES.Process(target=_heir, args=(tmp_path, start, held))
                     for _ in range(8)]
        for process in processes:
            process.start()
        start.set()
        for process in processes:
            process.join()
        assert held.value == 1
        assert names(tmp_path) == []
