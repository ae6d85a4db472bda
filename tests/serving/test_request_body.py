"""Bodies on their way: slow ones, and more than there is room for."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.requests import Request

from pixelnet_tf.serving import request_body
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.request_body import Intake

MIB = 1 << 20


def request_of(*blocks, headers=()) -> Request:
    """A request whose body comes as listed: bytes, seconds to wait, or an event to wait for."""
    coming = list(blocks)

    async def receive():
        while coming and not isinstance(coming[0], bytes):
            step = coming.pop(0)
            await (asyncio.sleep(step) if isinstance(step, (int, float)) else step.wait())
        block = coming.pop(0)
        return {"type": "http.request", "body": block, "more_body": bool(coming)}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": list(headers)},
                   receive)


def refused(status, body):
    async def scenario():
        with pytest.raises(ApiError) as caught:
            await body()
        assert caught.value.status == status
        return caught.value

    return asyncio.run(scenario())


def test_a_whole_body():
    body = asyncio.run(Intake(1, 9, 9).read_body(request_of(b"ab", 0.01, b"cd", b"")))
    assert body == b"abcd"


def test_a_body_may_be_silent_and_slow_for_so_long(monkeypatch):
    error = refused(408, lambda: Intake(1, 9, 0.1).read_body(request_of(b"a", 5, b"b")))
    assert error.headers == {"Connection": "close"}
    assert "1 bytes" in error.message
    # Never silent, yet behind the least pace.
    drip = [0.03, b"a"] * 100
    refused(408, lambda: Intake(1, 9, 0.1).read_body(request_of(*drip)))
    # In pace, yet longer than any request may take.
    refused(408, lambda: Intake(1, 0.2, 9).read_body(request_of(*[0.03, b"a" * 4096] * 100)))
    monkeypatch.setattr(request_body, "LEAST_BYTES_PER_SECOND", 20)
    assert asyncio.run(Intake(1, 9, 0.2).read_body(request_of(*drip[:40]))) == b"a" * 20


def test_too_long_a_body():
    refused(413, lambda: Intake(1, 9, 9).read_body(request_of(b"a" * MIB, b"a", 5, b"a")))
    announced = request_of(5, b"a", headers=[(b"content-length", b"%d" % (MIB + 1))])
    refused(413, lambda: Intake(1, 9, 9).read_body(announced))


def test_the_slowest_body_makes_room_for_the_others():
    """Bodies that hold next to nothing are let be, however slow they are."""
    async def scenario():
        intake, door = Intake(1, 60, 60), asyncio.Event()
        nearly = b"a" * (MIB - 1)
        small = asyncio.create_task(intake.read_body(request_of(door, b"a")))
        await asyncio.sleep(0)
        stalled = [asyncio.create_task(intake.read_body(request_of(0.1 * n, nearly, door, b"a")))
                   for n in range(4)]
        await asyncio.sleep(0.45)
        quick = [asyncio.create_task(intake.read_body(request_of(nearly, 0.2, b"a")))
                 for _ in range(3)]
        assert [len(await body) for body in quick] == [MIB] * 3
        door.set()
        found = await asyncio.gather(small, *stalled, return_exceptions=True)
        assert found[0] == b"a"
        assert [getattr(body, "status", None) for body in found[1:]] == [503] * 3 + [None]
        assert found[1].headers["Retry-After"] == "1"
        assert not intake._coming

    asyncio.run(scenario())


def test_other_cancellations_stay_what_they_are():
    async def scenario():
        task = asyncio.create_task(Intake(1, 9, 9).read_body(request_of(5, b"a")))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_full_disk_is_said_without_a_path(monkeypatch):
    async def fail(*arguments, **options):
        raise OSError(28, "No space left on device", "/tmp/secret")

    monkeypatch.setattr(Request, "form", fail)
    request = request_of(b"a", headers=[(b"content-type", b"multipart/form-data; boundary=b")])

    async def read():
        async with Intake(1, 9, 9).read_files(request):
            pass

    error = refused(507, read)
    assert "No space left on device" in error.message
    assert "secret" not in error.message
