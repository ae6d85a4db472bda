"""Attack a server while honest clients keep asking, and print what it did to them.

Starts `pixelnet-tf serve` on a copy of the models, on a free port of this machine, and under each
attack compares every answer of the honest clients with TensorFlow's own in this process, asks
/healthz twenty times a second, and reads the memory of the server with all its processes.

    python scripts/attack_server.py MODELS [--seconds 20] [--only ATTACK ...] [--clients 8]

MODELS is the --out folder of `pixelnet-tf export` with one model. Exit code 1 when an honest
request is lost or its answer is wrong, a health answer takes more than a second, the memory is not
back to within 10 % when an attack is over, the server has a fault of its own (500), a volume that
was sent is left on the disk, or a request is let in that must not be. Linux alone: memory and
processes are read from /proc.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import importlib
import json
import multiprocessing
import os
import random
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from load_test import Load, wait_for

#: What must hold: seconds of the slowest health answer, and memory afterwards by memory before.
HEALTH_SECONDS, MEMORY_RATIO = 1.0, 1.1
#: Seconds after an attack in which memory must be back.
_SETTLE_SECONDS = 30.0
#: Seconds of honest requests alone in which memory must not have grown before the first attack.
_CALM_SECONDS = 1.5
_MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """The server under attack, its one model, and the names of the model's modalities."""

    port: int
    model: str
    modalities: tuple[str, ...]
    folder: Path

    @property
    def predict(self) -> str:
        return f"/v1/models/{self.model}:predict"

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """The beginning of a request, without the empty line that ends it."""
        return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, ""]).encode()


#: An attack: what is attacked, and until when (of `time.monotonic`); returns what was answered.
Attack = Callable[[Target, float], Counter]


# Connections that are opened and held. #


def slow_headers(target: Target, end: float) -> Counter:
    """1,500 headers that are begun and never end; some come on, a line a second."""
    return _hold(target, end, 1500, target.head("GET", "/v1/models"), b"X-More: 1\r\n")


def stalled_bodies(target: Target, end: float) -> Counter:
    """700 bodies that announce 60 MiB and stay away; some come on, a byte a second."""
    length = f"Content-Length: {60 * _MIB}"
    heads = [target.head("POST", target.predict, length, "Content-Type: application/json"),
             target.head("POST", "/v1/segment", length,
                         "Content-Type: multipart/form-data; boundary=x")]
    field_ = (f'\r\n--x\r\nContent-Disposition: form-data; name="{target.modalities[0]}"; '
              'filename="a.nii"\r\n\r\n').encode()
    return _hold(target, end, 700, heads[0] + b'\r\n{"inputs"', b" ", heads[1] + field_)


def untaken_answers(target: Target, end: float) -> Counter:
    """200 clients that ask a hundred times each and take no answer."""
    request = target.head("GET", "/openapi.json") + b"\r\n"
    return _hold(target, end, 200, request * 100, b"", taking=False)


def no_http(target: Target, end: float) -> Counter:
    """TLS, noise, bodies in chunks, two lengths, headers without end."""
    noise = random.Random(0).randbytes(4096)
    chunks = target.head("POST", target.predict, "Transfer-Encoding: chunked") + b"\r\n1\r\n{\r\n"
    lengths = target.head("POST", target.predict, "Content-Length: 1", "Content-Length: 2")
    return _hold(target, end, 60, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", noise,
                 chunks, lengths + b"\r\n{}", b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20),
                 target.head("GET", "/" + "a" * 60_000) + b"\r\n")


def _hold(target: Target, end: float, count: int, start: bytes, more: bytes, *others: bytes,
          taking: bool = True) -> Counter:
    """Hold so many connections open that have sent `start` (or one of `others`).

    Every fourth sends `more` each second. Whoever is closed comes again a second later.

    Returns:
        How often each status was answered, and `closed` for connections that were closed silently.
    """
    starts, said = [start, *others], Counter()
    _room_for(count)
    watch = selectors.DefaultSelector()
    left = deque((number, 0.0) for number in range(count))
    drip_at = time.monotonic() + 1
    while time.monotonic() < end:
        while left and left[0][1] <= time.monotonic() < end:
            number, _ = left.popleft()
            try:
                client = _connect(target, number)
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.send(starts[number % len(starts)])
            except OSError:
                said["refused"] += 1
                left.append((number, time.monotonic() + 1))
                continue
            watch.register(client, selectors.EVENT_READ if taking else selectors.EVENT_WRITE,
                           number)
        if not taking:
            time.sleep(0.2)
            continue
        for key, _ in watch.select(timeout=0.05):
            try:
                answer = key.fileobj.recv(4096)
            except OSError:
                answer = b""
            said[_status(answer)] += 1
            watch.unregister(key.fileobj)
            key.fileobj.close()
            left.append((key.data, time.monotonic() + 1))
        if time.monotonic() > drip_at:
            drip_at += 1
            for key in list(watch.get_map().values())[::4]:
                with suppress(OSError):
                    key.fileobj.send(more)
    for key in list(watch.get_map().values()):
        key.fileobj.close()
    return said


# Bodies. #


def json_bombs(target: Target, end: float) -> Counter:
    """62 MiB of JSON that become much more, take long, or are no numbers; a few at once."""
    kinds, said = list(_bombs()), Counter()

    def throw(first: int) -> None:
        number = first
        while time.monotonic() < end:
            unit, mib = kinds[number % len(kinds)]
            said[_post(target, target.predict, _bomb(unit, mib))] += 1
            number += 1

    _in_threads(throw, range(0, len(kinds), -(-len(kinds) // 4)))
    return said


def _bombs() -> Iterator[tuple[bytes, int]]:
    """What a body repeats, and how long it is in MiB."""
    digits, escapes = b"7" * 4300 + b",", b'"' + b"\\u0041" * 5000 + b'",'
    for unit in (b"0.123456789,", b"[", digits, escapes, b"NaN,", b"1e999,", b"[],", b'{"a":0},',
                 b'{"a":', b"9" * 100_000, b'"', b"3e38,"):
        yield unit, 62
    # As long as what is still read in the server's own process.
    for unit in (digits, escapes, b'"' + b"A" * 1000 + b'",', b"[" * 60_000):
        yield unit, 15


def _bomb(unit: bytes, mib: int) -> bytes:
    start = b'{"instances":['
    return start + unit * ((mib * _MIB - len(start) - 2) // len(unit)) + b"0]}"


def broken_uploads(target: Target, end: float) -> Counter:
    """Volumes that break off on their way or right after it, and files that are none."""
    said = Counter()

    def throw(number: int) -> None:
        while time.monotonic() < end:
            content = _VOLUMES[number % len(_VOLUMES)]()
            body = _form({modality: content for modality in target.modalities})
            cut = (len(body) // 2, len(body) - 1, len(body), None)[number % 4]
            if cut is None:
                said[_post(target, "/v1/segment", body, _FORM)] += 1
            else:
                with suppress(OSError), _connect(target, number) as client:
                    client.sendall(target.head("POST", "/v1/segment", f"Content-Type: {_FORM}",
                                               f"Content-Length: {len(body)}") + b"\r\n"
                                   + body[:cut])
                    time.sleep(0.02 * (number % 3))
                    # No farewell: the connection is reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                      struct.pack("ii", 1, 0))
                said["broken off"] += 1
            number += 1

    _in_threads(throw, range(6))
    return said


_FORM = "multipart/form-data; boundary=edge"


def _form(files: dict[str, bytes]) -> bytes:
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.nii"\r\n'
             "Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n"
             for name, content in files.items()]
    return b"".join(parts) + b"--edge--\r\n"


def _nifti(shape: tuple[int, int, int], content: bytes) -> bytes:
    """A NIfTI file of float32 that announces a shape, with whatever content."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + b"\0\0\0\0" + content


def volume(seed: int = 0, side: int = 24, slices: int = 4) -> bytes:
    """A sound volume: noise in a ball."""
    shape = (side, side, slices)
    radius = np.hypot(*(np.indices(shape)[:2] - (side - 1) / 2))
    voxels = np.random.default_rng(seed).uniform(50, 150, shape) * (radius < 0.4 * side)
    return _nifti(shape, voxels.astype("<f4").tobytes(order="F"))


#: Files that are sent as volumes.
_VOLUMES: tuple[Callable[[], bytes], ...] = (
    lambda: volume(1), lambda: b"no image" * 50_000, lambda: volume(2)[:-100],
    lambda: gzip.compress(_nifti((1000, 1000, 60), bytes(64 * _MIB)), 1),
    lambda: _nifti((32767, 32767, 32767), b""),
    lambda: _nifti((24, 24, 4), b"\xff" * (24 * 24 * 4 * 4)))


def strangers(target: Target, end: float) -> Counter:
    """Pages of other origins, and other names for this server: each must get 403."""
    said, body = Counter(), b'{"inputs": [[[[1, 2, 3]]]]}'
    ways = [{"Host": "evil.example"}, {"Host": f"evil.example:{target.port}"},
            {"Host": "localhost.evil.example"}, {"Origin": "http://evil.example"},
            {"Origin": "null"}, {"Origin": f"http://localhost:{target.port + 1}"}]
    pages = [("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/openapi.json"),
             ("GET", "/v1/models"), ("GET", f"/v1/models/{target.model}/serving.json"),
             ("POST", target.predict), ("POST", "/v1/segment"), ("OPTIONS", target.predict)]
    while time.monotonic() < end:
        for way in ways:
            for method, page in pages:
                status = _post(target, page, body, "text/plain", method, way)
                # In a crowd a connection may be closed before it is answered.
                said[status if status in ("403", "closed") else f"let in: {status}"] += 1
        time.sleep(0.05)
    return said


# The models' folder. #


def corrupt_versions(target: Target, end: float) -> Counter:
    """Versions of noise, of a cut file, of none, one after the other."""
    number = 100
    while time.monotonic() < end:
        number += 1
        made = target.folder / str(number)
        if number % 4:
            shutil.copytree(target.folder / "1", made)
        else:
            made.mkdir()
        if number % 4 == 1:
            (made / "saved_model.pb").write_bytes(random.Random(number).randbytes(20_000))
        elif number % 4 == 2:
            data = made / "variables" / "variables.data-00000-of-00001"
            os.truncate(data, data.stat().st_size // 2)
        elif number % 4 == 3:
            (made / "serving.json").write_text('{"format": 1, "config": [')
        time.sleep(min(1.0, max(end - time.monotonic(), 0)))
        shutil.rmtree(made)
    return Counter({"versions": number - 100})


def vanished_folder(target: Target, end: float) -> Counter:
    """The whole folder of the models goes, comes back, and goes."""
    root, away = target.folder.parent, target.folder.parent.with_name("away")
    times = 0
    while time.monotonic() < end:
        root.rename(away)
        time.sleep(min(1.5, max(end - time.monotonic(), 0)))
        away.rename(root)
        time.sleep(min(1.0, max(end - time.monotonic(), 0)))
        times += 1
    return Counter({"times": times})


ATTACKS: dict[str, Attack] = {
    "slow headers": slow_headers, "stalled bodies": stalled_bodies,
    "untaken answers": untaken_answers, "no HTTP": no_http, "JSON bombs": json_bombs,
    "broken uploads": broken_uploads, "strangers": strangers,
    "corrupt versions": corrupt_versions, "vanished folder": vanished_folder,
}
#: All of them but one that would take the folder from under the other's hands.
TOGETHER = "all at once"


# What attackers share. #


def _connect(target: Target, number: int) -> socket.socket:
    """A connection, from one of eight addresses of this machine where it has them."""
    client = socket.socket()
    client.settimeout(60)
    with suppress(OSError):
        client.bind((f"127.0.0.{2 + number % 8}", 0))
    try:
        client.connect(("127.0.0.1", target.port))
    except OSError:
        client.close()
        raise
    return client


def _post(target: Target, path: str, body: bytes, kind: str = "application/json",
          method: str = "POST", headers: dict[str, str] | None = None) -> str:
    """The status of an answer, or what came in its place."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": kind, **(headers or {})})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "closed"
    finally:
        connection.close()


def _status(answer: bytes) -> str:
    parts = answer[:40].split(b" ")
    return parts[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"


def _in_threads(work: Callable[[int], None], numbers: Any) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _room_for(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(connections + 100, hard), hard))


# Honest clients, health and memory. #


@dataclass
class Honest:
    """What became of the honest clients' requests."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def ask_for_ever(ask: Callable[[int], bool], number: int, honest: Honest, stop: threading.Event
                 ) -> None:
    """One honest client; ask returns whether the answer was right, or raises where none came."""
    while not stop.is_set():
        number += 1
        try:
            right, lost = ask(number), []
        except (OSError, http.client.HTTPException, ValueError) as error:
            right, lost = True, [f"{type(error).__name__}: {str(error)[:200]}"]
            time.sleep(0.1)
        with honest.lock:
            honest.sent += 1
            honest.lost += lost
            honest.wrong += not right


class KeptConnection:
    """An honest client that asks on one connection, a volume at times where the model takes them.

    Args:
        load: slices with their labels.
        segment: a form with a volume, or None.
    """

    def __init__(self, target: Target, load: Load, segment: bytes | None):
        self._target, self._load, self._segment = target, load, segment
        self._connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=300)
        self._expected: bytes | None = None

    def __call__(self, number: int) -> bool:
        if self._segment is not None and number % 8 == 0:
            status, answer = self._ask("/v1/segment", self._segment, _FORM)
            # The first answer comes before all attacks.
            self._expected = self._expected or answer
            right = answer == self._expected
        else:
            body, labels = self._load.pair(number)
            status, answer = self._ask(self._target.predict, body, "application/json")
            right = status == 200 and np.array_equal(json.loads(answer)["outputs"], labels)
        if status != 200:
            raise ValueError(f"{status}, {answer[:200]!r}")
        return right

    def _ask(self, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", path, body, {"Content-Type": kind})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


def watch_health(port: int, pipe: Any) -> None:
    """In a process of its own: the slowest health answer since it was asked last, in seconds."""
    slowest, since = 0.0, time.monotonic()
    while True:
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/healthz")
            answered = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            answered = False
        finally:
            connection.close()
        seconds = time.monotonic() - begun
        slowest = max(slowest, seconds if answered else float("inf"))
        if pipe.poll(0.05):
            if pipe.recv() == "end":
                return
            pipe.send((slowest, since))
            slowest, since = 0.0, time.monotonic()


def memory_mib(process: int) -> float:
    """Resident memory of a process and of all that it has started."""
    family, total = {process}, 0.0
    rows = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                after = (folder / "stat").read_text().rpartition(")")[2].split()
                rows[int(folder.name)] = int(after[1]), int(after[21])
    for _ in range(3):
        family |= {own for own, (parent, _) in rows.items() if parent in family}
    total = sum(rows[own][1] for own in family if own in rows)
    return total * resource.getpagesize() / _MIB


@dataclass
class Row:
    """A line of the table."""

    attack: str
    sent: int
    lost: list[str]
    wrong: int
    health: float
    before: float
    peak: float
    after: float
    answers: Counter
    left: list[str]

    def faults(self, calm: float) -> list[str]:
        """What must not be; `calm` is the memory before all attacks."""
        let_in = sum(count for said, count in self.answers.items() if said.startswith("let in"))
        checks = {
            f"{len(self.lost)} honest requests lost, as by {self.lost[:1]}": self.lost,
            f"{self.wrong} wrong answers": self.wrong,
            "no honest request was answered": self.sent == len(self.lost),
            f"health took {self.health:.2f} s": self.health > HEALTH_SECONDS,
            f"memory {self.after:.0f} MiB, {calm:.0f} before": self.after > MEMORY_RATIO * calm,
            f"{self.answers['500']} faults of the server": self.answers["500"],
            f"{let_in} strangers let in": let_in,
            f"left on the disk: {self.left[:3]}": self.left,
        }
        return [words for words, found in checks.items() if found]

    def __str__(self) -> str:
        said = ", ".join(f"{word} {count}" for word, count in sorted(self.answers.items()))
        return (f"{self.attack:<17} {self.sent:>6} {len(self.lost):>5} {self.wrong:>6} "
                f"{self.health:>8.2f} {self.before:>8.0f} {self.peak:>6.0f} {self.after:>6.0f}   "
                f"{said}")


HEAD = (f"{'':<17} {'honest requests':^19} {'slowest':>8} {'memory (MiB)':^22}\n"
        f"{'attack':<17} {'sent':>6} {'lost':>5} {'wrong':>6} {'health':>8} "
        f"{'before':>8} {'peak':>6} {'after':>6}   answers to the attack")


class Field:
    """The server with its honest clients; attacks are run against it one by one.

    Use as a context manager.
    """

    def __init__(self, models: Path, folder: Path, clients: int, side: int):
        from pixelnet_tf.serving.export import versions_in

        source = next((path for path in sorted(models.iterdir()) if versions_in(path)), None)
        if source is None:
            raise SystemExit(f"{models}: holds no model; give the --out folder of "
                             "`pixelnet-tf export`")
        self._temporary = folder / "temporary"
        self._temporary.mkdir()
        base = folder / "models" / source.name
        shutil.copytree(source / str(versions_in(source)[-1]), base / "1")
        self._log = folder / "server.log"
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pixelnet_tf", "serve", "--model", str(folder / "models"),
                 "--port", "0", "--poll-seconds", "0.5"], stderr=stream,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": str(self._temporary)})
        self._stop, self._honest, self._threads = threading.Event(), Honest(), []
        try:
            # Both processes import TensorFlow at the same time.
            importlib.import_module("pixelnet_tf.serving.loaded_model")
            port = wait_for(self._log, "listening")["port"]
            self._load = Load(base / "1", side, port, source.name)
            wait_for(self._log, "model_loaded")
            about = base / "1" / "serving.json"
            self._volumes = about.is_file()
            modalities = json.loads(about.read_text())["channels"] if self._volumes else ["image"]
            self.target = Target(port, source.name, tuple(modalities), base)
        except BaseException:
            self.process.kill()
            raise
        context = _processes()
        self._pipe, theirs = context.Pipe()
        self._health = context.Process(target=watch_health, args=(port, theirs), daemon=True)
        self._clients, self.calm = clients, 0.0

    def __enter__(self) -> Field:
        self._health.start()
        segment = _form({m: volume(seed) for seed, m in enumerate(self.target.modalities)}) \
            if self._volumes else None
        for number in range(self._clients):
            # Half of them on a connection that is kept, half on a new one each time.
            ask = (KeptConnection(self.target, self._load, segment if number == 0 else None)
                   if number % 2 == 0 else self._on_a_new_one)
            # The one with volumes begins with one.
            self._threads.append(threading.Thread(
                target=ask_for_ever, args=(ask, 8 * number - 1, self._honest, self._stop),
                daemon=True))
            self._threads[-1].start()
        self._wait_for_calm()
        self.calm = memory_mib(self.process.pid)
        self._since_last()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        with suppress(OSError):
            self._pipe.send("end")
        self._health.join(20)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()

    def attack(self, name: str, seconds: float) -> Row:
        """Run an attack, or all at once, and say what it did."""
        self._since_last()
        pid, peak = self.process.pid, 0.0
        before = memory_mib(pid)
        names = [other for other in ATTACKS if other != "vanished folder"] \
            if name == TOGETHER else [name]
        with self._attackers(names, seconds) as coming:
            answers, waiting = Counter(), list(coming)
            while waiting:
                peak = max(peak, memory_mib(pid))
                waiting = [pipe for pipe in waiting if not pipe.poll(0.1 / len(waiting))]
            for pipe in coming:
                answers += pipe.recv()
        if name == "corrupt versions":
            self._good_version_takes_over()
        end = time.monotonic() + _SETTLE_SECONDS
        while (after := memory_mib(pid)) > MEMORY_RATIO * self.calm and time.monotonic() < end:
            peak = max(peak, after)
            time.sleep(0.2)
        if self.process.poll() is not None:
            raise SystemExit(f"the server ended:\n{self._log.read_text(errors='replace')[-3000:]}")
        sent, lost, wrong, health = self._since_last()
        return Row(name, sent, lost, wrong, health, before, max(peak, after), after, answers,
                   self._left_on_disk())

    @contextmanager
    def _attackers(self, names: list[str], seconds: float) -> Iterator[list]:
        """The attacks, each in a process of its own, and pipes to what they were answered."""
        context = _processes()
        processes, pipes = [], []
        for name in names:
            ours, theirs = context.Pipe(duplex=False)
            processes.append(context.Process(target=_attack, daemon=True,
                                             args=(name, self.target, seconds, theirs)))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        try:
            yield pipes
        finally:
            for process in processes:
                process.join()

    def _wait_for_calm(self) -> None:
        """Until honest requests alone let the memory grow no more."""
        before, end = 0.0, time.monotonic() + _SETTLE_SECONDS
        while (now := memory_mib(self.process.pid)) > 1.005 * before and time.monotonic() < end:
            before = now
            time.sleep(_CALM_SECONDS)

    def _on_a_new_one(self, number: int) -> bool:
        before = self._load.wrong
        self._load.ask(number)
        return self._load.wrong == before

    def _since_last(self) -> tuple[int, list[str], int, float]:
        """Honest requests sent, lost and wrong, and the slowest health, since the last call."""
        self._pipe.send("how slow")
        health, _ = self._pipe.recv()
        with self._honest.lock:
            found = self._honest.sent, self._honest.lost, self._honest.wrong
            self._honest.sent, self._honest.lost, self._honest.wrong = 0, [], 0
        return (*found, health)

    def _left_on_disk(self) -> list[str]:
        """What lies in the server's temporary folder, but for what an honest volume needs now."""
        found = {path.name for path in self._temporary.iterdir()}
        end = time.monotonic() + 20
        while found and time.monotonic() < end:
            time.sleep(0.2)
            found &= {path.name for path in self._temporary.iterdir()}
        return sorted(found)

    def _good_version_takes_over(self) -> None:
        """After all the bad versions a good one is served, within a minute."""
        number = 1 + max(int(path.name) for path in self.target.folder.iterdir())
        aside = self.target.folder / ".new.tmp"
        shutil.copytree(self.target.folder / "1", aside)
        aside.rename(self.target.folder / str(number))
        end = time.monotonic() + 60
        while self._load.versions.get(str(number), 0) == 0:
            if time.monotonic() > end:
                raise SystemExit("a good version after bad ones is not served")
            time.sleep(0.2)


def _attack(name: str, target: Target, seconds: float, pipe: Any) -> None:
    """What a process of an attack does."""
    # On other machines they would take no time of this one's processors.
    os.nice(15)
    pipe.send(ATTACKS[name](target, time.monotonic() + seconds))


def _processes() -> multiprocessing.context.ForkServerContext:
    """Processes that begin with this module imported, and without TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])
    return context


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--only", action="append", choices=[*ATTACKS, TOGETHER],
                        help="one attack; may be repeated")
    parser.add_argument("--clients", type=int, default=8, help="that are honest")
    parser.add_argument("--side", type=int, default=64, help="of their slices, in pixels")
    options = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as folder, \
            Field(options.models, Path(folder), options.clients, options.side) as field_:
        print(HEAD, flush=True)
        for name in options.only or [*ATTACKS, TOGETHER]:
            row = field_.attack(name, options.seconds)
            print(row, flush=True)
            faults += [f"{name}: {fault}" for fault in row.faults(field_.calm)]
    for fault in faults:
        print(fault)
    print("the server held" if not faults else f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
