"""Cases on the workers of Dask: of a running scheduler, of this machine, or of Slurm's jobs.

Dask (`distributed`, `dask_jobqueue`) is the extra `cluster`, loaded when it is asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pixelnet_tf import __version__
from pixelnet_tf.dataset.workers import Item, failure, interrupts_held, worker_count
from pixelnet_tf.errors import ConfigError, PixelNetError, RunError, WorkerDied, require
from pixelnet_tf.io.processor import limit_cores
from pixelnet_tf.reporting import Reporter, load_tensorflow_quietly, reporter_or_log

#: A scheduler that has not answered for so long is not there.
CONNECT_SECONDS = 15
#: While cases are in work, it is looked so often whether workers have come or gone.
_LOOK_SECONDS = 2
#: How often a case is tried again whose worker died, where the scheduler is this program's.
_TRIES_AGAIN = 1
#: HOST:PORT, with the protocol before it or without.
_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:.]+\]|[^/:\s]+):([0-9]{1,5})/?")
_START = "start it by `dask scheduler`, or correct the address"
_FORMS = "give a scheduler's address (tcp://HOST:8786), local[:N] or slurm[:N]"


class Cluster:
    """Workers of a Dask scheduler, as an `Engine`; `open_cluster` makes it.

    No more cases are with the scheduler than its workers have threads, so that one which dies takes
    no case along that it had not begun.
    """

    def __init__(self, client: Any, name: str, reporter: Reporter):
        self._client, self._name, self._reporter = client, name, reporter
        self._waits = False

    def run(self, function: Callable[..., Any], cases: Iterable[Item], arguments: tuple,
            spare: bool) -> Iterator[tuple[Item, Any]]:
        """As `run_cases`; a case is tried again as often as the scheduler's setting
        `allowed-failures` says, once where this program started it."""
        waiting = iter(cases)
        running: dict[Any, Item] = {}
        try:
            while True:
                for case in islice(waiting, max(0, self._threads() - len(running))):
                    with self._reached():
                        running[self._client.submit(
                            _call, __version__, function, case, arguments,
                            key=f"{case.name}-{uuid.uuid4().hex}", pure=False)] = case
                if not running:
                    return
                for future in self._done(running):
                    case = running.pop(future)
                    result = self._result(future, case)
                    if isinstance(result, WorkerDied) and not spare:
                        raise result
                    yield case, result
        finally:
            if running and self._client.status == "running":
                with suppress(OSError, importlib.import_module("distributed").TimeoutError):
                    self._client.cancel(list(running), force=True)

    def _threads(self) -> int:
        """How many cases may be in work; one where no worker is there yet, which then waits."""
        with self._reached():
            threads = sum(self._client.nthreads().values())
        if not threads and not self._waits:
            self._reporter.message(f"{self._name} has no worker; the work waits for one")
        self._waits = not threads
        return max(1, threads)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say it where the scheduler cannot be reached any more, or has dropped the work."""
        distributed = importlib.import_module("distributed")
        gone = RunError("the scheduler is gone, or has dropped the work", file=self._name,
                        hint="run the same command again: finished cases are kept")
        if self._client.status != "running":
            raise gone
        try:
            yield
        except (OSError, distributed.CancelledError) as error:
            # Among the first are errors of a connection, not those of a case, which are results.
            raise gone from error

    def _done(self, running: dict[Any, Item]) -> list[Any]:
        """Futures that have ended, or none after a while."""
        distributed = importlib.import_module("distributed")
        # Dask's own kind of it, which Python 3.10 does not take for its builtin one.
        with self._reached(), suppress(distributed.TimeoutError), self._client.as_current():
            distributed.wait(list(running), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")
        return [future for future in running if future.done()]

    def _result(self, future: Any, case: Item) -> Any:
        distributed = importlib.import_module("distributed")
        try:
            with self._reached():
                found = future.result()
        except RunError:
            raise
        except distributed.scheduler.KilledWorker as error:
            return WorkerDied(
                f"{error.allowed_failures + 1} workers died at work on it, most likely killed for "
                "lack of memory", case=case.name,
                hint="give workers more memory, or run fewer at a time")
        except Exception as error:  # It could not even be called there.
            raise failure(case, error) from error
        if isinstance(found, _Raised):
            raise found.error
        return found


@dataclass(frozen=True)
class _Raised:
    """An error of the function, handed back so that no worker writes of it."""

    error: PixelNetError


def _call(version: str, function: Callable[..., Any], case: Item, arguments: tuple) -> Any:
    """Call the function on a worker."""
    if version != __version__:
        return _Raised(RunError(
            f"the worker on {socket.gethostname()} has version {__version__}, this program "
            f"{version}", case=case.name, hint="install the same version everywhere"))
    # Each thread of a worker stands for a core.
    limit_cores(1)
    try:
        return function(case, *arguments)
    except PixelNetError as error:
        return _Raised(error)
    except Exception as error:
        return _Raised(failure(case, error))


@contextmanager
def open_cluster(scheduler: str, reporter: Reporter | None = None) -> Iterator[Cluster]:
    """Reach a scheduler, or start one with its workers, which end on leaving.

    Args:
        scheduler: the address of a running one; `local[:N]`, N worker processes of this machine, by
            default as many as there are cores; `slurm[:N]`, N jobs, by default one, as Dask's own
            configuration describes them in the section `jobqueue.slurm`.
        reporter: hears what is waited for.

    Raises:
        ConfigError: another text, the extra `cluster` is missing, or Slurm's jobs are not
            described.
        RunError: the scheduler does not answer.
    """
    kind, _, count = scheduler.partition(":")
    if kind not in ("local", "slurm"):
        if not _ADDRESS.fullmatch(scheduler):
            raise ConfigError(f"{scheduler!r} is no scheduler", value=scheduler, hint=_FORMS)
    elif (count and not (count.isdigit() and 0 < int(count) < 10_000)) or scheduler.endswith(":"):
        raise ConfigError(f"{scheduler!r} does not say how many", value=scheduler, hint=_FORMS)
    require("--scheduler", "cluster", "distributed")
    reporter = reporter_or_log(reporter)
    dask = importlib.import_module("dask")
    distributed = importlib.import_module("distributed")
    with ExitStack() as stack:
        stack.enter_context(_unheard())
        stack.enter_context(dask.config.set({
            "distributed.scheduler.allowed-failures": _TRIES_AGAIN,
            # Threads of libraries are as many as elsewhere, so that sums are the same.
            "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536}}))
        if kind in ("local", "slurm"):
            with interrupts_held():
                cluster = (_local(int(count or 0)) if kind == "local"
                           else _slurm(int(count or 1), reporter))
            stack.enter_context(cluster)
        else:
            _check_answer(scheduler)
        target = cluster if kind in ("local", "slurm") else scheduler
        try:
            client = distributed.Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, distributed.TimeoutError) as error:
            raise _no_scheduler(scheduler) from error
        stack.enter_context(client)
        yield Cluster(client, scheduler, reporter)


def _check_answer(address: str) -> None:
    """Raise `RunError` where no scheduler answers at an address.

    Dask's own client asks it, too, but where something else answers, such as a web server, it fails
    in many ways and does not end for half a minute.
    """
    distributed = importlib.import_module("distributed")

    async def ask() -> None:
        comm = await distributed.comm.connect(
            address, timeout=CONNECT_SECONDS,
            **distributed.Security().get_connection_args("client"))
        await comm.close()

    # In a thread of its own: this one may have a loop that runs, as a notebook's does.
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(asyncio.run, ask()).exception()
    if isinstance(error, (OSError, ValueError, distributed.TimeoutError)):
        raise _no_scheduler(address) from error
    if error is not None:
        raise RunError("what answers there is no scheduler of Dask", value=address, file=address,
                       hint=_START) from error


def _no_scheduler(address: str) -> RunError:
    return RunError(f"no scheduler answers within {CONNECT_SECONDS} s", value=address, file=address,
                    hint=_START)


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep Dask's own log off the terminal: what fails comes back as an error."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _local(count: int) -> Any:
    distributed = importlib.import_module("distributed")
    # Of memory no worker gets a share of its own: what there is, is lent as to any process.
    return distributed.LocalCluster(
        n_workers=worker_count(count, 10_000), threads_per_worker=1, processes=True,
        dashboard_address=":0", memory_limit=0, silence_logs=logging.CRITICAL, preload=[__name__])


def dask_setup(worker: Any) -> None:
    """What Dask calls in a worker process of this machine before its first case.

    TensorFlow is loaded unheard there, as in the program that asked for it. Ctrl-C is left to that
    program, which ends its workers.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_tensorflow_quietly()


def _slurm(count: int, reporter: Reporter) -> Any:
    require("--scheduler slurm", "cluster", "dask_jobqueue")
    dask_jobqueue = importlib.import_module("dask_jobqueue")
    try:
        cluster = dask_jobqueue.SLURMCluster(
            scheduler_options={"allowed_failures": _TRIES_AGAIN, "dashboard_address": ":0"})
    except ValueError as error:
        raise ConfigError(
            f"Dask's configuration does not describe Slurm's jobs: {str(error).splitlines()[0]}",
            value="slurm", hint="write the section jobqueue.slurm (cores, memory, queue, walltime) "
                                "into ~/.config/dask/jobqueue.yaml") from None
    try:
        cluster.scale(jobs=count)
    except BaseException:
        cluster.close()
        raise
    reporter.message(f"{count} jobs of Slurm are asked for, as workers")
    return cluster
