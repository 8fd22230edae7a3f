"""The server that users of `websockets` would write: `python -m ….servers.with_websockets PORT DATABASE`."""

from __future__ import annotations

import json
import sys
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from .chat import Chat, open_pool
from .events import Event


async def main(port: int, database_url: str) -> None:
    pool = await open_pool(database_url)

    async def realtime(websocket: ServerConnection) -> None:
        async def send(event: Event) -> None:
            await websocket.send(json.dumps(event))

        assert websocket.request is not None
        query = parse_qs(urlsplit(websocket.request.path).query)
        chat = Chat(pool, query.get("user", ["anonymous"])[0], send)
        await chat.begin()
        try:
            async for message in websocket:
                await chat.handle(json.loads(message))
        finally:
            await chat.end()

    async with serve(realtime, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
