"""The process around the application: sockets, signals, logs.

Sockets: how many, how long they may be silent, and what is answered to what is no request.

uvicorn closes idle connections and bounds the size of headers. It waits for ever for a header that
is begun, for a client that takes no answer, and it takes every connection until the process is out
of descriptors; these are watched here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.json_log import JsonHandler, JsonLog
from pixelnet_tf.serving.limits import LEAST_BYTES_PER_SECOND, ServerLimits
from pixelnet_tf.serving.listening import listen_on
from pixelnet_tf.serving.registry import ModelRegistry

#: Seconds that an idle connection is kept.
_KEEP_ALIVE = 15
#: Connections that the operating system keeps for the server while it is busy.
_KERNEL_QUEUE = 4096
#: Connections that are taken at once, before what the earlier ones sent is read.
_TAKEN_AT_ONCE = 16
#: Connections that are closed at once instead of being taken.
_REFUSED_AT_ONCE = 256
#: How many answers of the greatest length may wait in memory until they are taken.
_WHOLE_ANSWERS = 4
#: Longest silence of a client when the server ends.
_HURRY_SECONDS = 1.0
#: So long a connection may be without a request, however many others there are: what was sent may
#: not have been read yet.
_GRACE_SECONDS = 1.0
#: Over less time no pace is taken.
_PACE_SECONDS = 0.05
#: Descriptors for everything but connections: files, libraries, pipes.
_OTHER_DESCRIPTORS = 200


def run_server(root: Path, host: str = "127.0.0.1", port: int = 8501,
               limits: ServerLimits | None = None, token: str | None = None,
               poll_seconds: float = 2.0, hosts: Collection[str] = ()) -> None:
    """Serve the models of a folder until SIGTERM or SIGINT; what was accepted is finished first.

    Args:
        root: a model's folder, or a folder of these.
        host, port: where to listen; port 0 takes a free one (the log names it).
        limits, token: what `build_app` takes under these names.
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
    protocol = WatchedProtocol.within(limits)
    config = uvicorn.Config(
        build_app(registry, limits, token, log, {*hosts, host, socket.gethostname()}),
        log_config=None, log_level="warning",
        access_log=False, http=protocol, ws="none",
        lifespan="on", server_header=False,
        timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=int(limits.seconds) + 1)
    listener = listen_on(host, port, _Listener)
    listener.groups = protocol.groups
    # After its own shutdown uvicorn raises the signal again; the process then ends as it should.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    bound = listener.getsockname()
    log("listening", host=bound[0], port=bound[1], token=token is not None,
        use="for research use only")
    # To look for garbage among all that was imported takes half a second, and all would wait.
    gc.collect()
    gc.freeze()
    Server(config).run(sockets=[listener])
    log("stopped")


@dataclass(eq=False)
class _Group:
    """Connections that share a bound: all of them, or those of one address.

    What is done for each new one takes no time that grows with their number, for a thousand a
    second may come.

    Attributes:
        most: the bound.
        every: the connections.
        new, kept: those without a request, which have not had one yet, or have; in the order in
            which they began to be so.
    """

    most: int
    every: set[WatchedProtocol] = field(default_factory=set)
    new: dict[WatchedProtocol, None] = field(default_factory=dict)
    kept: dict[WatchedProtocol, None] = field(default_factory=dict)

    def one_too_many(self, newest: WatchedProtocol) -> WatchedProtocol | None:
        """Who has to go, if one has to.

        Who has sent no request for longest, if for a second; who has been idle for longest between
        two, if for a second; whose body comes the slowest, or whose answer is taken so, if more
        slowly than it must; else who has sent none for longest, who has been idle for longest, or
        the newest, where no other is.
        """
        if len(self.every) <= self.most:
            return None
        now = newest.loop.time()
        new, kept = next(iter(self.new), newest), next(iter(self.kept), newest)
        if now - new.since > _GRACE_SECONDS:
            return new
        if now - kept.since > _GRACE_SECONDS:
            return kept
        waiting = [other for other in self.every if other.is_waited_for()]
        slowest = min(waiting, key=WatchedProtocol.pace, default=None)
        if slowest is not None and slowest.pace() < LEAST_BYTES_PER_SECOND:
            return slowest
        return kept if new is newest else new


class _Groups:
    """The open connections of a server."""

    def __init__(self, limits: ServerLimits):
        self._limits, self._by_address = limits, dict[str, _Group]()
        self.all = _Group(limits.connections)

    def enter(self, one: WatchedProtocol) -> None:
        """A new connection, which may take the place of another."""
        own = self._by_address.setdefault(one.address,
                                          _Group(self._limits.connections_per_address))
        for group in (own, self.all):
            group.every.add(one)
            group.new[one] = None
        for group in (own, self.all):
            if last := group.one_too_many(one):
                self.leave(last)
                last.transport.abort()
                return

    def refuses(self, address: str) -> bool:
        """Whether there is no place for more of an address that has more than its share.

        Of so many connections, and as many addresses as have some now. Others' new connections
        take the place of its slow ones.
        """
        own = self._by_address.get(address)
        return (own is not None and len(self.all.every) >= self.all.most
                and len(own.every) * len(self._by_address) > self.all.most)

    def leave(self, one: WatchedProtocol) -> None:
        """A connection that is closed; it may have left before."""
        self.mark(one, idle=False)
        self.all.every.discard(one)
        if own := self._by_address.get(one.address):
            own.every.discard(one)
            if not own.every:
                del self._by_address[one.address]

    def mark(self, one: WatchedProtocol, idle: bool) -> None:
        """Whether a connection is without a request now."""
        for group in (self._by_address.get(one.address), self.all):
            if group is None or one not in group.every:
                continue
            if idle and one not in group.new:
                (group.kept if one.served else group.new).setdefault(one)
            elif not idle:
                group.new.pop(one, None)
                group.kept.pop(one, None)


class _Listener(socket.socket):
    """A listening socket that closes connections beyond their address' share before any work.

    A thousand at once would otherwise keep everybody in the system's queue behind them.
    """

    groups: _Groups | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """As `socket.accept`; raises BlockingIOError where there is none that stays open."""
        for _ in range(_REFUSED_AT_ONCE):
            connection, address = super().accept()
            if self.groups is None or not self.groups.refuses(address[0]):
                return connection, address
            connection.close()
        raise BlockingIOError


class WatchedProtocol(H11Protocol):
    """HTTP/1.1 of clients that may be hostile.

    - A header must be complete `stall_seconds` after the connection, or after its first byte where
      there was a request before.
    - An answer must be taken, at `LEAST_BYTES_PER_SECOND` at least; when those that wait to be
      taken hold more than `_WHOLE_ANSWERS` of the longest, the one that waits for longest is given
      up.
    - When there are too many connections, or too many of one address, one is closed: the one that
      has been without a request for longest; where each has one, or had until just now, the one
      whose body comes, or whose answer is taken, too slowly; where there is none, the new one.
    - A body in chunks is refused: a byte of it may cost a thousand times what it costs otherwise,
      and its length is not known before it is read.
    - What is no HTTP is answered in JSON too.
    """

    limits = ServerLimits()
    groups = _Groups(limits)

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.address, self.served = "", False
        self._refusal = (400, "send HTTP/1.1 with headers of less than 64 KiB")
        self._next_event = self.conn.next_event
        # An attribute of this one object, so that uvicorn's loop meets each event checked.
        setattr(self.conn, "next_event", self._next_checked_event)  # noqa: B010
        self._deadline: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        #: Since when an answer waits to be taken, and how much of it did then.
        self._full_since, self._full_bytes = 0.0, 0
        #: Bytes that have come, and since when, and after how many, it has been idle or busy.
        self._received = 0
        self.since, self._received_before = self.loop.time(), 0

    @classmethod
    def within(cls, limits: ServerLimits) -> type[WatchedProtocol]:
        """The protocol with these limits; uvicorn wants a class."""
        return type(cls.__name__, (cls,), {"limits": limits, "groups": _Groups(limits)})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.groups.enter(self)
        self._mind_header()

    def data_received(self, data: bytes) -> None:
        if self._idle():
            self.since, self._received_before = self.loop.time(), self._received
        self._received += len(data)
        super().data_received(data)
        self._mind_header()
        self.groups.mark(self, idle=self._idle())

    def on_response_complete(self) -> None:
        self.since, self._received_before = self.loop.time(), self._received
        self.served = True
        super().on_response_complete()
        self.groups.mark(self, idle=self._idle())

    def connection_lost(self, error: Exception | None) -> None:
        self.groups.leave(self)
        for timer in (self._deadline, self._taking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full_since = self.loop.time()
        self._full_bytes = self.transport.get_write_buffer_size()
        self._bound_answers()
        if self._taking is None:
            self._watch_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full_since = 0.0

    def is_waited_for(self) -> bool:
        """Whether a request cannot go on before its client sends or takes something."""
        return bool(self._full_since) or (
            self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body)

    def pace(self) -> float:
        """Bytes a second at which the request comes, or the answer is taken."""
        if self._full_since:
            moved, since = (self._full_bytes - self.transport.get_write_buffer_size(),
                            self._full_since)
        else:
            moved, since = self._received - self._received_before, self.since
        return moved / max(self.loop.time() - since, _PACE_SECONDS)

    def hurry(self) -> None:
        """The server ends: a client that neither sends nor takes anything for a second is left."""
        before = self._received, self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.is_closing() and not self.transport.get_write_buffer_size():
                return
            now = self._received, self.transport.get_write_buffer_size()
            waiting = now[1] or (self.cycle is not None and self.cycle.more_body)
            if waiting and now == before:
                self.transport.abort()
            else:
                self.hurry()

        self.loop.call_later(_HURRY_SECONDS, look)

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _next_checked_event(self) -> object:
        """The next event; a body in chunks is not HTTP to this server, and none of it is parsed."""
        event = self._next_event()
        if isinstance(event, h11.Request) and any(
                name.lower() == b"transfer-encoding" for name, _ in event.headers):
            self._refusal = (411, "a body must announce its length; send Content-Length instead "
                                  "of Transfer-Encoding")
            raise h11.RemoteProtocolError(self._refusal[1])
        return event

    def _idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _mind_header(self) -> None:
        if not self._idle():
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.stall_seconds, self._header_late)

    def _header_late(self) -> None:
        self._deadline = None
        if self.cycle is not None:
            # What comes may be the rest of a body whose answer is out; nothing can be added.
            self.transport.close()
        else:
            self._refuse(408, "the request's header came too slowly")

    def _watch_taking(self, before: int) -> None:
        """Look again whether the answer is being taken; `before` is what was waiting to go out."""
        def look() -> None:
            self._taking = None
            left = self.transport.get_write_buffer_size()
            if not left:
                return
            if before - left < LEAST_BYTES_PER_SECOND * self.limits.stall_seconds:
                self.transport.abort()
            else:
                self._watch_taking(left)

        self._taking = self.loop.call_later(self.limits.stall_seconds, look)

    def _bound_answers(self) -> None:
        waiting = {other: other.transport.get_write_buffer_size() for other in self.groups.all.every
                   if other._full_since}
        while sum(waiting.values()) > _WHOLE_ANSWERS * self.limits.answer_mib << 20:
            longest = min(waiting, key=lambda other: other._full_since)
            del waiting[longest]
            longest._full_since = 0.0
            longest.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what does not reach the application, and close."""
        if not self.transport.is_closing():
            body = json.dumps({"error": message}).encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (status, _REASONS[status], len(body), body))
            self.transport.close()


_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 411: b"Length Required"}


class Server(uvicorn.Server):
    """uvicorn's server, that takes connections in small groups from a long queue, and ends soon.

    uvicorn has one number for group and queue, and with a large one whoever comes among a thousand
    others is displaced before what it sent is read. And it waits for silent clients when it ends.
    """

    def __init__(self, config: uvicorn.Config):
        config.backlog = _TAKEN_AT_ONCE
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_KERNEL_QUEUE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.server_state.connections:
            if isinstance(connection, WatchedProtocol):
                connection.hurry()
        await super().shutdown(sockets)


def room_for_connections(wanted: int) -> int:
    """How many connections the process may hold, after its limit of descriptors was raised.

    At least one; so many that descriptors are left for everything else.
    """
    try:
        import resource
    except ImportError:  # Windows knows no such limit.
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _TAKEN_AT_ONCE + _OTHER_DESCRIPTORS
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, soft - _TAKEN_AT_ONCE - _OTHER_DESCRIPTORS), 1)
