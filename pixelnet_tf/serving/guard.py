"""What every request passes first: its log line, the URL's length, where it comes from, the token.

A browser lets any page send requests to any address that it reaches, this machine's own included.
By the header `Origin` it says which page that was. And by a name of its own that it points to this
server's address, a page makes its requests look like the server's own (DNS rebinding): `Host` then
holds that name. A page may also embed an address as a picture, a script or a frame without
`Origin`; browsers say that by `Sec-Fetch-Site`. A link that is followed into a window of its own is
no request of the other page's, and is answered.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
import uuid
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixelnet_tf.page import CONTENT_SECURITY_POLICY
from pixelnet_tf.serving.api_error import ApiError

#: Answered without a token and in any round: what a supervisor asks.
HEALTH_PATHS = ("/healthz", "/readyz")
#: Every answer's headers, which keep other origins out of what browsers show of this one.
_HEADERS = {"content-security-policy": CONTENT_SECURITY_POLICY,
            "x-content-type-options": "nosniff", "x-frame-options": "DENY",
            "referrer-policy": "no-referrer", "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin", "cache-control": "no-store"}


def error_answer(error: ApiError) -> JSONResponse:
    """The JSON answer of an error, in TensorFlow Serving's manner."""
    return JSONResponse({"error": error.message}, error.status, error.headers)


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        log: receives an event `request` for each request.
        token: the token that `Authorization: Bearer` must carry; None asks for none.
        url_characters: longest path with query.
        hosts: names by which the server may be called, beside all IP addresses (no page of
            another origin has one of these in its place) and `localhost`.
        open_paths: answered without a token, beside `HEALTH_PATHS`.
    """

    def __init__(self, app: ASGIApp, log: Callable[..., None], token: str | None,
                 url_characters: int, hosts: Collection[str] = (),
                 open_paths: Collection[str] = ()):
        self._app, self._log, self._url_characters = app, log, url_characters
        self._open_paths = {*HEALTH_PATHS, *open_paths}
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._token = None if token is None else token.encode()
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500
        request_id = uuid.uuid4().hex[:12]

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *(
                    (name.encode(), value.encode()) for name, value in (
                        *_HEADERS.items(), ("x-request-id", request_id)))]
            await send(message)

        try:
            if scope["path"] not in HEALTH_PATHS:
                await self._take_turn()
            self._check(scope)
        except ApiError as error:
            await error_answer(error)(scope, receive, watched)
        else:
            await self._app(scope, receive, watched)
        finally:
            self._log("request", id=request_id, method=scope["method"],
                      path=scope["path"][:200], status=status,
                      client=(scope.get("client") or ("",))[0],
                      seconds=round(time.monotonic() - start, 4))

    async def _take_turn(self) -> None:
        """Let one request begin in each round of the event loop.

        Hundreds of clients that each ask for page after page would else make every round long, and
        an answer takes several. Whether the server lives is answered in any round.
        """
        async with self._turn:
            await asyncio.sleep(0)

    def _check(self, scope: Scope) -> None:
        length = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if length > self._url_characters:
            raise ApiError(414, f"the URL has {length} characters; at most "
                                f"{self._url_characters} are taken")
        headers = Headers(scope=scope)
        self._check_host_and_origin(headers)
        if self._token is None or scope["path"] in self._open_paths:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if kind.lower() != "bearer" or not same:
            raise ApiError(401, "send the server's token as `Authorization: Bearer TOKEN`",
                           {"WWW-Authenticate": "Bearer"})

    def _check_host_and_origin(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        for host in hosts:
            if not self._is_own(host):
                raise ApiError(403, f"this server is not called {host[:100]!r}; use its address, "
                                    "or start it with --allowed-host NAME")
        for origin in headers.getlist("origin"):
            # A proxy may have taken TLS off, so that the scheme is not compared.
            if origin.partition("://")[2] not in hosts:
                raise ApiError(403, f"pages of {origin[:100]!r} cannot use this server; only its "
                                    "own origin can")

        site, target = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-dest", "")
        if site not in ("none", "same-origin") and target != "document":
            raise ApiError(403, "pages of other origins cannot use this server")

    def _is_own(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name = host
        name = name.lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True
