"""Answering over HTTP with an exported model."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from pixelnet_tf.errors import require
from pixelnet_tf.io import remote
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.serving.limits import ServerLimits as ServerLimits


def serve(model: str | os.PathLike[str], host: str = "127.0.0.1", port: int = 8501, *,
          limits: ServerLimits | None = None, token: str | None = None, poll_seconds: float = 2.0,
          hosts: Sequence[str] = (), reporter: Reporter | None = None) -> None:
    """Answer TensorFlow Serving's REST API, and NIfTI in, NIfTI out, until SIGTERM or SIGINT.

    Parameters
    ----------
    model
        Folder that `Segmenter.export` wrote into, or the model's folder in it.
    host, port
        Where to listen; "0.0.0.0" opens the server to the network. Port 0 takes a free one.
    limits
        Largest requests, and how many at once.
    token
        Token that every request must carry as a bearer token.
    poll_seconds
        Time between two looks for a new version.
    hosts
        Further names by which clients may call the server.

    Raises
    ------
    ModelError
        No model is there. RunError: the port cannot be had.
    """
    if token is None and not _is_loopback(host):
        reporter_or_log(reporter).warning(f"listening on {host} without a token; whoever reaches "
                                          "this port can use the server")
    require("serve", "serve", "starlette", "uvicorn", "python_multipart")
    from pixelnet_tf.serving.server import run_server

    run_server(Path(remote.local(model, reporter)), host, port, limits, token, poll_seconds, hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
