"""How the store counts what it asks of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel
from lastcall.metrics import Metrics
from lastcall.store.errors import InvalidRow, StoreError
from lastcall.store.postgres import CONNECTIONS, open_store

from tests.support.waiting import eventually

from .world import item, registered, transaction

ROWS = 9


async def test_calls_connections_and_waiting_rows_are_metrics(database_url: str) -> None:
    metrics = Metrics()

    def sample(name: str, call: str | None = None) -> float:
        labels = {} if call is None else {"call": call}
        return metrics.registry.get_sample_value(f"lastcall_{name}", labels) or 0.0

    def later(name: str) -> Callable[[], Awaitable[float]]:
        async def look() -> float:
            await trio.lowlevel.checkpoint()
            return sample(name)

        return look

    async with open_store(database_url, metrics=metrics) as store:
        world = await registered(store)
        asked = sample("database_call_seconds_count", "query")
        await store.select("SELECT pg_sleep(0.05)")
        assert sample("database_call_seconds_count", "query") == asked + 1
        assert sample("database_call_seconds_sum", "query") >= 0.05
        start = await world.begin()
        commits = sample("database_call_seconds_count", "commit")
        assert commits >= 1
        assert 1 <= sample("database_connections_open") <= CONNECTIONS
        assert sample("database_connections_used") == 0

        rows = [item(start, str(position), position=position) for position in range(ROWS)]
        async with trio.open_nursery() as appending, transaction(world) as ask:
            await ask("LOCK TABLE messages")
            appending.start_soon(world.append, rows[0])
            await eventually(later("database_connections_used"), lambda used: used == 1)
            for row in rows[1:]:  # of the same session: they wait for that commit
                appending.start_soon(world.append, row)
            await eventually(later("commit_queue_rows"), lambda waiting: waiting == ROWS - 1)
        assert sample("commit_queue_rows") == 0
        assert sample("database_call_seconds_count", "commit") > commits

        assert sample("database_call_failures_total", "commit") == sample("database_call_failures_total", "query") == 0
        with pytest.raises(StoreError):
            await store.select("SELECT 1 FROM no_such_table")
        assert sample("database_call_failures_total", "query") == 1
        with pytest.raises(InvalidRow):
            await world.append(item(start, "null \0", position=999))
        assert sample("database_call_failures_total", "commit") == 0, "a row at fault is no failure of the database"
