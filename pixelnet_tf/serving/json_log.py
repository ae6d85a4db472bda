"""Structured logs: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO


class JsonLog:
    """Writes events as JSON lines; call it with the event's name and its fields."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr

    def __call__(self, event: str, **fields: Any) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **fields}, default=str)
        # A log that nobody takes any more (a closed pipe, a full disk) ends no thread.
        with suppress(OSError, ValueError):
            # One write a line, so that threads do not mix theirs.
            self._stream.write(line + "\n")
            self._stream.flush()


class JsonHandler(logging.Handler):
    """Leads the records of the `logging` module (uvicorn's) into a `JsonLog`."""

    def __init__(self, log: JsonLog):
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = {"error": repr(record.exc_info[1])} if record.exc_info else {}
        # A message may hold a whole trace after its first line.
        self._log("server", level=record.levelname, message=record.getMessage().splitlines()[0],
                  **error)
