"""Trouble on the way to the database."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from lastcall.store.postgres import CONNECTIONS, PostgresStore
from trio.testing import wait_all_tasks_blocked

from tests.support.instances import instance

from .world import PostgresWorld, end, gather, item


async def test_what_is_acknowledged_while_connections_are_cut_is_stored_once(postgres_store: PostgresStore) -> None:
    world = PostgresWorld(postgres_store)
    await world.store.register_instance(instance(world.instance_id))
    start = await world.begin()
    rows = [item(start, str(position), position=position) for position in range(60)]
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastcall'"
    results: list[Any] = []

    async def write() -> None:
        for row in rows:
            results.extend(await gather(partial(world.append, row)))
        results.extend(await gather(lambda: world.store.end_session(end(start))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(5):
            await gather(lambda: world.sql(f"{cut} AND pid <> pg_backend_pid()"))
    assert results[:-1] == [None] * len(rows)
    assert await world.items(start.conversation_id) == rows
    assert not (await world.session(start.session_id)).is_active


async def test_an_end_that_waits_for_a_connection_is_dated_right_all_the_same(postgres_store: PostgresStore) -> None:
    world = PostgresWorld(postgres_store)
    await world.store.register_instance(instance(world.instance_id))
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
