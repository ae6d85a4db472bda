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
from itertools import islice
from typing import Any, Protocol, TypeVar

from pixelnet_tf.errors import PixelNetError, RunError
from pixelnet_tf.reporting import logger


class Named(Protocol):
    """What work is done on; messages call it by its name."""

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def worker_count(wanted: int, cases: int) -> int:
    """Return how many processes to use: `wanted`, or one per processor core when it is 0."""
    available = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                 else os.cpu_count() or 1)
    return max(1, min(wanted or available, cases))


def run_cases(function: Callable[..., Any], cases: Iterable[Item], arguments: tuple,
              workers: int) -> Iterator[tuple[Item, Any]]:
    """Call `function(case, *arguments)` for every case and yield the results as they come.

    No more than `workers` cases are in work or waiting to be taken at any time, and none is asked
    for earlier. With one worker everything happens in this process, and so it does where the system
    lends no worker processes (they need shared memory, /dev/shm on Linux). The order of the results
    is not fixed.

    Raises:
        PixelNetError: as the function raised it.
        RunError: the function failed otherwise, or its process died; the message names the case.
    """
    pool = None if workers == 1 else _start_pool(workers)
    if pool is None:
        for case in cases:
            try:
                result = function(case, *arguments)
            except (PixelNetError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise _failure(case, error) from error
            yield case, result
        return
    others = set(multiprocessing.active_children())
    finished = False
    try:
        waiting = iter(cases)
        running: dict[Future[Any], Item] = {}
        while True:
            for case in islice(waiting, workers - len(running)):
                with interrupts_held(), program_unseen(function):
                    running[pool.submit(function, case, *arguments)] = case
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                names = [case.name for case in running.values()]
                case = running.pop(future)
                try:
                    result = future.result()
                except PixelNetError:
                    raise
                except BrokenProcessPool:
                    raise RunError(f"a worker process died while {names} were in work, most "
                                   "likely killed for lack of memory",
                                   hint="run again with fewer --workers") from None
                except Exception as error:
                    raise _failure(case, error) from error
                yield case, result
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
        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent)
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


def _failure(case: Named, error: Exception) -> RunError:
    return RunError(f"{type(error).__name__}: {error}", case=case.name)


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
