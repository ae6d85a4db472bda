"""An application of a page on a free port, in a thread of the test's own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette


class AppInThread:
    """Starts on entering, ends on leaving.

    Args:
        build: makes the application; takes the `log` of its requests.
        lifespan: "on" starts what the application does beside its answers.

    Attributes:
        url: its address, which ends with a slash.
        requests: (path, status) of every request so far.
    """

    def __init__(self, build: Callable[..., Starlette], lifespan: str):
        self.requests: list[tuple[str, int]] = []
        self._server = uvicorn.Server(uvicorn.Config(build(log=self._log), port=0,
                                                     log_level="error", lifespan=lifespan))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> AppInThread:
        self._thread.start()
        end = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _log(self, event: str, **fields) -> None:
        self.requests.append((fields["path"], fields["status"]))
