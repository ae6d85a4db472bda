"""Large JSON bodies are read in processes beside the server's.

The interpreter reads JSON in one go, and answers nothing else meanwhile: 62 MiB took it a minute.
What it builds is many times as large as the text, and stays with the process. A process beside has
a bound on its memory, can be ended, and gives everything back when it ends.
"""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from pixelnet_tf.dataset.workers import follow_parent, interrupts_held, program_unseen
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.predict_json import PredictCall, Signature, parse_predict

#: A body beyond one of these is read beside: below, reading takes some hundredths of a second.
#: Base64 is read fast and may be long; numbers, and strings with escapes, are read slowly.
_FEW_BYTES, _FEW_VALUES, _FEW_BYTES_OF_NUMBERS = 16 << 20, 1 << 16, 1 << 20
#: What a body may become in memory, as a multiple of the longest body.
_GROWTH = 32
#: A process that has grown by more is ended after its body, and so gives the memory back; one that
#: has not is kept for so many seconds.
_KEPT_MIB, _KEPT_SECONDS = 256, 10.0
#: What is looked through at once while it is counted.
_WINDOW = 1 << 20
_starting = threading.Lock()


def is_large(body: bytes | bytearray) -> bool:
    """Whether a JSON text is to be read beside; Base64 makes a long text of few values."""
    if len(body) > _FEW_BYTES:
        return True
    values = 0
    for start in range(0, len(body), _WINDOW):
        values += sum(body.count(sign, start, start + _WINDOW) for sign in _TELLING)
        if values > _FEW_VALUES:
            return True
    # With few escapes every second piece, as the quotes cut it, lies outside of strings.
    return sum(map(len, body.split(b'"')[::2])) > _FEW_BYTES_OF_NUMBERS


#: What begins a value, a string or an escape.
_TELLING = (b",", b"[", b"{", b'"', b"\\")


class JsonProcesses:
    """Processes that read JSON bodies, one body each at a time.

    One is started when none is free, and kept for the next body for some seconds.

    Args:
        limits: bounds of what a body may hold and how long reading may take.
        kept_seconds: how long a process waits for a body.
    """

    def __init__(self, limits: ServerLimits, kept_seconds: float = _KEPT_SECONDS):
        self._limits, self._kept_seconds = limits, kept_seconds
        self._every: set[_Reader] = set()
        #: Processes that wait, and what ends each of them in time.
        self._free: dict[_Reader, threading.Timer] = {}
        self._lock = threading.Lock()

    def read(self, body: bytes | bytearray, signatures: Mapping[str, Signature]) -> PredictCall:
        """As `parse_predict`; to be called in a thread, which waits.

        Raises:
            ApiError: as `parse_predict`; 413 where the body needs too much memory, 503 where the
                system lends no process, 504 where reading takes too long.
        """
        try:
            reader = self._taken() or _Reader(self._limits)
        except OSError as error:
            raise ApiError(503, f"so large a body cannot be read now ({error.strerror}); send "
                                "fewer slices, or strings to segment_encoded") from None
        self._every.add(reader)
        keep = False
        try:
            found, keep = reader.ask(body, signatures, self._limits.seconds)
        finally:
            if keep:
                self._keep(reader)
            else:
                self._end(reader)
        if isinstance(found, PredictCall):
            return found
        raise ApiError(*found)

    def close(self) -> None:
        """End all processes, what they do included."""
        with self._lock:
            for timer in self._free.values():
                timer.cancel()
        for reader in list(self._every):
            reader.end()

    def _taken(self) -> _Reader | None:
        """A process that waits, if one does."""
        with self._lock:
            if not self._free:
                return None
            reader, timer = self._free.popitem()
        timer.cancel()
        return reader

    def _keep(self, reader: _Reader) -> None:
        timer = threading.Timer(self._kept_seconds, self._end_if_free, (reader,))
        timer.daemon = True
        with self._lock:
            self._free[reader] = timer
        timer.start()

    def _end_if_free(self, reader: _Reader) -> None:
        with self._lock:
            if self._free.pop(reader, None) is None:
                return
        self._end(reader)

    def _end(self, reader: _Reader) -> None:
        self._every.discard(reader)
        reader.end()


class _Reader:
    """A process and the pipe to it."""

    def __init__(self, limits: ServerLimits):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, limits), name="json",
                                        daemon=True)
        with _starting, interrupts_held(), program_unseen(_serve):
            self._process.start()
        theirs.close()

    def ask(self, body: bytes | bytearray, signatures: Mapping[str, Signature], seconds: float
            ) -> tuple[PredictCall | tuple[int, str], bool]:
        """What `parse_predict` returned or raised, and whether the process is good for more."""
        end = time.monotonic() + seconds
        try:
            self._pipe.send_bytes(body)
            self._pipe.send(dict(signatures))
            if not self._pipe.poll(max(end - time.monotonic(), 0)):
                return (504, f"reading the body took longer than {seconds:g} s; send fewer "
                             "slices"), False
            return self._pipe.recv()
        except (EOFError, OSError):
            # It was killed, most likely for lack of memory.
            return _too_large(), False

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, limits: ServerLimits) -> None:
    """What the process does: bodies in, calls or errors out, until the pipe is closed."""
    follow_parent()
    # Nothing that is read has cycles, and to look for them takes longer than reading.
    gc.disable()
    before = _limit_memory(_GROWTH * limits.json_mib << 20)
    while True:
        try:
            body, signatures = pipe.recv_bytes(), pipe.recv()
        except (EOFError, MemoryError):
            return
        found: PredictCall | tuple[int, str]
        try:
            found = parse_predict(body, signatures, limits)
        except ApiError as error:
            found = error.status, error.message
        except MemoryError:
            found = _too_large()
        keep = _used_mib() < before + _KEPT_MIB
        try:
            pipe.send((found, keep))
        except MemoryError:
            pipe.send((_too_large(), False))


def _too_large() -> tuple[int, str]:
    return 413, ("the body needs too much memory as JSON; send fewer slices, or strings to "
                 "segment_encoded")


def _limit_memory(more_bytes: int) -> float:
    """Let this process grow by so much at most, where the system can; returns MiB used so far."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        pass  # Not Linux.
    return _used_mib()


def _used_mib() -> float:
    """The most memory that this process has used."""
    try:
        import resource
    except ImportError:
        return float("inf")  # Not known, so that no process is kept.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
