"""Databases with the real schema and a clock that stands still until it is set: `now()` is a function of our own.

So every order of statements has exact times, and goes the same way whenever it is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from lastcall.store.queries import QUERIES, SCHEMA

from .state import NO_MEMORY, End, Item, Memory, Snapshot
from .statements import SESSION, USER, A, Sql, micros

T = TypeVar("T")

COMMAND_SECONDS = 5.0  # a statement that takes longer counts as stuck; deadlocks are reported after one second
# In front of pg_catalog on the search path, these are what `now()` means in every statement, default and trigger: also
# within the schema's functions, whose own path has pg_catalog in front.
CLOCK = """
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT timestamptz '2001-01-01 00:00:00+00' + current_setting('interleavings.now')::interval $$;
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT now() $$;
"""
PATH, PATH_WITH_CLOCK = "|| ', pg_temp'", "|| ', pg_catalog, pg_temp'"
TABLES = "user_memories, messages, conversation_sessions, conversations, server_instances"
OTHERS = f"""
concat((SELECT string_agg(o::text, ' ' ORDER BY session_id) FROM conversation_sessions o
         WHERE session_id <> '{SESSION}'),
       (SELECT string_agg(m::text, ' ' ORDER BY message_id) FROM messages m WHERE session_id <> '{SESSION}'),
       (SELECT string_agg((instance_id, stopped_at, reaped_at)::text, ' ' ORDER BY instance_id) FROM server_instances
         WHERE instance_id <> '{A}'),
       (SELECT string_agg(u::text, ' ' ORDER BY memory_id) FROM user_memories u WHERE user_id <> '{USER}'))
"""
LOOK = f"""
SELECT a.heartbeat_at, a.stopped_at, a.reaped_at, s.*, {OTHERS} AS others,
       (SELECT array_agg(item_id ORDER BY position, item_id) FROM messages WHERE session_id = '{SESSION}') AS item_ids,
       (SELECT array_agg(role ORDER BY position, item_id) FROM messages WHERE session_id = '{SESSION}') AS roles,
       (SELECT array_agg(created_at ORDER BY position, item_id) FROM messages WHERE session_id = '{SESSION}') AS stored,
       (SELECT array_agg(content ORDER BY memory_id) FROM user_memories WHERE user_id = '{USER}') AS effects
  FROM server_instances a LEFT JOIN conversation_sessions s ON s.session_id = '{SESSION}'
 WHERE a.instance_id = '{A}'
"""


@dataclass(frozen=True)
class Source:
    """The code under test: the schema, and the statements by name; the project's own unless changed."""

    schema: str = SCHEMA
    queries: Mapping[str, str] = field(default_factory=lambda: QUERIES)

    @property
    def texts(self) -> dict[str, str]:
        """Texts to send instead, by the project's own text."""
        return {QUERIES[name]: text for name, text in self.queries.items() if text != QUERIES[name]}


class Database:
    """One database and its connections."""

    def __init__(self, url: str, name: str, source: Source) -> None:
        self._url = url
        self._name = name
        self._source = source
        self._open: list[asyncpg.Connection[Any]] = []

    async def connect(self) -> Sql:
        connection = await asyncpg.connect(self._url, database=self._name, command_timeout=COMMAND_SECONDS)
        self._open.append(connection)
        return Sql(connection, self._source.texts)

    async def close(self) -> None:
        for connection in self._open:
            connection.terminate()


@asynccontextmanager
async def database(url: str, source: Source) -> AsyncIterator[Database]:
    """Creates a database in the cluster of `url`, and drops it at the end of the block."""
    name = f"interleavings_{uuid4().hex}"
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        for setting in (
            "search_path = public, pg_catalog",
            "interleavings.now = '0'",
            "jit = off",
            "plan_cache_mode = force_generic_plan",
        ):
            await admin.execute(f"ALTER DATABASE {name} SET {setting}")
        await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # no crash is tested here
        made = Database(url, name, source)
        try:
            sql = await made.connect()
            await sql.raw.execute(CLOCK)
            assert PATH in source.schema, "the schema sets another search path: the clock would not stand still"
            await sql.raw.execute(source.schema.replace(PATH, PATH_WITH_CLOCK))
            yield made
        finally:
            await made.close()
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        admin.terminate()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it on asyncio's own loop: Trio is not needed here, and trio-asyncio's loop would take twice the time."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def clock(now: int) -> str:
    """The SQL that sets a connection's clock for its next statements."""
    return f"SET interleavings.now = '{now} microseconds'"


async def observe(sql: Sql, others: str | None) -> tuple[Snapshot, str]:
    """Returns the snapshot, and a text of all other rows, which was `others` before."""
    (row,) = await sql.raw.fetch(LOOK)
    return _world(row, others), row["others"]


def _world(row: Any, others: str | None) -> Snapshot:
    duration = row["duration_seconds"]
    end = End(
        _micros(row["session_end"]),
        _micros(row["ended_at"]),
        None if duration is None else round(duration * 1e6),
        row["end_reason"],
        row["close_code"],
        None if row["closed_by"] is None else "-ABC"[row["closed_by"].int],
    )
    memory = Memory(
        row["memory_status"],
        row["memory_attempts"],
        _micros(row["memory_due_at"]),
        row["memory_error"],
        _micros(row["memory_finalized_at"]),
    )
    there = row["session_id"] is not None
    items = _items(row["item_ids"] or (), row["roles"] or (), row["stored"] or ())
    return Snapshot(
        micros(row["heartbeat_at"]),
        _micros(row["stopped_at"]),
        _micros(row["reaped_at"]),
        _micros(row["session_start"]),
        active=bool(row["is_active"]),
        end=end,
        memory=memory if there else NO_MEMORY,
        items=items,
        effects=tuple(row["effects"] or ()),
        others=others in (None, row["others"]),
    )


def _items(ids: Sequence[str], roles: Sequence[str], stored: Sequence[Any]) -> tuple[Item, ...]:
    return tuple(Item(item_id, role, micros(at)) for item_id, role, at in zip(ids, roles, stored, strict=True))


def _micros(at: Any) -> int | None:
    return None if at is None else micros(at)
