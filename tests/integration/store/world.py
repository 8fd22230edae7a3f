"""A store with one registered instance, and the rows that tests put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec
import trio
from lastcall.agents.agent import Memory
from lastcall.auth.identity import Scope
from lastcall.memory.reading import read_transcript
from lastcall.store.credentials import ClientSecret, Credential
from lastcall.store.errors import StoreError
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.records import (
    EndReason,
    FinishedMemory,
    ItemDeletion,
    SessionEnd,
    SessionStart,
    StoredItem,
    StoredResponse,
    StoredRow,
)
from lastcall.store.store import Store

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore
from tests.support.instances import instance
from tests.support.operators import OPERATOR
from tests.support.servers import empty

WITHIN = 10.0
HISTORY_BYTES = 1 << 30
CLOSE_TO = 0.1  # seconds
WAIT_SECONDS = 10.0
LEASE_SECONDS = 0.2
HASH, OTHER_HASH = b"h" * 32, b"o" * 32
UNSTORABLE = ["nul \0", "lone surrogate \ud800"]

Ask = Callable[..., Awaitable[list[Any]]]


class World:
    """A store with one registered instance, and a way to look at what it holds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.instance_id = uuid4()

    async def session(self, session_id: UUID) -> SessionRecord:
        raise NotImplementedError

    async def session_count(self) -> int:
        raise NotImplementedError

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        raise NotImplementedError

    async def responses(self, session_id: UUID) -> Sequence[StoredResponse]:
        """The figures of a session's responses, by their ends; times on Trio's clock."""
        raise NotImplementedError

    async def close_by_hand(self, session_id: UUID) -> None:
        raise NotImplementedError

    async def erase(self, user_id: str) -> None:
        raise NotImplementedError

    async def declare_dead(self, instance_id: UUID) -> None:
        raise NotImplementedError

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        raise NotImplementedError

    async def revoke(self, credential_id: UUID) -> None:
        raise NotImplementedError

    async def silence(self, seconds: float) -> float:
        """Moves the instance's last heartbeat back; when it now was, on the store's clock."""
        raise NotImplementedError

    async def begin(self, user_id: str = "ada", *, age: float = 0.0, **changes: Any) -> SessionStart:
        """Begins a session that started `age` seconds ago."""
        values: dict[str, Any] = {
            "session_id": uuid4(),
            "conversation_id": uuid4(),
            "user_id": user_id,
            "instance_id": self.instance_id,
            "started": trio.current_time() - age,
        }
        start = SessionStart(**(values | changes))
        await self.store.begin_session(start, within=WITHIN)
        return start

    async def spoken(self, user_id: str = "ada", *texts: str) -> SessionStart:
        """A closed session in which the user spoke, so that its memory is pending."""
        start = await self.begin(user_id)
        for position, text in enumerate(texts or ("hello",)):
            await self.append(item(start, text, position=position))
        await self.store.end_session(end(start))
        return start

    async def finalize(self, session_id: UUID) -> None:
        """Has the rules read a closed session, and stores what they remember and what is indexed."""
        (claim,) = await self.store.claim_memory(1, 60.0, session_ids=[session_id])
        reading = read_transcript(claim.transcript)
        await self.store.finish_memory([FinishedMemory(session_id, reading.memories, reading.passages)])

    async def append(self, *items: StoredRow) -> None:
        await self.store.append_items(items, within=WITHIN)

    async def history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        """The items of a history, however long they are; None: the user has no such conversation."""
        found = await self.store.load_history(conversation_id, user_id, limit, bytes_max=HISTORY_BYTES)
        return found.items if found is not None else None

    async def contents(self, conversation_id: UUID) -> list[str]:
        return [stored.content for stored in await self.items(conversation_id)]


class MemoryWorld(World):
    store: FakeStore

    async def close_by_hand(self, session_id: UUID) -> None:
        self.store.close_by_hand(session_id)

    async def session(self, session_id: UUID) -> SessionRecord:
        return self.store.sessions[session_id]

    async def session_count(self) -> int:
        return len(self.store.sessions)

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        return self.store.items(conversation_id)

    async def responses(self, session_id: UUID) -> Sequence[StoredResponse]:
        theirs = [each for each in self.store.responses.values() if each.session_id == session_id]
        return sorted(theirs, key=lambda each: each.ended)

    async def erase(self, user_id: str) -> None:
        self.store.erase(user_id)

    async def declare_dead(self, instance_id: UUID) -> None:
        self.store.declare_dead(instance_id)

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        self.store.create_key(credential, secret_hash)

    async def revoke(self, credential_id: UUID) -> None:
        self.store.revoke(credential_id)

    async def silence(self, seconds: float) -> float:
        self.store.instances[self.instance_id].heartbeat_at = trio.current_time() - seconds
        return self.store.instances[self.instance_id].heartbeat_at


class PostgresWorld(World):
    store: PostgresStore

    async def sql(self, text: str, *args: object) -> list[Any]:
        return await self.store.select(text, *args)

    async def close_by_hand(self, session_id: UUID) -> None:
        await self.sql("UPDATE conversation_sessions SET is_active = false WHERE session_id = $1", session_id)

    async def session(self, session_id: UUID) -> SessionRecord:
        rows = await self.sql(
            "SELECT session_id, conversation_id, user_id, instance_id, is_active, duration_seconds, end_reason,"
            " close_code, closed_by, memory_status, memory_attempts, memory_error,"
            " extract(epoch FROM session_start)::float8 AS session_start,"
            " extract(epoch FROM session_end)::float8 AS session_end,"
            " extract(epoch FROM ended_at)::float8 AS ended_at,"
            " extract(epoch FROM memory_due_at)::float8 AS memory_due_at,"
            " extract(epoch FROM memory_finalized_at)::float8 AS memory_finalized_at"
            " FROM conversation_sessions WHERE session_id = $1",
            session_id,
        )
        return SessionRecord(**dict(rows[0]))

    async def session_count(self) -> int:
        return int((await self.sql("SELECT count(*) FROM conversation_sessions"))[0][0])

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        columns = (
            "message_id, session_id, conversation_id, item_id, position, role, content, status, kind, call_id, name,"
            " deleted_at IS NOT NULL AS deleted"
        )
        text = f"SELECT {columns} FROM messages WHERE conversation_id = $1 ORDER BY position, message_id"
        return [StoredItem(**dict(row)) for row in await self.sql(text, conversation_id)]

    async def responses(self, session_id: UUID) -> Sequence[StoredResponse]:
        ages = ", ".join(
            f"extract(epoch FROM clock_timestamp() - {column})::float8 AS {name}"
            for name, column in (("created", "started_at"), ("first", "first_at"), ("ended", "ended_at"))
        )
        left_out = ("response_id", "created", "first", "ended")
        names = [name for name in StoredResponse.__struct_fields__ if name not in left_out]
        asked = f"{', '.join(names)}, response_id, {ages}"
        text = f"SELECT {asked} FROM agent_responses WHERE session_id = $1 ORDER BY ended_at"
        rows, now = await self.sql(text, session_id), trio.current_time()
        times = [{name: row[name] and now - row[name] for name in ("created", "first", "ended")} for row in rows]
        return [
            StoredResponse(**(dict(row) | each | {"response_id": row["response_id"].hex}))
            for row, each in zip(rows, times, strict=True)
        ]

    async def erase(self, user_id: str) -> None:
        await self.store.fetch("erase_user", *OPERATOR.columns, user_id)

    async def declare_dead(self, instance_id: UUID) -> None:
        await self.sql("UPDATE server_instances SET reaped_at = now() WHERE instance_id = $1", instance_id)

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        await self.store.fetch(
            "create_key", *OPERATOR.columns, credential.key_id, credential.user_id, credential.scope, "sk-", secret_hash
        )

    async def revoke(self, credential_id: UUID) -> None:
        await self.store.fetch("revoke_credential", *OPERATOR.columns, credential_id)

    async def silence(self, seconds: float) -> float:
        rows = await self.sql(
            "UPDATE server_instances SET heartbeat_at = now() - make_interval(secs => $2) WHERE instance_id = $1"
            " RETURNING extract(epoch FROM heartbeat_at)::float8",
            self.instance_id,
            seconds,
        )
        return float(rows[0][0])


def item(start: SessionStart, content: str = "hello", **changes: Any) -> StoredItem:
    values: dict[str, Any] = {
        "session_id": start.session_id,
        "conversation_id": start.conversation_id,
        "item_id": f"item_{uuid4().hex}",
        "position": 0,
        "role": "user",
        "content": content,
        "status": "completed",
    }
    return StoredItem(**(values | changes))


def response(start: SessionStart, *, age: float = 0.0, **changes: Any) -> StoredResponse:
    """Figures of an answer that took two seconds, and ended `age` seconds ago."""
    now = trio.current_time() - age
    values: dict[str, Any] = {
        "response_id": uuid4().hex,
        "session_id": start.session_id,
        "user_id": start.user_id,
        "key_id": None,
        "agent": "parrot",
        "model": "gray",
        "outcome": "completed",
        "reason": None,
        "created": now - 2.0,
        "first": now - 1.5,
        "ended": now,
        "input_tokens": 30,
        "output_tokens": 4,
        "cached_tokens": 16,
    }
    return StoredResponse(**(values | changes))


def deletion(start: SessionStart, item_id: str, message_id: UUID | None = None) -> ItemDeletion:
    return ItemDeletion(start.session_id, item_id, message_id)


def end(start: SessionStart, *, age: float = 0.0, **changes: Any) -> SessionEnd:
    """The end of a session, `age` seconds ago."""
    values: dict[str, Any] = {
        "session_id": start.session_id,
        "instance_id": start.instance_id,
        "ended": trio.current_time() - age,
        "reason": EndReason.CLIENT_CLOSED,
        "close_code": 1000,
    }
    return SessionEnd(**(values | changes))


def memory(content: str, kind: str = "note", **changes: Any) -> Memory:
    return Memory(**({"kind": kind, "content": content, "item_id": "item_1", "quote": content} | changes))


async def key_of(world: World, user_id: str = "ada") -> Credential:
    key_id = uuid4()
    key = Credential(credential_id=key_id, key_id=key_id, user_id=user_id, scope=Scope.SERVICE)
    await world.create_key(key, HASH)
    return key


def secret_of(key: Credential | None, **changes: Any) -> ClientSecret:
    values: dict[str, Any] = {
        "key_id": key.key_id if key else None,
        "user_id": "ada",
        "conversation_id": None,
        "session": "{}",
        "secret_hash": OTHER_HASH,
        "seconds": 600,
    }
    return ClientSecret(**(values | changes))


def batch(**writes: list[Any]) -> str:
    return msgspec.json.encode(writes).decode()


def start_row(world: PostgresWorld, credential_id: UUID | None = None) -> dict[str, Any]:
    ids = {name: uuid4() for name in ("session_id", "conversation_id")}
    credential = {"instance_id": world.instance_id, "credential_id": credential_id}
    return {**ids, **credential, "user_id": "ada", "age_seconds": 0.0}


async def registered(store: PostgresStore) -> PostgresWorld:
    """A world whose instance is registered."""
    world = PostgresWorld(store)
    await store.register_instance(instance(world.instance_id))
    return world


@asynccontextmanager
async def open_world(url: str | None) -> AsyncIterator[World]:
    if url is None:
        yield MemoryWorld(FakeStore())
        return
    async with open_store(url) as store:
        await empty(store)
        yield PostgresWorld(store)


@asynccontextmanager
async def transaction(world: PostgresWorld) -> AsyncIterator[Ask]:
    """A transaction on a connection of its own, which is rolled back unless the block commits it."""

    async def run(operation: Callable[..., Any], *args: object) -> Any:
        return await bounded_call(world.store._loop, CALL_SECONDS, operation, *args)

    connect = partial(world.store._connector.open, command_seconds=CALL_SECONDS, purpose="person")
    connection = await run(connect)
    try:
        await run(connection.execute, "BEGIN")
        yield lambda sql, *args: run(connection.fetch, sql, *args)
    finally:
        with trio.CancelScope(shield=True):
            await run(connection.close)


async def gather(*calls: Callable[[], Awaitable[Any]], in_order: bool = False) -> list[Any]:
    """The results of concurrent calls, a `StoreError` standing for its call's result.

    in_order: each call has begun before the next one does.
    """
    results: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[index] = await call()
        except StoreError as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
            if in_order:
                await trio.lowlevel.checkpoint()
    return results


async def soon(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Waits, within a bound, until the condition holds, and returns what it returned."""
    with trio.fail_after(WAIT_SECONDS):
        while not (result := await condition()):  # noqa: ASYNC110 - a database has no event to wait for
            await trio.sleep(0.02)
    return result
