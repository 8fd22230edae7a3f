"""The server that users of FastAPI would write: `python -m ….servers.with_fastapi PORT DATABASE`."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from .chat import Chat, open_pool
from .events import Event


def make_app(database_url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pool = await open_pool(database_url)
        yield
        await app.state.pool.close()

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket, user: str = "anonymous") -> None:
        async def send(event: Event) -> None:
            await websocket.send_text(json.dumps(event))

        await websocket.accept()
        chat = Chat(app.state.pool, user, send)
        await chat.begin()
        try:
            while True:
                await chat.handle(await websocket.receive_json())
        except WebSocketDisconnect:
            pass
        finally:
            await chat.end()

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")
