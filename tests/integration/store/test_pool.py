"""The connections of `PostgresStore`: one for a question, all of them, and warm, for a server."""

from __future__ import annotations

from functools import partial

import asyncpg
import pytest
import trio
import trio.testing
from lastcall.store.errors import StoreError
from lastcall.store.postgres import CONNECTIONS, PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.connections import CONNECTIONS_FOR_WRITES

from tests.support.waiting import eventually

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'commit_batch[(][$]1'"

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
BUSY_SECONDS = 30.0


def connections(store: PostgresStore) -> int:
    return store._connections.count


async def test_a_store_that_was_asked_one_question_has_one_connection(postgres_store: PostgresStore) -> None:
    await postgres_store.keys_exist()
    assert connections(postgres_store) == 1


async def test_warming_up_prepares_all_connections_and_stores_nothing(
    postgres_store: PostgresStore,
) -> None:
    await postgres_store.warm_up()
    assert connections(postgres_store) == CONNECTIONS
    [row] = await postgres_store.select(PREPARED)
    assert row["count"] == 1
    [row] = await postgres_store.select("SELECT count(*) FROM conversation_sessions")
    assert row["count"] == 0


async def test_calls_that_are_cancelled_leave_their_connections_to_others(postgres_store: PostgresStore) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS - 1):
            nursery.start_soon(partial(postgres_store.select, f"SELECT pg_sleep({BUSY_SECONDS})", urgent=True))
        await eventually(lambda: busy(postgres_store), lambda count: count == CONNECTIONS - 1)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        for _ in range(2 * CONNECTIONS):
            nursery.start_soon(postgres_store.keys_exist)
    assert connections(postgres_store) <= CONNECTIONS


async def test_a_connection_that_was_cut_while_idle_is_not_lent(postgres_store: PostgresStore) -> None:
    [idle] = await postgres_store.select("SELECT pg_backend_pid() AS pid")
    person = await bounded_call(postgres_store._loop, CALL_SECONDS, asyncpg.connect, postgres_store._url)
    try:
        await bounded_call(
            postgres_store._loop, CALL_SECONDS, person.fetch, "SELECT pg_terminate_backend($1, 5000)", idle["pid"]
        )
    finally:
        person.terminate()
    await trio.testing.wait_all_tasks_blocked(0.05)
    await postgres_store.keys_exist()


async def test_a_connection_that_failed_is_lent_again_in_good_order(postgres_store: PostgresStore) -> None:
    """The pool ends the transaction that was left open."""
    lend = postgres_store._connections.one

    async def leave_open() -> None:
        async with lend() as connection:
            await connection.execute("BEGIN")
            raise ZeroDivisionError

    async def is_open() -> bool:
        async with lend() as connection:
            return bool(connection.is_in_transaction())

    with pytest.raises(StoreError):
        await bounded_call(postgres_store._loop, CALL_SECONDS, leave_open)
    assert not await bounded_call(postgres_store._loop, CALL_SECONDS, is_open)


async def test_readers_leave_connections_for_writes(postgres_store: PostgresStore) -> None:
    readers = CONNECTIONS - CONNECTIONS_FOR_WRITES
    async with trio.open_nursery() as nursery:
        for _ in range(2 * CONNECTIONS):
            nursery.start_soon(postgres_store.select, f"SELECT pg_sleep({BUSY_SECONDS})")
        await eventually(lambda: busy(postgres_store), lambda count: count == readers)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await busy(postgres_store) == readers
        nursery.cancel_scope.cancel()


async def busy(store: PostgresStore) -> int:
    [row] = await store.select(BUSY, urgent=True)
    return int(row["count"])
