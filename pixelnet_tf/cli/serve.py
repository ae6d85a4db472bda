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
@click.option("--port", default=8501, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 takes a free one.")
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME",
              help="A further name by which clients may call the server; addresses, localhost and "
                   "the machine's name are taken always. May be repeated.")
@click.option("--token-file", type=PATH, metavar="FILE", help="File whose first line is a "
              f"token; every request must then carry it as a bearer token. Or set "
              f"{TOKEN_VARIABLE}.")
@click.option("--json-mib", default=_DEFAULT.json_mib, show_default=True, type=int,
              help="Largest body of a request to :predict, in MiB.")
@click.option("--upload-mib", default=_DEFAULT.upload_mib, show_default=True, type=int,
              help="Largest body of a request to /v1/segment, in MiB.")
@click.option("--answer-mib", default=_DEFAULT.answer_mib, show_default=True, type=int,
              help="Largest answer of :predict, in MiB.")
@click.option("--slices", default=_DEFAULT.slices, show_default=True, type=int,
              help="The most slices that one request may hold.")
@click.option("--side", default=_DEFAULT.side, show_default=True, type=int,
              help="Longest side of a slice or volume, in pixels.")
@click.option("--pixels", default=_DEFAULT.pixels, show_default=True, type=int,
              help="The most pixels that one request may hold, or voxels that a volume may have.")
@click.option("--memory-mib", default=_DEFAULT.memory_mib, show_default=True, type=int,
              help="The most memory that preparing the volumes of a case may take, or the volumes "
              "of an upload of DICOM files all together, in MiB.")
@click.option("--concurrency", default=_DEFAULT.concurrency, show_default=True, type=int,
              help="How many predictions are computed at once.")
@click.option("--queue", default=_DEFAULT.queue, show_default=True, type=int,
              help="How many requests may wait beside those; the next one is answered 503.")
@click.option("--seconds", default=_DEFAULT.seconds, show_default=True, type=float,
              help="Longest time in seconds that a body may take to arrive, and then the answer.")
@click.option("--stall-seconds", default=_DEFAULT.stall_seconds, show_default=True, type=float,
              help="Longest time in seconds that a client may be silent in the middle of a request "
                   "or an answer.")
@click.option("--connections", default=_DEFAULT.connections, show_default=True, type=int,
              help="The most open connections; for one more, the one that has been idle for "
              "longest "
                   "is closed.")
@click.option("--connections-per-address", default=_DEFAULT.connections_per_address,
              show_default=True, type=int, help="The most open connections of one address.")
@click.option("--poll-seconds", default=2.0, show_default=True, type=click.FloatRange(0.1),
              help="Time in seconds between two looks for a new version.")
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
