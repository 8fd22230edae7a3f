"""A real PgBouncer between the store and PostgreSQL."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from lastcall.store.errors import DatabaseUnusable, StoreUnavailable
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.postgres.connect import STATEMENT_SECONDS

from tests.support.instances import instance
from tests.support.pgbouncer import run_pgbouncer

from .world import PostgresWorld, end, item, soon


async def test_by_session_it_needs_no_setting_of_its_own(postgres_store: PostgresStore, database_url: str) -> None:
    """Also with settings in the URL. PgBouncer refuses settings that come with a connection's start."""
    with run_pgbouncer(database_url, "session") as pgbouncer:
        async with open_store(f"{pgbouncer.url}?options=-cwork_mem=128kB") as store:
            await store.warm_up()
            [row] = await store.select("SELECT current_setting('statement_timeout') AS it")
            assert row["it"] == f"{STATEMENT_SECONDS:g}s"
            [row] = await store.select("SELECT current_setting('work_mem') AS it")
            assert row["it"] == "128kB"
            world = PostgresWorld(store)
            await store.register_instance(instance(world.instance_id))
            start = await world.begin()
            await world.append(item(start, "said"))
            async with store.open_lease_connection(world.instance_id) as lease:
                assert await lease.renew()
                await world.close_by_hand(start.session_id)
                with trio.fail_after(5):
                    await lease.news()
                assert lease.closed_by_others() == [start.session_id]
            assert await store.end_session(end(start)) is False


async def test_when_it_restarts_nobody_is_told(postgres_store: PostgresStore, database_url: str) -> None:
    with run_pgbouncer(database_url, "session") as pgbouncer:
        async with open_store(pgbouncer.url) as store:
            await store.warm_up()
            pgbouncer.stop()
            pgbouncer.start()
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(store.keys_exist)


async def test_a_lease_connection_is_lost_with_it_and_another_is_opened(
    postgres_store: PostgresStore, database_url: str
) -> None:
    with run_pgbouncer(database_url, "session") as pgbouncer:
        async with open_store(pgbouncer.url) as store:
            world = PostgresWorld(store)
            await store.register_instance(instance(world.instance_id))
            async with store.open_lease_connection(world.instance_id) as lease:
                pgbouncer.stop()
                with trio.fail_after(5):
                    await lease.news()
            pgbouncer.start()

            async def renewed() -> bool:
                with suppress(StoreUnavailable):  # PostgreSQL may still hold the lock of the one that is lost
                    async with store.open_lease_connection(world.instance_id) as lease:
                        return await lease.renew()
                return False

            assert await soon(renewed)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_by_transaction_it_is_refused_in_one_line(
    postgres_store: PostgresStore, database_url: str, mode: str
) -> None:
    with run_pgbouncer(database_url, mode) as pgbouncer:
        with pytest.RaisesGroup(DatabaseUnusable, flatten_subgroups=True) as raised:
            async with open_store(pgbouncer.url):
                pass
        assert "pool_mode = session" in str(raised.value.exceptions)
