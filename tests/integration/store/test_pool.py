"""The connections of `PostgresStore`: one for a question, all of them, and warm, for a server."""

from __future__ import annotations

from functools import partial

import trio
from lastcall.store.postgres import CONNECTIONS, PostgresStore

from tests.support.waiting import eventually

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'commit_batch[(][$]1'"

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
BUSY_SECONDS = 30.0


def connections(store: PostgresStore) -> int:
    return store._connections.count


async def test_a_store_that_was_asked_one_question_has_one_connection(postgres_store: PostgresStore) -> None:
    await postgres_store.ping()
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
            nursery.start_soon(postgres_store.ping)
    assert connections(postgres_store) <= CONNECTIONS


async def busy(store: PostgresStore) -> int:
    [row] = await store.select(BUSY, urgent=True)
    return int(row["count"])
