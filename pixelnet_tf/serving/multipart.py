"""Answers of several parts, as browsers and the clients of other servers read them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

#: Name, file name or None, media type, content.
Part = tuple[str, str | None, str, bytes]


def multipart_answer(parts: Iterable[Part]) -> tuple[bytes, str]:
    """Return a body of `multipart/form-data`, and its media type with the boundary.

    Names and file names are the server's own: they hold neither quotes nor line ends.
    """
    boundary, body = secrets.token_hex(16), bytearray()
    for name, file, kind, content in parts:
        file_name = "" if file is None else f'; filename="{file}"'
        body += (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n'
                 f"Content-Type: {kind}\r\n\r\n").encode()
        body += content + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode()), f"multipart/form-data; boundary={boundary}"
