"""What all servers together have left to do, as metrics."""

from __future__ import annotations

import math

import trio
from lastcall.agents.echo import EchoAgent
from lastcall.metrics import Metrics
from lastcall.sessions.upkeep.backlog import LOOK_SECONDS, Backlog
from lastcall.store.errors import StoreError
from lastcall.store.postgres import PostgresStore

from tests.integration.store.world import end, item, registered
from tests.support.fake_store import FakeStore
from tests.support.virtual_server import World
from tests.support.waiting import in_background

NAMES = ("lastcall_sessions_orphaned", "lastcall_memory_pending_sessions", "lastcall_memory_failed_sessions")


def counted(metrics: Metrics) -> list[float | None]:
    return [metrics.registry.get_sample_value(name) for name in NAMES]


async def test_rows_without_a_server_and_memory_that_waits_or_has_failed_are_counted(
    postgres_store: PostgresStore,
) -> None:
    metrics, world = Metrics(), await registered(postgres_store)
    sessions = [await world.begin() for _ in range(5)]
    await Backlog(postgres_store, metrics).look()
    assert counted(metrics) == [0, 0, 0], "they live"
    for session in sessions:
        await world.append(item(session, "Hello"))
        await world.store.end_session(end(session))
    await world.store.claim_memory(2, 10.0)
    for session in sessions[:2]:
        await world.store.fail_memory(session.session_id, "for good", retry_after=None)
    await postgres_store.select("INSERT INTO conversation_sessions (user_id) SELECT 'eve' FROM generate_series(1, 4)")
    await Backlog(postgres_store, metrics).look()
    assert counted(metrics) == [4, 3, 2]


async def test_what_nobody_can_count_is_not_known(autojump_clock: trio.testing.MockClock) -> None:
    """What was true before the outage would be told for as long as it lasts."""
    metrics = Metrics()

    class Store(FakeStore):
        is_away = False

        async def fetch(self, query: str, *args: object) -> list[object]:
            await trio.lowlevel.checkpoint()
            if self.is_away:
                raise StoreError("the database is away")
            return [{"orphaned": 1, "pending": 2, "failed": 3}]

    store = Store()
    async with in_background(Backlog(store, metrics).run):
        await trio.sleep(LOOK_SECONDS / 2)
        assert counted(metrics) == [1, 2, 3]
        store.is_away = True
        await trio.sleep(LOOK_SECONDS)
        assert all(value is not None and math.isnan(value) for value in counted(metrics))
        store.is_away = False
        await trio.sleep(LOOK_SECONDS)
        assert counted(metrics) == [1, 2, 3]


async def test_a_server_counts_its_lost_leases_and_their_connections(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(FakeStore(), EchoAgent())
    sample = world.lease._metrics.registry.get_sample_value
    assert world.lease.age_seconds == math.inf
    await world.lease.register()
    nursery.start_soon(world.lease.keep)
    await trio.sleep(10)
    assert world.lease.age_seconds < 1
    assert sample("lastcall_lease_connections_lost_total") == sample("lastcall_leases_lost_total") == 0
    world.store.instances[world.lease.instance_id].reaped_at = trio.current_time()
    await trio.sleep(10)
    assert sample("lastcall_leases_lost_total") == 1
    lost = sample("lastcall_lease_connections_lost_total") or 0
    world.store.guards[world.lease.instance_id].lost = True
    await trio.sleep(10)
    assert sample("lastcall_lease_connections_lost_total") == lost + 1
