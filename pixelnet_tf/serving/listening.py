"""A socket to listen on, before anything else is begun."""

from __future__ import annotations

import socket
from typing import TypeVar

from pixelnet_tf.errors import RunError

_Listener = TypeVar("_Listener", bound=socket.socket)


def listen_on(host: str, port: int, kind: type[_Listener]) -> _Listener:
    """Listen on an address.

    Args:
        host, port: where; port 0 takes a free one.
        kind: the class of the socket.

    Raises:
        RunError: the port cannot be had.
    """
    try:
        family, type_, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = kind(family, type_, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        raise RunError(f"cannot listen on {host}:{port}: {error.strerror or error}",
                       hint="choose another --port") from None
    return listener
