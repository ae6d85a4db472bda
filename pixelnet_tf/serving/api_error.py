"""An answer that is not 200."""

from __future__ import annotations

#: Header of an answer after which nothing more of the request is read.
CLOSE = {"Connection": "close"}


class ApiError(Exception):
    """A request that is answered with a status and `{"error": message}`.

    The message says what was wrong and what to send instead.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
