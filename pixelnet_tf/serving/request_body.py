"""Bodies of requests, read no further than a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from pixelnet_tf.serving.api_error import ApiError

#: curl -d says the second of these; TensorFlow Serving does not look.
_JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain", "")
_MOST_FIELDS = 16


def check_json_type(request: Request) -> None:
    """Raise `ApiError` 415 for a body that says that it is not JSON, or is compressed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES:
        raise ApiError(415, f"the content type {kind[:100]!r} is not taken; send "
                            "application/json")
    _refuse_encoding(request)


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body; raises `ApiError` 413 as soon as it is too long, 400 when it breaks off."""
    _check_announced(request, most_bytes)
    blocks, size = [], 0
    try:
        async for block in request.stream():
            size += len(block)
            if size > most_bytes:
                raise _too_long(most_bytes)
            blocks.append(block)
    except ClientDisconnect:
        raise ApiError(400, "the body broke off") from None
    return b"".join(blocks)


@asynccontextmanager
async def read_files(request: Request, most_bytes: int, seconds: float
                     ) -> AsyncIterator[dict[str, BinaryIO]]:
    """The files of a multipart form, by field; closed (and so deleted) on leaving.

    Raises:
        ApiError: 400 for a form that cannot be read, holds a field twice or a field without a
            file; 408, 413, 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, f"the content type {kind[:100]!r} is not taken; send "
                            "multipart/form-data with a NIfTI file for each modality")
    _refuse_encoding(request)
    _check_announced(request, most_bytes)
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > most_bytes:
            raise _too_long(most_bytes)
        return message

    try:
        form = await asyncio.wait_for(
            Request(request.scope, counted).form(max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS),
            seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body took longer than {seconds:g} s") from None
    except ClientDisconnect:
        raise ApiError(400, "the body broke off") from None
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {str(error.detail)[:200]}") from None
    except (KeyError, ValueError) as error:
        raise ApiError(400, f"the form cannot be read: {str(error)[:200]}") from None
    try:
        files: dict[str, BinaryIO] = {}
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise ApiError(400, f"field {name[:40]!r} holds text; send a file")
            if name in files:
                raise ApiError(400, f"field {name[:40]!r} stands there twice")
            files[name] = value.file
        yield files
    finally:
        await form.close()


def _refuse_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ApiError(415, f"the content encoding {encoding[:40]!r} is not taken; send the body "
                            "as it is")


def _check_announced(request: Request, most_bytes: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > most_bytes:
        raise _too_long(most_bytes)


def _too_long(most_bytes: int) -> ApiError:
    return ApiError(413, f"the body is longer than {most_bytes >> 20} MiB; send less at once")
