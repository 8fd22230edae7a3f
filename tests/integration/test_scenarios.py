"""The seven scenarios that lastcall exists for, on a real server, a real socket and a real PostgreSQL."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from lastcall.agents.echo import EchoAgent
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.scripted_agents import HangingMemory, RaisingMemory
from ..support.servers import TestServer, open_server
from ..support.waiting import eventually


async def session(store: PostgresStore, session_id: str) -> Any:
    return (await store.select("SELECT * FROM conversation_sessions WHERE session_id = $1", UUID(session_id)))[0]


async def ended(store: PostgresStore, session_id: str) -> Any:
    """The session's row once it is closed."""
    return await eventually(partial(session, store, session_id), lambda row: not row["is_active"])


async def remembered(store: PostgresStore, session_id: str) -> Any:
    return await eventually(partial(session, store, session_id), lambda row: row["memory_status"] == "done")


async def active(store: PostgresStore) -> int:
    return int((await store.select("SELECT count(*) FROM conversation_sessions WHERE is_active"))[0][0])


async def test_1_a_session_starts_active(server: TestServer, postgres_store: PostgresStore) -> None:
    async with connect(server.url, user="ada") as client:
        row = await session(postgres_store, client.session_id)
        assert row["is_active"]
        assert row["user_id"] == "ada"
        assert f"conv_{row['conversation_id'].hex}" == client.conversation_id
        assert row["session_end"] is row["ended_at"] is row["duration_seconds"] is None


async def test_2_a_session_ends_inactive_on_disconnect(server: TestServer, postgres_store: PostgresStore) -> None:
    async with connect(server.url) as client:
        pass
    assert (await ended(postgres_store, client.session_id))["end_reason"] == "client_closed"


async def test_3_session_end_is_when_the_client_left(server: TestServer, postgres_store: PostgresStore) -> None:
    async with connect(server.url) as client:
        left = time.time()
    row = await ended(postgres_store, client.session_id)
    assert row["session_end"].timestamp() == pytest.approx(left, abs=0.1)
    assert row["ended_at"] >= row["session_end"]


async def test_4_duration_seconds_is_how_long_the_client_was_there(
    server: TestServer, postgres_store: PostgresStore
) -> None:
    began = time.time()
    async with connect(server.url) as client:
        await client.ask("Hello")
        left = time.time()
    row = await ended(postgres_store, client.session_id)
    assert row["duration_seconds"] == pytest.approx(left - began, abs=0.1)
    assert row["duration_seconds"] == pytest.approx((row["session_end"] - row["session_start"]).total_seconds())


async def test_5_a_shutdown_closes_all_sessions_in_bulk(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store) as server:
        async with connect(server.url) as one, connect(server.url) as two:
            server.signals.begin()
            assert [await one.closed(), await two.closed()] == [1012, 1012]
        rows = [await ended(postgres_store, client.session_id) for client in (one, two)]
    assert {row["end_reason"] for row in rows} == {"shutdown"}
    assert len({row["ended_at"] for row in rows}) == 1, "one statement has one now()"


async def test_6_no_orphan_is_left_after_a_shutdown(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store) as server:
        async with connect(server.url), connect(server.url):
            assert await active(postgres_store) == 2
            await server.stop()
        assert await active(postgres_store) == 0
        assert not await postgres_store.fetch("list_orphans", 10)


@pytest.mark.parametrize("agent", [HangingMemory(), RaisingMemory()])
async def test_7_an_error_or_hang_in_the_memory_step_affects_nothing_else(
    agent: HangingMemory | RaisingMemory, postgres_store: PostgresStore
) -> None:
    async with open_server(postgres_store, agent, memory_seconds=60.0) as server:
        async with connect(server.url) as client:
            await client.say("My name is Ada.")
            left = time.time()
        row = await ended(postgres_store, client.session_id)
        assert row["session_end"].timestamp() == pytest.approx(left, abs=0.1)
        assert row["memory_status"] == "pending"
        async with connect(server.url) as another:
            assert (await another.ask("Are you there?"))["response"]["status"] == "completed"
        await server.stop()
    assert await active(postgres_store) == 0


async def test_memory_left_pending_is_finalized_by_the_next_server(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, HangingMemory()) as server:
        async with connect(server.url, user="ada") as client:
            await client.say("My name is Ada.")
        await ended(postgres_store, client.session_id)
        await server.stop()
    async with open_server(postgres_store, EchoAgent()) as server:
        await remembered(postgres_store, client.session_id)
        async with connect(server.url, user="ada") as again:
            assert "My name is Ada." in again.created["session"]["instructions"]
        async with connect(server.url, user="bob") as stranger:
            assert "Ada" not in stranger.created["session"]["instructions"]
