"""Cases in worker processes: bounded, errors with their case, none left behind."""

import multiprocessing
import os
import signal
import time

import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.dataset.workers import run_cases, worker_count
from pixelnet_tf.errors import DataError, RunError

CASES = [Case(name) for name in "abcde"]


def answer(case: Case, suffix: str) -> str:
    return case.name + suffix


def fail_at_c(case: Case) -> str:
    if case.name == "c":
        raise ZeroDivisionError("by zero")
    return case.name


def refuse(case: Case) -> None:
    raise DataError(f"case {case.name}: bad")


def die(case: Case) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_case_comes_back_once(workers):
    results = {case.name: result for case, result in run_cases(answer, CASES, ("!",), workers)}
    assert results == {name: name + "!" for name in "abcde"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_out_with_its_case(workers):
    with pytest.raises(RunError, match="case c: ZeroDivisionError: by zero"):
        list(run_cases(fail_at_c, CASES, (), workers))
    with pytest.raises(DataError, match=r"case \w: bad"):
        list(run_cases(refuse, CASES, (), workers))


def test_a_killed_worker_is_explained():
    with pytest.raises(RunError, match=r"worker process died while \[.*'a'.*memory"):
        list(run_cases(die, CASES[:2], (), 2))


def test_no_process_stays_when_the_caller_stops():
    results = run_cases(answer, CASES, ("",), 2)
    next(results)
    results.close()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_worker_count():
    assert worker_count(8, 3) == 3
    assert worker_count(2, 30) == 2
    assert worker_count(0, 30) >= 1
    assert worker_count(0, 0) == 1
