"""Answers in TensorFlow Serving's manner: errors are `{"error": message}`."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pixelnet_tf.serving.api_error import ApiError


def error_answer(error: ApiError) -> JSONResponse:
    """The JSON answer of an error."""
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def on_api_error(request: Request, error: ApiError) -> JSONResponse:
    """Handler of the errors that this package raises."""
    return error_answer(error)


async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Handler of the routes' own errors: no such page, wrong method."""
    text = {404: "no such page; /openapi.json lists what there is",
            405: "this page does not take the method "
                 f"{request.method[:20]}; see /openapi.json"}.get(error.status_code, error.detail)
    return JSONResponse({"error": str(text)}, error.status_code, error.headers)


async def on_fault(request: Request, error: Exception) -> JSONResponse:
    """Handler of a fault of the server's own; the log has the cause, the answer has not."""
    return JSONResponse({"error": "the server failed on this request; its log has the cause"},
                        500)
