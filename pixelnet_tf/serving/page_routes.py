"""The routes of a page and of what it is made of."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pixelnet_tf.page import MEDIA_TYPES, page_paths, read_page


def page_routes(page: str) -> list[Route]:
    """Return the routes of an HTML file of `pixelnet_tf.page`, at `/`, and of its two others."""
    return [Route(path, partial(_answer, read_page(name), MEDIA_TYPES[name]))
            for path, name in page_paths(page).items()]


async def _answer(content: bytes, media_type: str, request: Request) -> Response:
    return Response(content, media_type=media_type)
