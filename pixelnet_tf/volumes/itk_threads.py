"""How many threads ITK divides its sums by: the digits of a result hang on it.

Some filters of ITK add up by threads, and take their number from one setting of the whole process,
which is the number of the machine's cores. So a result would differ in its last digits between
machines, whatever a filter itself is told.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

_changed = threading.Condition()
#: How many are at work with the setting as it is, and what it was before the first of them.
_users, _before = 0, 0


@contextmanager
def threads_of_itk(count: int) -> Iterator[None]:
    """Have ITK's filters divide their work by `count` threads.

    Several may be at work with the same count at a time; one of another count waits for them.
    """
    global _users, _before
    setting = sitk.ProcessObject
    with _changed:
        while _users and setting.GetGlobalDefaultNumberOfThreads() != count:
            _changed.wait()
        if not _users:
            _before = setting.GetGlobalDefaultNumberOfThreads()
            setting.SetGlobalDefaultNumberOfThreads(count)
        _users += 1
    try:
        yield
    finally:
        with _changed:
            _users -= 1
            if not _users:
                setting.SetGlobalDefaultNumberOfThreads(_before)
                _changed.notify_all()
