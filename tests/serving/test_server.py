"""Clients that begin and do not go on: none keeps a descriptor or a place; others are served."""

from __future__ import annotations

import copy
import http.client
import json
import os
import select
import socket
import time
from pathlib import Path

import pytest

from pixelnet_tf.serving.limits import ServerLimits

from .server_process import ServerProcess

pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
STALL, MOST = 1.0, 40
PREDICT = "/v1/models/tiny:predict"
POST = (f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        .encode())
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = json.dumps({"inputs": [[[[1, 2, 3]]]]}).encode()


@pytest.fixture(scope="module")
def server(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "models"
    folder.symlink_to(small)
    with ServerProcess(folder, "--stall-seconds", str(STALL), "--queue", "2", "--concurrency", "1",
                       "--connections-per-address", str(MOST)) as server:
        yield server


@pytest.fixture
def connect(server):
    """Opens connections that are closed at the end of the test."""
    made = []

    def connect(data: bytes = b"") -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        made[-1].sendall(data)
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    try:
        while data := connection.recv(1 << 16):
            found += data
    except ConnectionResetError:
        pass
    return found


def predict(server) -> None:
    status, _, answer = server.request("POST", PREDICT, BODY)
    assert (status, json.loads(answer)) == (200, {"outputs": [12.0]})


@pytest.mark.parametrize("lines", [
    "HTTP/1.1\r\nHost: 10.42.0.17:8501\r\nUser-Agent: kube-probe/1.31",
    "HTTP/1.1\r\nHost: [fd00::17]:8501\r\nUser-Agent: GoogleHC/1.0", "HTTP/1.0"],
    ids=["Kubernetes", "a load balancer, IPv6", "HAProxy, without a Host"])
def test_probes_are_answered(connect, lines):
    """They ask by the address of the container, or by none; a page in a browser has a name."""
    connection = connect(f"GET /healthz {lines}\r\nConnection: close\r\n\r\n".encode())
    assert rest(connection).startswith(b"HTTP/1.1 200")


def test_headers_that_are_begun_are_closed(server, connect):
    begun = time.monotonic()
    silent, half = connect(), connect(b"GET /healthz HTTP/1.1\r\nHost: loc")
    after_a_request = connect(GET)
    dripping = connect(b"GET /")
    while b"ok" not in after_a_request.recv(4096):
        pass
    after_a_request.sendall(b"GET ")
    ends = {}
    waiting = {silent: "silent", half: "half", dripping: "dripping",
               after_a_request: "after a request"}
    answers = dict.fromkeys(waiting.values(), b"")
    while waiting:
        for connection in select.select(list(waiting), [], [], 0.1)[0]:
            try:
                data = connection.recv(4096)
            except ConnectionResetError:  # A byte met the closed socket.
                data = b""
            answers[waiting[connection]] += data
            if not data:
                ends[waiting.pop(connection)] = time.monotonic() - begun
        for connection in {dripping, after_a_request} & set(waiting):
            try:
                connection.sendall(b"a")
            except OSError:
                pass
        assert time.monotonic() < begun + 30
    assert all(STALL * 0.9 < seconds < STALL + 5 for seconds in ends.values()), ends
    assert all(answers[name].startswith(b"HTTP/1.1 408") for name in ("silent", "half"))
    assert "header came too slowly" in json.loads(
        answers["half"].partition(b"\r\n\r\n")[2])["error"]


def test_bodies_that_stall_or_drip_are_answered_408(connect):
    begun = time.monotonic()
    stalled = connect(POST + b"Content-Length: 1000\r\n\r\n{")
    dripping = connect(POST + b"Content-Length: 1000\r\n\r\n{")
    form = connect(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                   b"multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n")
    while time.monotonic() < begun + STALL + 0.6:
        try:
            dripping.sendall(b" ")
        except OSError:
            break
        time.sleep(0.2)
    for connection in (stalled, dripping, form):
        head, _, body = rest(connection).partition(b"\r\n\r\n")
        if connection is form:
            # The small model has no serving.json; what it says of that comes first.
            assert head.startswith((b"HTTP/1.1 408", b"HTTP/1.1 404"))
            continue
        assert head.startswith(b"HTTP/1.1 408"), head
        assert b"connection: close" in head.lower()
        assert "the body came too slowly" in json.loads(body)["error"]
    assert time.monotonic() < begun + STALL + 6


def test_stalled_bodies_hold_up_nobody(server, connect):
    """They are more than there are places; whoever comes then is served."""
    stalled = [connect(POST + b"Content-Length: 1000\r\n\r\n{") for _ in range(20)]
    for _ in range(3):
        predict(server)
    for connection in stalled:
        assert rest(connection).startswith(b"HTTP/1.1 408")


def test_stalled_bodies_on_every_connection_hold_up_nobody(server, connect):
    """Neither who comes anew nor who has a connection already and asks again and again."""
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(4):
        for _ in range(MOST):
            connect(POST + b"Content-Length: 1000\r\n\r\n{")
        predict(server)
        kept.request("GET", "/v1/models")
        answer = kept.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        # From now on they are slow.
        time.sleep(STALL / 3)
    kept.close()


class Peer:
    """Stands in for a connection: since when it is idle, or how fast its body comes."""

    def __init__(self, address="127.0.0.1", since=0.0, pace=None, working=False, served=False):
        self.address, self.since, self._pace, self.working = address, since, pace, working
        self.served = served
        self.aborted = False
        self.loop = self.transport = self

    def time(self):
        return 100.0

    def abort(self):
        self.aborted = True

    def is_waited_for(self):
        return self._pace is not None

    def pace(self):
        return self._pace


@pytest.mark.parametrize(("there", "goes"), [
    ([Peer(since=1), Peer(since=2), Peer(since=3, pace=0.0)], 0),
    ([Peer(since=1, served=True), Peer(since=2), Peer(since=3, pace=0.0)], 1),
    ([Peer(since=1, served=True), Peer(since=99.9), Peer(since=3, pace=0.0)], 0),
    ([Peer(since=99.5, served=True), Peer(since=99.9), Peer(since=3, pace=0.0)], 2),
    ([Peer(since=99.5, served=True), Peer(since=99.9), Peer(since=99.8, served=True)], 1),
    ([Peer(since=99.9), Peer(since=2, pace=10.0), Peer(since=3, pace=5.0)], 2),
    ([Peer(since=99.9), Peer(since=2, pace=1e6), Peer(since=3, pace=1e5)], 0),
    ([Peer(since=1, working=True), Peer(since=2, pace=1e6), Peer(since=3, pace=1e5)], 3),
    ([Peer(since=1, working=True)] * 3, 3)],
    ids=["longest idle", "who has not asked yet", "longest idle between requests",
         "nobody who asks again soon", "who has asked stays", "slowest body", "no body that comes",
         "not for bodies that come", "nobody who has sent all"])
def test_who_makes_room(there, goes):
    from pixelnet_tf.serving.server import WatchedProtocol, _Groups
    groups = _Groups(ServerLimits(connections=3))
    there = [*(copy.copy(peer) for peer in there), Peer(since=100.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WatchedProtocol, "pace", Peer.pace)
        for peer in there:
            peer.loop = peer.transport = peer
            groups.enter(peer)
            if peer.working or peer.is_waited_for() or peer.served:
                groups.mark(peer, idle=False)
            if peer.served:
                groups.mark(peer, idle=True)
    assert [peer.aborted for peer in there] == [number == goes for number in range(4)]
    for peer in there:
        groups.leave(peer)
    assert [groups.all.every, groups.all.new, groups.all.kept] == [set(), {}, {}]
    assert groups._by_address == {}


def test_beyond_its_share_an_address_gets_no_more_and_others_take_its_places():
    from pixelnet_tf.serving.server import _Groups, _Listener
    groups = _Groups(ServerLimits(connections=6, connections_per_address=6))
    crowd = [Peer("127.0.0.1") for _ in range(6)]
    for peer in crowd:
        groups.enter(peer)
    # A proxy's address, or the only one, has the whole.
    assert not groups.refuses("127.0.0.1")
    assert not groups.refuses("127.0.0.2")
    other = Peer("127.0.0.2")
    groups.enter(other)
    assert [peer.aborted for peer in (*crowd, other)] == [True] + [False] * 6
    assert groups.refuses("127.0.0.1")
    assert not groups.refuses("127.0.0.2")
    with _Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        listener.groups = groups
        with socket.create_connection(listener.getsockname()) as refused:
            with pytest.raises(BlockingIOError):
                listener.accept()
            assert refused.recv(1) == b""
        groups.leave(crowd[1])
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()


def test_a_new_connection_costs_the_same_however_many_there_are():
    from pixelnet_tf.serving.server import _Groups

    def seconds(most):
        groups = _Groups(ServerLimits(connections=most, connections_per_address=most))
        for _ in range(most):
            groups.enter(Peer())
        begun = time.perf_counter()
        for _ in range(500):
            groups.enter(Peer())
        return time.perf_counter() - begun

    assert min(seconds(20_000) for _ in range(3)) < 10 * min(seconds(20) for _ in range(3))


def test_connections_of_an_address_are_bounded_and_the_newest_are_served(server, connect):
    before = descriptors(server)
    many = [connect(b"GET / HTTP/1.1\r\n") for _ in range(3 * MOST)]
    for _ in range(5):
        begun = time.monotonic()
        assert server.request("GET", "/healthz")[0] == 200
        predict(server)
        assert time.monotonic() - begun < 5
    assert descriptors(server) <= before + MOST + 2
    # The first ones are closed, the last ones wait for their time.
    assert rest(many[0]) == b""
    assert rest(many[-1]).startswith(b"HTTP/1.1 408")


def descriptors(server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.mark.parametrize("first", [b"", GET], ids=["alone", "behind another request"])
def test_a_body_in_chunks_is_refused_before_it_is_parsed(server, connect, first):
    """Chunks of one byte each kept the server from everything else for seconds."""
    connection = connect(first + POST + b"Transfer-Encoding: chunked\r\n\r\n")
    begun = time.monotonic()
    try:
        connection.sendall(b"1\r\n \r\n" * 500_000)
    except OSError:
        pass
    assert server.request("GET", "/healthz")[0] == 200
    assert time.monotonic() - begun < 5
    chunked = connect(first + POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n\r\n")
    head, _, body = rest(chunked).rpartition(b"\r\n\r\n")
    assert b"HTTP/1.1 411 Length Required" in head
    assert "Content-Length" in json.loads(body)["error"]


def test_an_answer_that_is_not_taken_is_given_up(server, connect):
    before = descriptors(server)
    page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection = connect()
    connection.setblocking(False)
    sent, deadline = 0, time.monotonic() + 30
    while time.monotonic() < deadline and sent < len(page) * 5000:
        try:
            sent += connection.send(page * 500)
        except BlockingIOError:
            break
    while descriptors(server) > before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_tables_of_this_process_are_left_alone():
    from pixelnet_tf.serving.server import room_for_connections
    assert room_for_connections(1) == 1
    if Path("/proc/self/fd").is_dir():
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = room_for_connections(10**9)
        assert 1 <= most < hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
