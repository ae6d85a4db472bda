"""The process around the application: sockets, signals, logs."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import uvicorn

from pixelnet_tf.errors import RunError
from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.connections import Server, WatchedProtocol, room_for_connections
from pixelnet_tf.serving.json_log import JsonHandler, JsonLog
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.registry import ModelRegistry

#: Seconds that an idle connection is kept.
_KEEP_ALIVE = 15


def run_server(root: Path, host: str = "127.0.0.1", port: int = 8501,
               limits: ServerLimits | None = None, token: str | None = None,
               poll_seconds: float = 2.0, hosts: Collection[str] = ()) -> None:
    """Serve the models of a folder until SIGTERM or SIGINT; what was accepted is finished first.

    Args:
        root: a model's folder, or a folder of these.
        host, port: to listen on; port 0 takes a free one (the log names it).
        limits, token: as `build_app` takes them.
        poll_seconds: between two looks for new versions.
        hosts: names by which the server may be called, beside addresses, `localhost`, `host` and
            the machine's name.

    Raises:
        ModelError: no model is there.
        RunError: the port cannot be had.
    """
    limits, log = limits or ServerLimits(), JsonLog()
    registry = ModelRegistry(root, log, poll_seconds)
    handler = JsonHandler(log)
    for name in ("uvicorn.error", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler] if name == "uvicorn.error" else [], False
    limits = replace(limits, connections=room_for_connections(limits.connections))
    config = uvicorn.Config(
        build_app(registry, limits, token, log, {*hosts, host, socket.gethostname()}),
        log_config=None, log_level="warning",
        access_log=False, http=WatchedProtocol.within(limits), ws="none",
        lifespan="on", server_header=False,
        timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=int(limits.seconds) + 1)
    listener = _listen(host, port)
    # After its own shutdown uvicorn raises the signal again; the process then ends as it should.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    bound = listener.getsockname()
    log("listening", host=bound[0], port=bound[1], token=token is not None,
        use="for research use only")
    Server(config).run(sockets=[listener])
    log("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        raise RunError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose "
                       "another --port") from None
    return listener
