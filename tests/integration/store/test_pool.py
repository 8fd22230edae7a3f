"""The connections of `PostgresStore`: one for a question, all of them, and warm, for a server."""

from __future__ import annotations

from functools import partial
from typing import Any

import asyncpg
import pytest
import trio
import trio.testing
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.postgres import CONNECTIONS, PostgresStore, connections
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.connections import CONNECTIONS_FOR_WRITES

from tests.support.waiting import eventually

OWN_PID = "SELECT pg_backend_pid() AS pid"
END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastcall'"
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'commit_batch[(][$]1'"

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
BUSY_SECONDS = 30.0


def count_of(store: PostgresStore) -> int:
    return store._connections.count


async def test_a_store_that_was_asked_one_question_has_one_connection(postgres_store: PostgresStore) -> None:
    await postgres_store.keys_exist()
    assert count_of(postgres_store) == 1


async def test_warming_up_prepares_all_connections_and_stores_nothing(
    postgres_store: PostgresStore,
) -> None:
    await postgres_store.warm_up()
    assert count_of(postgres_store) == CONNECTIONS
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
    assert count_of(postgres_store) <= CONNECTIONS


async def test_a_connection_that_was_cut_while_idle_is_not_lent(
    postgres_store: PostgresStore, database_url: str
) -> None:
    [idle] = await postgres_store.select(OWN_PID)
    await by_a_person(postgres_store, database_url, f"SELECT pg_terminate_backend({idle['pid']}, 5000)")
    await trio.testing.wait_all_tasks_blocked(0.05)

    async def lend() -> int:
        async with postgres_store._connections.one() as connection:
            return int(await connection.fetchval(OWN_PID))

    assert await bounded_call(postgres_store._loop, CALL_SECONDS, lend) != idle["pid"]


async def test_connections_that_a_person_ends_cost_nobody_a_failure(
    postgres_store: PostgresStore, database_url: str
) -> None:
    await postgres_store.warm_up()
    for _ in range(3):
        await by_a_person(postgres_store, database_url, END_ALL)
        async with trio.open_nursery() as nursery:
            for _ in range(2 * CONNECTIONS):
                nursery.start_soon(postgres_store.keys_exist)


async def test_a_statement_whose_connection_is_cut_runs_on_another(postgres_store: PostgresStore) -> None:
    """Once: a statement that ends its own connection each time fails."""
    tries: list[int] = []

    async def cut(connection: Any, *, times: int) -> int:
        tries.append(await connection.fetchval(OWN_PID))
        if len(tries) <= times:
            await connection.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
        return tries[-1]

    run = postgres_store._connections.run
    assert await bounded_call(postgres_store._loop, CALL_SECONDS, run, partial(cut, times=1)) == tries[1] != tries[0]
    tries.clear()
    with pytest.raises(StoreUnavailable, match="terminating connection"):
        await bounded_call(postgres_store._loop, CALL_SECONDS, run, partial(cut, times=3))
    assert len(tries) == 2


async def test_sessions_that_became_read_only_are_replaced_at_once(postgres_store: PostgresStore) -> None:
    """Where one refuses a write, all are checked: a failover leaves every connection at a standby."""
    await bounded_call(postgres_store._loop, CALL_SECONDS, postgres_store._connections.open_all, make_read_only)
    await postgres_store.select("CREATE TEMPORARY TABLE written (number integer)", urgent=True)
    [row] = await postgres_store.select("SELECT current_setting('transaction_read_only') AS it")
    assert row["it"] == "off"
    assert count_of(postgres_store) == 1


async def test_after_a_quiet_time_a_connection_is_checked_before_its_use(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quiet, is_kept in ((connections.QUIET_SECONDS, True), (0.0, False)):
        monkeypatch.setattr(connections, "QUIET_SECONDS", quiet)
        await bounded_call(postgres_store._loop, CALL_SECONDS, postgres_store._connections.run, make_read_only)
        [row] = await postgres_store.select("SELECT current_setting('transaction_read_only') AS it")
        assert (row["it"] == "on") is is_kept


async def test_a_server_that_ends_idle_sessions_costs_nobody_a_failure(
    postgres_store: PostgresStore, database_url: str
) -> None:
    [row] = await postgres_store.select(OWN_PID)
    await postgres_store.select("SELECT set_config('idle_session_timeout', '20ms', false)")
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {row['pid']}"
    await eventually(lambda: by_a_person(postgres_store, database_url, alive), lambda count: count == 0)
    await postgres_store.keys_exist()


async def make_read_only(connection: Any) -> None:
    await connection.execute("SET default_transaction_read_only = on")


async def by_a_person(store: PostgresStore, database_url: str, sql: str) -> Any:
    """The first value of a statement on a connection of its own."""

    async def ask() -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(sql)
        finally:
            connection.terminate()

    return await bounded_call(store._loop, CALL_SECONDS, ask)


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


async def test_where_the_database_allows_no_more_connections_those_that_are_open_do(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server of the same role may have taken the rest."""
    refused = 0

    async def no_more(*_: object, **__: object) -> None:
        nonlocal refused
        refused += 1
        raise asyncpg.TooManyConnectionsError("too many connections")

    await postgres_store.keys_exist()
    monkeypatch.setattr(postgres_store._connector, "open", no_more)
    async with trio.open_nursery() as nursery:
        for _ in range(4 * CONNECTIONS):
            nursery.start_soon(partial(postgres_store.select, "SELECT pg_sleep(0.01)", urgent=True))
    assert 0 < refused <= CONNECTIONS
    assert count_of(postgres_store) == 1
