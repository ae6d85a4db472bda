"""Memory that a large request or an old version took goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress

#: Bytes of a body or an answer from which on it is worth it.
LARGE_BYTES = 1 << 20
_one_at_a_time = threading.Lock()


def give_back_memory() -> None:
    """Collect what lies in cycles, and let the C library return its free pages.

    It keeps them otherwise, for they lie between pages that are in use: hundreds of MiB after a few
    dozen long bodies. Other C libraries than GNU's are left to their own ways. A call while another
    one is under way does nothing.
    """
    if not _one_at_a_time.acquire(blocking=False):
        return
    try:
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    finally:
        _one_at_a_time.release()
