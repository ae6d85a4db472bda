"""The viewer's routes, and the process that answers them on this machine alone."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pixelnet_tf.errors import PixelNetError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.guard import Guard, error_answer
from pixelnet_tf.serving.listening import listen_on
from pixelnet_tf.serving.page_routes import page_routes
from pixelnet_tf.viewer.source import ViewSource

#: The longest path with a query; the state of the page stands behind `#` and is never sent.
_URL_CHARACTERS = 2000


def build_app(source: ViewSource, log: Callable[..., None] | None = None) -> Starlette:
    """The ASGI application of the page; nothing can be written through it.

    Files are addressed by numbers of cases and keys of layers, never by a path.

    Args:
        source: what is shown. Starting the application starts measuring its cases.
        log: receives an event for each request; None keeps none.
    """
    measures: list[dict[str, Any]] = []
    ended = threading.Event()

    def measure_all() -> None:
        for number in range(len(source.cases)):
            if ended.is_set():
                return
            measures.append(source.measure(number))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        threading.Thread(target=measure_all, name="measures", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    async def study(request: Request) -> Response:
        return JSONResponse(source.to_json())

    async def measured(request: Request) -> Response:
        try:
            begin = max(int(request.query_params.get("from", 0)), 0)
        except ValueError:
            raise ApiError(400, "`from` must be a whole number") from None
        return JSONResponse({"measures": measures[begin:], "cases": len(source.cases)})

    async def layer(request: Request) -> Response:
        number, key = request.path_params["number"], request.path_params["key"]
        try:
            data = await asyncio.to_thread(source.layer, number, key)
        except KeyError:
            raise ApiError(404, f"case {number} has no such layer") from None
        except PixelNetError as error:
            raise ApiError(422, str(error)) from None
        return Response(data, media_type="application/octet-stream")

    handlers: dict[Any, Any] = {ApiError: _on_error}
    return Starlette(
        routes=[*page_routes("view.html"),
                Route("/api/study", study), Route("/api/measures", measured),
                Route("/api/cases/{number:int}/{key:str}.nii", layer)],
        middleware=[Middleware(Guard, log=log or _no_log, token=None,
                               url_characters=_URL_CHARACTERS)],
        exception_handlers=handlers, lifespan=lifespan)


def run_viewer(source: ViewSource, port: int, ready: Callable[[str], None]) -> None:
    """Answer on 127.0.0.1 until SIGTERM or SIGINT.

    Args:
        source: what is shown.
        port: 0 takes a free one.
        ready: called with the page's address when it can be opened.

    Raises:
        RunError: the port cannot be had.
    """
    listener = listen_on("127.0.0.1", port, socket.socket)
    config = uvicorn.Config(build_app(source), log_config=None, log_level="warning",
                            access_log=False, ws="none", lifespan="on", server_header=False,
                            timeout_graceful_shutdown=1)
    # After its own shutdown uvicorn raises the signal again; to end the page is no interruption.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    ready(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listener])


def _no_log(event: str, **fields: Any) -> None:
    """Keep no line of a request: names of cases are nobody else's."""


async def _on_error(request: Request, error: ApiError) -> JSONResponse:
    return error_answer(error)
