"""Cases in worker processes: bounded, errors with their case, none left behind."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.dataset.workers import run_cases, worker_count
from pixelnet_tf.errors import DataError, RunError, WorkerDied
from pixelnet_tf.io.processor import cores, own_cores
from tests.dataset.worker_functions import die_at

CASES = [Case(name) for name in "abcde"]


def answer(case: Case, suffix: str) -> str:
    return case.name + suffix


def fail_at_c(case: Case) -> str:
    if case.name == "c":
        raise ZeroDivisionError("by zero")
    return case.name


def refuse(case: Case) -> None:
    raise DataError(f"case {case.name}: bad")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_case_comes_back_once(workers):
    results = {case.name: result for case, result in run_cases(answer, CASES, ("!",), workers)}
    assert results == {name: name + "!" for name in "abcde"}


def share_of(case: Case) -> int:
    return own_cores()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_the_cores(workers, monkeypatch):
    monkeypatch.setattr("pixelnet_tf.dataset.workers.own_cores", lambda: 2)
    shares = {share for _, share in run_cases(share_of, CASES, (), workers)}
    assert shares == {cores() if workers == 1 else 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_out_with_its_case(workers):
    with pytest.raises(RunError, match="case c: ZeroDivisionError: by zero"):
        list(run_cases(fail_at_c, CASES, (), workers))
    with pytest.raises(DataError, match=r"case \w: bad"):
        list(run_cases(refuse, CASES, (), workers))


def test_a_case_whose_worker_is_killed_is_tried_once_more(tmp_path):
    results = [result for _, result in run_cases(die_at, CASES, ("b", tmp_path / "died"), 2)]
    assert sorted(results) == list("abcde")
    assert (tmp_path / "died").exists()


def test_a_case_that_kills_two_workers_is_named_and_the_others_go_on():
    with pytest.raises(WorkerDied, match=r"case b: two worker processes died .* memory") as caught:
        list(run_cases(die_at, CASES, ("b",), 2))
    assert (caught.value.case, caught.value.exit_code) == ("b", 5)
    results = {case.name: result for case, result in
               run_cases(die_at, CASES, ("b",), 2, spare=True)}
    assert isinstance(results.pop("b"), WorkerDied)
    assert results == {name: name for name in "acde"}


def test_no_process_stays_when_the_caller_stops():
    results = run_cases(answer, CASES, ("",), 2)
    next(results)
    results.close()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def half_a_result(case: Case, begun: Path) -> bytes:
    """A result of which its process sends half, and no more."""
    whole = Connection._send

    def half(self, data, *more):
        whole(self, data[:len(data) // 2], *more)
        begun.touch()
        time.sleep(60)

    Connection._send = half
    return bytes(1000)


def test_a_caller_that_stops_while_a_result_is_on_its_way_does_not_wait_for_ever(tmp_path):
    def cases():
        yield CASES[0]
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    def stop():
        with pytest.raises(KeyboardInterrupt):
            list(run_cases(half_a_result, cases(), (tmp_path / "begun",), 2))

    stopped = threading.Thread(target=stop, daemon=True)
    stopped.start()
    stopped.join(60)
    assert not stopped.is_alive()
    assert multiprocessing.active_children() == []


def test_without_shared_memory_the_work_is_done_here(monkeypatch, caplog):
    """As where /dev/shm is read-only: a semaphore cannot be made."""
    def refused(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refused)
    results = {case.name: result for case, result in run_cases(answer, CASES, ("!",), 2)}
    assert results == {name: name + "!" for name in "abcde"}
    assert "Read-only file system" in caplog.text
    assert "one case at a time" in caplog.text


def test_ctrl_c_stops_without_a_traceback_of_a_worker(tmp_path):
    """SIGINT to the whole group, as a terminal sends it, while workers are still starting."""
    (tmp_path / "job.py").write_text(
        "import signal, sys, time\n"
        "from pixelnet_tf.cases.case import Case\n"
        "from pixelnet_tf.dataset.workers import run_cases\n"
        # A test run in the background of a shell inherits that Ctrl-C is passed over.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(case):\n"
        "    time.sleep(0.2)\n"
        "if __name__ == '__main__':\n"
        "    print('started', flush=True)\n"
        "    try:\n"
        "        list(run_cases(slow, [Case(str(n)) for n in range(100)], (), 2))\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n")
    for delay in (0.15, 1.0):
        process = subprocess.Popen([sys.executable, tmp_path / "job.py"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True,
                                   env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert process.stdout.readline() == "started\n"
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")


def test_a_script_without_a_guard_runs_once(tmp_path):
    """Worker processes do not run the program again that asked for them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pixelnet_tf.cases.case import Case\n"
        "from pixelnet_tf.dataset.workers import run_cases\n"
        "print('begins', flush=True)\n"
        "print(sorted(found for _, found in\n"
        "             run_cases(getattr, [Case('a'), Case('b'), Case('c')], ('name',), 2)))\n"
        "print(__name__, __import__('sys').modules['__main__'].__file__ == __file__)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["begins", "['a', 'b', 'c']", "__main__ True"]


def test_worker_count():
    assert worker_count(8, 3) == 3
    assert worker_count(2, 30) == 2
    assert worker_count(0, 30) >= 1
    assert worker_count(0, 0) == 1
