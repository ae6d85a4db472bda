"""What every request passes first."""

import asyncio
import time

from pixelnet_tf.serving.guard import Guard
from pixelnet_tf.serving.limits import ServerLimits


def test_a_flood_of_pages_holds_up_no_health_answer():
    """Each page takes some of a round of the event loop; whoever asks for health waits for one."""
    answered = []

    async def app(scope, receive, send):
        time.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answered.append(scope["path"])

    async def send(message):
        pass

    async def scenario():
        guard = Guard(app, lambda event, **fields: None, None, ServerLimits().url_characters)

        def ask(path):
            return asyncio.create_task(guard(
                {"type": "http", "method": "GET", "path": path, "query_string": b"",
                 "headers": [(b"host", b"localhost")]}, None, send))

        pages = [ask("/openapi.json") for _ in range(200)]
        await asyncio.sleep(0)
        await ask("/healthz")
        await asyncio.gather(*pages)

    asyncio.run(scenario())
    assert len(answered) == 201
    assert answered.index("/healthz") < 5
