"""A fixed number of worker threads, and a bounded queue before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pixelnet_tf.serving.api_error import ApiError

T = TypeVar("T")


class Gate:
    """Lets so many requests in; of these, `workers` are computed at once.

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

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Compute in a worker thread; when cancelled, work that has not begun never begins."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        """Begin nothing more; what runs is left to its thread, for whoever asked is gone."""
        self._pool.shutdown(wait=False, cancel_futures=True)
