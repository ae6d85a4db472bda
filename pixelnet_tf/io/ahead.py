"""Reading ahead: work on the next items of a list, in threads, while one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int = 1
          ) -> Iterator[Result]:
    """Yield `function(item)` of each item, in order, computed up to `threads` items ahead.

    No more than those are begun before they are asked for, so that neither memory nor the time
    until a stop (Ctrl-C, an error) grows with the list. For work that waits for the disk or leaves
    the interpreter's lock, as unpacking and hashing do.
    """
    waiting: deque[Future[Result]] = deque()
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in islice(left, threads):
                waiting.append(pool.submit(function, item))
            while waiting:
                result = waiting.popleft().result()
                # The next one is begun before this one is used.
                for item in islice(left, 1):
                    waiting.append(pool.submit(function, item))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
