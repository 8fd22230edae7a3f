"""One connection's conversation, as an afternoon's server has it: a statement for each event, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from uuid import uuid4

import asyncpg

from ..answers import wanted_answer
from ..stalls import StallMeter, wanted_seconds
from .events import Event, Response, conversation_created, item_added, item_done, new_id, session_created, user_item

POOL_CONNECTIONS = 10
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    session_id      uuid        PRIMARY KEY,
    conversation_id uuid        NOT NULL,
    user_id         text        NOT NULL,
    is_active       boolean     NOT NULL DEFAULT true,
    session_start   timestamptz NOT NULL DEFAULT now(),
    session_end     timestamptz,
    CHECK (is_active = (session_end IS NULL))
);
CREATE INDEX IF NOT EXISTS sessions_active ON sessions (session_start) WHERE is_active;
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (user_id, session_start);
CREATE TABLE IF NOT EXISTS messages (
    message_id      uuid        PRIMARY KEY,
    session_id      uuid        NOT NULL REFERENCES sessions,
    conversation_id uuid        NOT NULL,
    item_id         text        NOT NULL,
    position        bigint      NOT NULL,
    role            text        NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
    content         text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS messages_by_position ON messages (conversation_id, position);
"""
BEGIN = "INSERT INTO sessions (session_id, conversation_id, user_id) VALUES ($1, $2, $3)"
APPEND = """
INSERT INTO messages (message_id, session_id, conversation_id, item_id, position, role, content)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
END = "UPDATE sessions SET is_active = false, session_end = now() WHERE session_id = $1"


async def open_pool(database_url: str) -> asyncpg.Pool:
    pool = await asyncpg.create_pool(database_url, min_size=POOL_CONNECTIONS, max_size=POOL_CONNECTIONS)
    await pool.execute(SCHEMA)
    return pool


class Chat:
    """send: writes one event to the client."""

    def __init__(self, pool: asyncpg.Pool, user: str, send: Callable[[Event], Awaitable[None]]) -> None:
        self._pool = pool
        self._user = user
        self._send_event = send
        self._session, self._conversation = uuid4(), uuid4()
        self._conversation_id = f"conv_{self._conversation.hex}"
        self._history: list[tuple[str, str]] = []
        self._newest: str | None = None
        self._prefix, self._sent = new_id("event")[:18], 0

    async def begin(self) -> None:
        await self._pool.execute(BEGIN, self._session, self._conversation, self._user)
        await self._send(session_created(f"sess_{self._session.hex}", self._conversation_id, self._user))
        await self._send(conversation_created(self._conversation_id))

    async def handle(self, event: Event) -> None:
        match event["type"]:
            case "conversation.item.create":
                await self._create(event["item"])
            case "response.create":
                await self._respond()

    async def end(self) -> None:
        await self._pool.execute(END, self._session)

    async def _create(self, given: Event) -> None:
        item, previous = user_item(given["content"][0]["text"]), self._newest
        await self._send(item_added(previous, item))
        await self._store(item["id"], "user", item["content"][0]["text"])
        await self._send(item_done(previous, item))

    async def _respond(self) -> None:
        response = Response(self._conversation_id, self._newest)
        for event in response.begin():
            await self._send(event)
        said = ""
        async for piece in reply(self._history):
            said += piece
            await self._send(response.delta(piece))
        *before, done, last = response.end(said)
        for event in before:
            await self._send(event)
        await self._store(response.item_id, "assistant", said)
        await self._send(done)
        await self._send(last)

    async def _store(self, item_id: str, role: str, text: str) -> None:
        position = len(self._history)
        await self._pool.execute(APPEND, uuid4(), self._session, self._conversation, item_id, position, role, text)
        self._history.append((role, text))
        self._newest = item_id

    async def _send(self, event: Event) -> None:
        self._sent += 1
        event["event_id"] = f"{self._prefix}_{self._sent}"
        await self._send_event(event)


async def reply(history: list[tuple[str, str]]) -> AsyncGenerator[str, None]:
    """The same agent as the one that lastcall is measured with."""
    said = history[-1][1] if history else ""
    if seconds := wanted_seconds(said):
        yield await _longest_stall(seconds)
        return
    answer = wanted_answer(said)
    for piece in answer.pieces():
        await asyncio.sleep(answer.pause_ms / 1000)
        yield piece


async def _longest_stall(seconds: float) -> str:
    loop = asyncio.get_running_loop()
    meter = StallMeter(loop.time())
    while not meter.over(seconds):
        await asyncio.sleep(meter.due - loop.time())
        meter.woke(loop.time())
    return str(meter)
