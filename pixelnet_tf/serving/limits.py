"""What the server takes from one request, and the gate that lets so many in at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TypeVar

from pixelnet_tf.errors import ConfigError
from pixelnet_tf.serving.api_error import ApiError

_T = TypeVar("_T")

#: A client that sends or takes less over some time only holds a place.
LEAST_BYTES_PER_SECOND = 16 << 10


@dataclass(frozen=True)
class ServerLimits:
    """Limits of the server; a request beyond one is refused before memory is spent on it.

    Attributes:
        json_mib: body of `:predict`, in MiB.
        upload_mib: body of `/v1/segment`, in MiB.
        answer_mib: answer of `:predict`, in MiB.
        slices: slices in a request.
        side: height or width of a slice, or any side of a volume, in pixels.
        pixels: pixels (or voxels of one volume) in a request.
        memory_mib: memory that preparing the volumes of a case, or those of an upload of DICOM
            files, may take, in MiB.
        concurrency: predictions that run at once; volumes are segmented one at a time beside them.
        queue: further requests that may wait; the next one is answered 503.
        seconds: in which a body must have come, and then in which it must be answered.
        stall_seconds: longest silence of a client that has something to send or to receive, and
            longest time of a request's headers.
        connections: sockets that are open at once.
        connections_per_address: of these, how many from one address.
        url_characters: path and query.
    """

    json_mib: int = 64
    upload_mib: int = 512
    answer_mib: int = 256
    slices: int = 512
    side: int = 1024
    pixels: int = 2**26
    memory_mib: int = 4096
    concurrency: int = 2
    queue: int = 16
    seconds: float = 300.0
    stall_seconds: float = 10.0
    connections: int = 512
    connections_per_address: int = 256
    url_characters: int = 2000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ConfigError(f"--{field.name.replace('_', '-')} must be positive and finite, "
                                  f"got {value}", value=value)


class Gate:
    """A fixed number of worker threads, and a bounded queue before them.

    Use `with gate:` around a request whose body has come, and `run` inside; a body that is begun
    and never ends holds no place.
    """

    def __init__(self, workers: int, queue: int, name: str):
        self._places = workers + queue
        self._inside = 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    def check(self) -> None:
        """Raise `ApiError` 503 where no place is free, before a body is read for nothing."""
        if self._inside >= self._places:
            raise ApiError(503, f"{self._inside} requests are running or waiting; try again",
                           {"Retry-After": "1"})

    def __enter__(self) -> Gate:
        self.check()
        self._inside += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._inside -= 1

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Compute in a worker thread; when cancelled, work that has not begun never begins."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        """Begin nothing more; what runs is left to its thread, for whoever asked is gone."""
        self._pool.shutdown(wait=False, cancel_futures=True)
