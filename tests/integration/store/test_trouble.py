"""Trouble on the way to the database."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import trio
from lastcall.store.errors import StoreUnavailable
from lastcall.store.postgres import CONNECTIONS, PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.network import Connector
from lastcall.store.postgres.preparation.settings import set_session
from trio.testing import wait_all_tasks_blocked

from .world import end, gather, item, registered

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastcall'"
RESET = "ALTER DATABASE postgres RESET default_transaction_read_only"


async def test_what_is_acknowledged_while_connections_are_cut_is_stored_once(postgres_store: PostgresStore) -> None:
    world = await registered(postgres_store)
    start = await world.begin()
    rows = [item(start, str(position), position=position) for position in range(60)]
    results: list[Any] = []

    async def write() -> None:
        for row in rows:
            results.extend(await gather(partial(world.append, row)))
        results.extend(await gather(lambda: world.store.end_session(end(start))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(5):
            await gather(lambda: world.sql(f"{CUT} AND pid <> pg_backend_pid()"))
    assert results[:-1] == [None] * len(rows)
    assert await world.items(start.conversation_id) == rows
    assert not (await world.session(start.session_id)).is_active


async def test_a_database_that_is_read_only_for_a_while_is_written_to_again(postgres_store: PostgresStore) -> None:
    """As in a failover; what waits meanwhile is stored, and who gives up hears why."""
    world = await registered(postgres_store)
    start, ending = await world.begin(), await world.begin()
    await world.sql("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        await in_writing_session(postgres_store, CUT)
        with pytest.raises(StoreUnavailable, match=r"no commit within 0\.5 s: cannot connect: it accepts no writes"):
            await postgres_store.append_items([item(start, "refused")], within=0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postgres_store.end_session, end(ending))
            nursery.start_soon(world.append, item(start, "kept"))
            await trio.testing.wait_all_tasks_blocked(0.1)
            await in_writing_session(postgres_store, RESET)
    finally:
        await in_writing_session(postgres_store, RESET)
    assert [each.content for each in await world.items(start.conversation_id)] == ["kept"]
    assert not (await world.session(ending.session_id)).is_active


async def in_writing_session(store: PostgresStore, sql: str) -> None:
    address = dataclasses.replace(store._connector.address, target="any", application_name="person")
    settings = {"default_transaction_read_only": "off"}
    connect = partial(Connector(address).open, partial(set_session, settings=settings), command_seconds=CALL_SECONDS)
    person: Any = await bounded_call(store._loop, CALL_SECONDS, connect)
    await bounded_call(store._loop, CALL_SECONDS, person.execute, sql)
    person.terminate()


async def test_an_end_that_waits_for_a_connection_is_dated_right_all_the_same(postgres_store: PostgresStore) -> None:
    world = await registered(postgres_store)
    start = await world.begin(age=10.0)
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(partial(postgres_store.select, "SELECT pg_sleep(0.6)", urgent=True))
        await wait_all_tasks_blocked(0.05)
        ended = end(start)
        assert await world.store.end_session(ended) is True
        waited = trio.current_time() - ended.ended
    row = await world.session(start.session_id)
    assert row.ended_at is not None
    assert row.session_end is not None
    assert waited / 2 <= row.ended_at - row.session_end <= waited
