"""`pixelnet-tf serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from pixelnet_tf.api.serving import ServerLimits, serve
from pixelnet_tf.cli.options import PATH, TOKEN_VARIABLE, read_token, verb
from pixelnet_tf.cli.terminal import TerminalReporter

_DEFAULT = ServerLimits()


@verb("serve")
@click.option("--model", "model", required=True, type=PATH, metavar="DIR",
              help="The --out folder of `pixelnet-tf export`, or DIR/<name> in it.")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; 0.0.0.0 opens the server to the network.")
@click.option("--port", default=8501, show_default=True, type=click.IntRange(0, 65535))
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME",
              help="A further name by which clients may call the server; addresses, localhost and "
                   "the machine's name are taken always. May be repeated.")
@click.option("--token-file", type=PATH, metavar="FILE", help="First line: a token that every "
              f"request must carry as a bearer token; or set {TOKEN_VARIABLE}.")
@click.option("--json-mib", default=_DEFAULT.json_mib, show_default=True, type=int,
              help="Largest body of :predict.")
@click.option("--upload-mib", default=_DEFAULT.upload_mib, show_default=True, type=int,
              help="Largest body of /v1/segment.")
@click.option("--answer-mib", default=_DEFAULT.answer_mib, show_default=True, type=int,
              help="Longest answer of :predict.")
@click.option("--slices", default=_DEFAULT.slices, show_default=True, type=int,
              help="Most slices in a request.")
@click.option("--side", default=_DEFAULT.side, show_default=True, type=int,
              help="Longest side of a slice or volume, in pixels.")
@click.option("--pixels", default=_DEFAULT.pixels, show_default=True, type=int,
              help="Most pixels in a request, or voxels in a volume.")
@click.option("--memory-mib", default=_DEFAULT.memory_mib, show_default=True, type=int,
              help="Most memory that preparing the volumes of a case may take.")
@click.option("--concurrency", default=_DEFAULT.concurrency, show_default=True, type=int,
              help="Predictions computed at once.")
@click.option("--queue", default=_DEFAULT.queue, show_default=True, type=int,
              help="Requests that may wait beside them; the next one is answered 503.")
@click.option("--seconds", default=_DEFAULT.seconds, show_default=True, type=float,
              help="Longest time of a body on its way, and then of the answer.")
@click.option("--stall-seconds", default=_DEFAULT.stall_seconds, show_default=True, type=float,
              help="Longest silence of a client in the middle of a request or an answer.")
@click.option("--connections", default=_DEFAULT.connections, show_default=True, type=int,
              help="Most open connections; beyond, the one that is idle for longest is closed.")
@click.option("--connections-per-address", default=_DEFAULT.connections_per_address,
              show_default=True, type=int, help="Most open connections of one address.")
@click.option("--poll-seconds", default=2.0, show_default=True, type=click.FloatRange(0.1),
              help="Time between two looks for a new version.")
def command(model: Path, host: str, port: int, hosts: tuple[str, ...], token_file: Path | None,
            poll_seconds: float, **limits: Any) -> None:
    """Answer TensorFlow Serving's REST API, and NIfTI in, NIfTI out.

    A new version folder is picked up while the server runs. SIGTERM ends it when every accepted
    request is answered. Logs are JSON lines on standard error. For research use only.
    """
    serve(model, host, port, limits=ServerLimits(**limits), token=read_token(token_file),
          poll_seconds=poll_seconds, hosts=hosts, reporter=TerminalReporter())
    # Every request is answered. Threads that nobody waits for any more (a version half loaded, a
    # volume whose client is gone) would keep the process for as long as they take.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
