"""Cases in worker processes: bounded in number, errors with their case, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from enum import Enum
from itertools import islice
from typing import Any, Protocol, TypeVar, overload

from pixelnet_tf.errors import PixelNetError, RunError, WorkerDied
from pixelnet_tf.io.processor import cores, limit_cores, own_cores
from pixelnet_tf.reporting import logger


class Named(Protocol):
    """What work is done on; messages call it by its name."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


class Outcome(Enum):
    """What became of a case that a worker claimed: done there now, found finished, or in work at
    another program."""

    DONE = "done"
    THERE = "there"
    BUSY = "busy"


class Engine(Protocol):
    """Workers that are not this program's own processes, such as those of `dataset/cluster.py`.

    They need not end with this program, so that they claim what they write themselves
    (`io/locks.py`, `joined`).
    """

    def run(self, function: Callable[..., Any], cases: Iterable[Item], arguments: tuple,
            spare: bool) -> Iterator[tuple[Item, Any]]:
        """As `run_cases`."""


@overload
def worker_count(wanted: int, cases: int) -> int: ...
@overload
def worker_count(wanted: Engine, cases: int) -> Engine: ...
@overload
def worker_count(wanted: int | Engine, cases: int) -> int | Engine: ...


def worker_count(wanted: int | Engine, cases: int) -> int | Engine:
    """Return how many processes to use: `wanted`, or one per processor core when it is 0.

    Others' workers are as many as they are.
    """
    if not isinstance(wanted, int):
        return wanted
    return max(1, min(wanted or cores(), cases))


def run_cases(function: Callable[..., Any], cases: Iterable[Item], arguments: tuple,
              workers: int | Engine, *, spare: bool = False) -> Iterator[tuple[Item, Any]]:
    """Call `function(case, *arguments)` for every case and yield the results as they come.

    No more than `workers` cases are in work or waiting to be taken at any time, and none is asked
    for earlier. With one worker everything happens in this process, and so it does where the system
    lends no worker processes (they need shared memory, /dev/shm on Linux). Each worker has its
    share of the cores (`own_cores`) for what it does side by side. The order of the results is not
    fixed.

    A case whose worker process dies is tried once more, alone in another one.

    Args:
        workers: how many processes, at least 1; or others' workers.
        spare: yield a `WorkerDied` in place of the result of a case whose workers died twice.

    Raises:
        PixelNetError: as the function raised it.
        WorkerDied: see `spare`.
        RunError: the function failed otherwise; the message names the case.
    """
    if not isinstance(workers, int):
        yield from workers.run(function, cases, arguments, spare)
        return
    if workers == 1:
        yield from _here(function, cases, arguments)
        return
    waiting = iter(cases)
    while True:
        try:
            yield from _in_pool(function, waiting, arguments, workers)
            return
        except _PoolDied as died:
            suspects = died.cases
        # Which one it was nobody says: each alone.
        for case in suspects:
            logger.warning("a worker process died while case %s was in work; it is tried again",
                           case.name)
            try:
                yield from _in_pool(function, [case], arguments, 1)
            except _PoolDied:
                fault = WorkerDied(
                    "two worker processes died at work on it, most likely killed for lack of "
                    "memory", case=case.name,
                    hint="run again with fewer workers, or give them more memory")
                if not spare:
                    raise fault from None
                yield case, fault


def _here(function: Callable[..., Any], cases: Iterable[Item], arguments: tuple
          ) -> Iterator[tuple[Item, Any]]:
    for case in cases:
        try:
            result = function(case, *arguments)
        except (PixelNetError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise failure(case, error) from error
        yield case, result


class _PoolDied(Exception):
    """A worker process died; `cases` were in work."""

    def __init__(self, cases: list[Any]):
        super().__init__()
        self.cases = cases


def _in_pool(function: Callable[..., Any], cases: Iterable[Item], arguments: tuple, workers: int
             ) -> Iterator[tuple[Item, Any]]:
    pool = _start_pool(workers)
    if pool is None:
        yield from _here(function, cases, arguments)
        return
    others = set(multiprocessing.active_children())
    finished = False
    try:
        waiting = iter(cases)
        running: dict[Future[Any], Item] = {}
        died: list[Item] = []
        while True:
            # Of a pool that has lost a process nothing more comes.
            for case in islice(waiting, 0 if died else workers - len(running)):
                with interrupts_held(), program_unseen(function):
                    try:
                        running[pool.submit(function, case, *arguments)] = case
                    except BrokenProcessPool:
                        died.append(case)
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                case = running.pop(future)
                try:
                    result = future.result()
                except PixelNetError:
                    raise
                except BrokenProcessPool:
                    died.append(case)
                    continue
                except Exception as error:
                    raise failure(case, error) from error
                yield case, result
        if died:
            raise _PoolDied(died)
        finished = True
    finally:
        if not finished:
            ours = set(multiprocessing.active_children()) - others
            for process in ours:
                process.terminate()
            for process in ours:
                process.join()
            # One that was stopped in the midst of its result's way back leaves the rest unwritten.
            # The pool's own thread would wait for it for ever, since this process, too, could write
            # into that pipe: only where nobody can, does it end.
            pool._result_queue._writer.close()  # type: ignore[attr-defined]
        # Waiting, too, after an interruption: else the pool's own thread may be about to close its
        # pipe just when the interpreter, which ends, writes to it.
        pool.shutdown(wait=True, cancel_futures=True)


def _start_pool(workers: int) -> ProcessPoolExecutor | None:
    try:
        # `spawn`: a forked copy of TensorFlow's threads and locks can hang.
        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker,
                                   (own_cores() // workers,))
    except (OSError, ImportError, NotImplementedError) as error:
        logger.warning("worker processes cannot be started (%s; they need a writable /dev/shm): "
                       "one case at a time", error)
        return None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a process may be started: a new one is born with it held back, and so
    never stops with a traceback of its own, not even before `follow_parent`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def program_unseen(function: Callable) -> Iterator[None]:
    """Start processes that do not run the program that started them, unless the function is of it.

    A spawned process runs the main module again, to find what is defined there. Whoever calls this
    library from a script without `if __name__ == "__main__":` would have it run again from its
    first line, in every worker.
    """
    if function.__module__ == "__main__":
        yield
        return
    program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def failure(case: Named, error: Exception) -> RunError:
    """What the function did not foresee, with its case."""
    return RunError(f"{type(error).__name__}: {error}", case=case.name)


def _begin_worker(cores: int) -> None:
    """Keep to a share of the machine, and follow the parent."""
    limit_cores(cores)
    follow_parent()


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    parent = multiprocessing.parent_process()
    if parent is None:  # Nobody's worker.
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
