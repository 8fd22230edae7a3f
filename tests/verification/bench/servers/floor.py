"""The floor: the same frames, but constant, without JSON and database. `python -m ….servers.floor PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import cache

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from ..answers import Answer, wanted_answer
from .events import Event, Response, conversation_created, item_added, item_done, new_id, session_created, user_item


def frames(*events: Event) -> list[str]:
    return [json.dumps({**event, "event_id": f"{new_id('event')[:18]}_1"}) for event in events]


ITEM = user_item(Answer(20).question)
CONVERSATION = new_id("conv")
GREETING = frames(session_created(new_id("sess"), CONVERSATION, "check"), conversation_created(CONVERSATION))
CREATED = frames(item_added(None, ITEM), item_done(None, ITEM))


@cache
def answered(answer: Answer) -> tuple[list[str], list[str], list[str]]:
    """The frames before the deltas, the deltas, and the frames after them."""
    response = Response(CONVERSATION, ITEM["id"])
    pieces = answer.pieces()
    return (
        frames(*response.begin()),
        frames(*map(response.delta, pieces)),
        frames(*response.end("".join(pieces))),
    )


async def realtime(websocket: ServerConnection) -> None:
    answer = Answer(1)
    for frame in GREETING:
        await websocket.send(frame)
    async for message in websocket:
        assert isinstance(message, str)
        if "response.create" not in message:
            answer = wanted_answer(message)
            for frame in CREATED:
                await websocket.send(frame)
            continue
        before, deltas, after = answered(answer)
        for frame in before:
            await websocket.send(frame)
        for frame in deltas:
            await asyncio.sleep(answer.pause_ms / 1000)
            await websocket.send(frame)
        for frame in after:
            await websocket.send(frame)


async def main(port: int) -> None:
    async with serve(realtime, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
