"""So many at once, so many waiting, the rest is sent away."""

import asyncio
import threading

import pytest

from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import Gate


def test_places_and_workers():
    async def scenario():
        gate, door, peak, running = Gate(2, 1, "test"), threading.Event(), [], []

        def work(number):
            running.append(number)
            peak.append(len(running))
            door.wait(10)
            running.remove(number)
            return number

        async def request(number):
            with gate:
                return await gate.run(work, number)

        gate.check()

        three = [asyncio.create_task(request(n)) for n in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError, match="3 requests are running or waiting") as caught:
            await request(3)
        assert caught.value.status == 503
        with pytest.raises(ApiError, match="3 requests are running or waiting"):
            gate.check()
        assert caught.value.headers == {"Retry-After": "1"}
        door.set()
        assert await asyncio.gather(*three) == [0, 1, 2]
        assert max(peak) == 2
        assert await request(4) == 4  # A place is free again.
        gate.close()

    asyncio.run(scenario())


def test_cancelled_work_that_waits_never_begins():
    async def scenario():
        gate, door, done = Gate(1, 5, "test"), threading.Event(), []
        first = asyncio.create_task(gate.run(door.wait, 10))
        await asyncio.sleep(0.05)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.run(done.append, 1), 0.05)
        door.set()
        await first
        await gate.run(done.append, 2)
        gate.close()
        assert done == [2]

    asyncio.run(scenario())
