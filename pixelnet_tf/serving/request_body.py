"""Bodies of requests, read no further than a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from pixelnet_tf.errors import RunError
from pixelnet_tf.serving.api_error import CLOSE, ApiError
from pixelnet_tf.serving.limits import LEAST_BYTES_PER_SECOND

#: curl -d says the second of these; TensorFlow Serving does not look.
_JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain", "")
_MOST_FIELDS = 16
#: How many bodies of the greatest length there may be in memory, or on disk, while they come.
_WHOLE_BODIES = 4


def check_json_type(request: Request) -> None:
    """Raise `ApiError` 415 for a body that says that it is not JSON, or is compressed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES:
        raise ApiError(415, f"the content type {kind[:100]!r} is not taken; send "
                            "application/json")
    _refuse_encoding(request)


@dataclass(eq=False)
class _Coming:
    """A body that is being read: bytes so far, since when, by which task, whether it was cut."""

    begun: float
    task: asyncio.Task[Any] | None
    received: int = 0
    cut: bool = False

    def pace(self) -> float:
        """Bytes a second."""
        return self.received / max(time.monotonic() - self.begun, 1e-3)


@dataclass(frozen=True)
class Form:
    """A multipart form: texts by field, and of each file its field, content and name."""

    texts: dict[str, str]
    files: list[tuple[str, BinaryIO, str]]


class Intake:
    """Bodies of one kind: how long each may be, how fast it must come, and how much all may hold.

    Any number of bodies may be on their way, so that those that are begun and never end hold up
    nobody. When all together hold more than `_WHOLE_BODIES` of the longest, the one that comes
    the slowest is answered 503.

    Args:
        most_mib: largest size of one body in MiB.
        seconds: time in which it must be there.
        stall_seconds: longest silence, and what a body may lag behind `LEAST_BYTES_PER_SECOND`.
    """

    def __init__(self, most_mib: int, seconds: float, stall_seconds: float):
        self._most_bytes, self._seconds = most_mib << 20, seconds
        self._stall_seconds = stall_seconds
        self._coming: set[_Coming] = set()

    async def read_body(self, request: Request) -> bytearray:
        """The whole body, which grows in one place: blocks would be held beside what they make.

        Raises:
            ApiError: 413 as soon as it is too long, 408 when it comes too slowly, 503 when others
                need the room, 400 when it breaks off.
        """
        body = bytearray()
        with self._watched(request) as watched:
            async for block in watched.stream():
                body += block
        return body

    @asynccontextmanager
    async def read_files(self, request: Request) -> AsyncIterator[dict[str, BinaryIO]]:
        """The files of a multipart form, by field; closed (and so deleted) on leaving.

        Raises:
            ApiError: as `read_form`; 400 for a form that holds a field twice or a field without a
                file.
        """
        async with self.read_form(request) as form:
            files: dict[str, BinaryIO] = {}
            for name, file, _ in form.files:
                if name in files:
                    raise ApiError(400, f"field {name[:40]!r} stands there twice")
                files[name] = file
            for name in form.texts:
                raise ApiError(400, f"field {name[:40]!r} holds text; send a file")
            yield files

    @asynccontextmanager
    async def read_form(self, request: Request) -> AsyncIterator[Form]:
        """The fields of a multipart form; its files are closed (and so deleted) on leaving.

        Raises:
            ApiError: as `read_body`; 400 for a form that cannot be read; 415; 507 where the disk
                has no room for it.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise ApiError(415, f"the content type {kind[:100]!r} is not taken; send "
                                "multipart/form-data with a NIfTI file for each modality")
        _refuse_encoding(request)
        try:
            with self._watched(request) as watched:
                form = await watched.form(max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS)
        except HTTPException as error:
            raise ApiError(400, f"the form cannot be read: {str(error.detail)[:200]}") from None
        except (KeyError, ValueError) as error:
            raise ApiError(400, f"the form cannot be read: {str(error)[:200]}") from None
        except OSError as error:
            raise no_room(error) from None
        try:
            found = Form({}, [])
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    found.files.append((name, value.file, value.filename or ""))
                else:
                    found.texts[name] = value
            yield found
        finally:
            await form.close()

    @contextmanager
    def _watched(self, request: Request) -> Iterator[Request]:
        """The request, with a body that is read no further than the limits allow."""
        length = request.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._most_bytes:
            raise self._too_long()
        own = _Coming(time.monotonic(), asyncio.current_task())

        async def receive() -> Message:
            try:
                message = await asyncio.wait_for(request.receive(), self._patience(own))
            except asyncio.TimeoutError:
                raise ApiError(408, f"the body came too slowly: {own.received} bytes in "
                                    f"{time.monotonic() - own.begun:.0f} s", CLOSE) from None
            own.received += len(message.get("body", b""))
            if own.received > self._most_bytes:
                raise self._too_long()
            self._make_room()
            return message

        self._coming.add(own)
        try:
            yield Request(request.scope, receive)
        except ClientDisconnect:
            raise ApiError(400, "the body broke off") from None
        except asyncio.CancelledError:
            if not own.cut:
                raise
            raise ApiError(503, "the body came slower than all others while there was no room "
                                "for all; try again", {"Retry-After": "1", **CLOSE}) from None
        finally:
            self._coming.discard(own)

    def _patience(self, body: _Coming) -> float:
        """Seconds for which more of a body may be waited for."""
        age = time.monotonic() - body.begun
        due = self._stall_seconds + body.received / LEAST_BYTES_PER_SECOND
        return max(min(self._stall_seconds, due - age, self._seconds - age), 0)

    def _make_room(self) -> None:
        while sum(body.received for body in self._coming) > _WHOLE_BODIES * self._most_bytes:
            slowest = min((body for body in self._coming if body.received), key=_Coming.pace)
            self._coming.discard(slowest)
            slowest.cut = True
            if slowest.task is not None:
                slowest.task.cancel()

    def _too_long(self) -> ApiError:
        return ApiError(413, f"the body is longer than {self._most_bytes >> 20} MiB; send less at "
                             "once")


def no_room(error: OSError | RunError) -> ApiError:
    """The answer where the server's temporary folder takes no more; it names no path."""
    reason = error.strerror if isinstance(error, OSError) else None
    return ApiError(507, f"the server cannot keep the upload ({reason or 'no room'}); tell who "
                         "runs it")


def _refuse_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ApiError(415, f"the content encoding {encoding[:40]!r} is not taken; send the body "
                            "as it is")
