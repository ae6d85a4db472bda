"""Cases in worker processes: bounded in number, errors with their case, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pixelnet_tf.cases.case import Case
from pixelnet_tf.errors import PixelNetError, RunError


def worker_count(wanted: int, cases: int) -> int:
    """Return how many processes to use: `wanted`, or one per processor core when it is 0."""
    available = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                 else os.cpu_count() or 1)
    return max(1, min(wanted or available, cases))


def run_cases(function: Callable[..., Any], cases: Sequence[Case], arguments: tuple,
              workers: int) -> Iterator[tuple[Case, Any]]:
    """Call `function(case, *arguments)` for every case and yield the results as they come.

    No more than `workers` cases are in work or waiting to be taken at any time. With one worker
    everything happens in this process. The order of the results is not fixed.

    Raises:
        PixelNetError: as the function raised it.
        RunError: the function failed otherwise, or its process died; the message names the case.
    """
    if workers == 1:
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
    # `spawn`: a forked copy of TensorFlow's threads and locks can hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start)
    finished = False
    try:
        waiting = list(reversed(cases))
        running = {}
        while waiting or running:
            while waiting and len(running) < workers:
                case = waiting.pop()
                running[pool.submit(function, case, *arguments)] = case
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                names = [case.name for case in running.values()]
                case = running.pop(future)
                try:
                    result = future.result()
                except PixelNetError:
                    raise
                except BrokenProcessPool:
                    raise RunError(
                        f"a worker process died while {names} were in work, most likely killed "
                        "for lack of memory; run again with fewer --workers") from None
                except Exception as error:
                    raise _failure(case, error) from error
                yield case, result
        finished = True
    finally:
        pool.shutdown(wait=finished, cancel_futures=True)
        if not finished:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


def _failure(case: Case, error: Exception) -> RunError:
    return RunError(f"case {case.name}: {type(error).__name__}: {error}")


def _start() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
