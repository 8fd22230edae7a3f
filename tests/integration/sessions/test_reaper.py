"""The reaper: whom it sweeps and when, in virtual time and on PostgreSQL."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog.testing
import trio
from lastcall import logs
from lastcall.config import Settings
from lastcall.metrics import Metrics
from lastcall.runtime.host import host_id, process_started
from lastcall.sessions.instance import RECONNECT_SECONDS_MAX, InstanceLease
from lastcall.sessions.registry import Registry
from lastcall.sessions.upkeep.reaper import Reaper
from lastcall.store.errors import InstanceHeld, StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import SessionStart
from lastcall.store.store import Store
from trio.testing import MockClock

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore
from tests.support.instances import instance

SETTINGS = Settings()
THERE = "boot-2/4026531836"
LEASE_SECONDS = 10.0
NOT_BEFORE_SECONDS = 5.0
OTHER_HOST_SECONDS_MAX = 6.0
LOCKED_SECONDS = 25.0
LOOKS_SECONDS = 0.5  # of the reaper, and what its queue takes: added to what a death takes to be certain
ORPHANS = 10_000
REAPED_WITHIN_SECONDS = 6.0
GAP_OF_THE_LOOP_SECONDS_MAX = 0.25
TICK_SECONDS = 0.005
WITHIN = 10.0

# --- looking, in virtual time


class Scene:
    """A judge with its lease, and others whose sessions it may close."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.metrics = Metrics()
        self.lease = InstanceLease(store, SETTINGS, Registry())
        self.reaper = Reaper(store, self.lease, SETTINGS, self.metrics)

    async def other(self, **changes: Any) -> UUID:
        """Another instance, on another host."""
        instance_id = uuid4()
        await self.store.register_instance(instance(instance_id, **{"host_id": THERE, **changes}))
        return instance_id

    async def session_of(self, instance_id: UUID) -> UUID:
        start = SessionStart(
            session_id=uuid4(),
            conversation_id=uuid4(),
            user_id="ada",
            instance_id=instance_id,
            started=trio.current_time(),
        )
        await self.store.begin_session(start, within=WITHIN)
        return start.session_id

    def metric(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


class MemoryScene(Scene):
    store: FakeStore

    def row(self, session_id: UUID) -> SessionRecord:
        return self.store.sessions[session_id]

    async def beat(self, instance_id: UUID, *, task_status: trio.TaskStatus[None]) -> None:
        """What a living server does."""
        async with self.store.open_lease_connection(instance_id) as guard:
            while await guard.renew():
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.sleep(SETTINGS.heartbeat_seconds)

    async def swept_for(self, seconds: float) -> None:
        """The reaper looks for so long."""
        with trio.move_on_after(seconds):
            await self.reaper.run()


@pytest.fixture
async def scene(nursery: trio.Nursery) -> MemoryScene:
    """A judge with its lease."""
    scene = MemoryScene(FakeStore())
    await scene.lease.register()
    nursery.start_soon(scene.lease.keep)
    await scene.lease.wait_held()
    return scene


async def test_only_a_dead_instances_sessions_end_with_its_last_heartbeat(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    healthy, dead = await scene.other(), await scene.other()
    await nursery.start(scene.beat, healthy)
    theirs, orphan, mine = [await scene.session_of(owner) for owner in (healthy, dead, scene.lease.instance_id)]
    last_heartbeat = scene.store.instances[dead].heartbeat_at
    await scene.swept_for(LEASE_SECONDS + LOOKS_SECONDS)
    assert scene.row(orphan).session_end == pytest.approx(max(last_heartbeat, scene.row(orphan).session_start))
    assert scene.row(orphan).ended_at == pytest.approx(last_heartbeat + LEASE_SECONDS, abs=LOOKS_SECONDS)
    assert (scene.row(orphan).end_reason, scene.row(orphan).closed_by) == ("owner_died", scene.lease.instance_id)
    assert scene.row(theirs).is_active
    assert scene.row(mine).is_active


async def crash(scene: MemoryScene, **changes: Any) -> UUID:
    """A session whose instance has lived for a while, and is gone now with its connection."""
    crashing = await scene.other(**changes)
    async with trio.open_nursery() as process:
        await process.start(scene.beat, crashing)
        orphan = await scene.session_of(crashing)
        await scene.swept_for(3 * LEASE_SECONDS)
        assert scene.row(orphan).is_active
        process.cancel_scope.cancel()
    return orphan


async def test_a_connection_that_is_gone_elsewhere_is_a_crash_after_five_seconds(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    orphan = await crash(scene)
    await scene.swept_for(NOT_BEFORE_SECONDS)
    assert scene.row(orphan).is_active
    await scene.swept_for(OTHER_HOST_SECONDS_MAX - NOT_BEFORE_SECONDS)
    assert not scene.row(orphan).is_active


async def test_a_connection_that_is_gone_from_a_living_process_is_none(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    orphan = await crash(scene, host_id=host_id(), pid=os.getpid(), process_started=process_started(os.getpid()))
    await scene.swept_for(LEASE_SECONDS - LOOKS_SECONDS)
    assert scene.row(orphan).is_active
    await scene.swept_for(2 * LOOKS_SECONDS)
    assert not scene.row(orphan).is_active


async def test_a_process_that_is_gone_from_this_host_is_a_crash_at_once(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    orphan = await scene.session_of(await scene.other(host_id=host_id(), pid=no_pid(), process_started=1))
    await scene.swept_for(LOOKS_SECONDS)
    assert not scene.row(orphan).is_active


@pytest.mark.parametrize("cut_seconds", [4.9, 4.0, 0.1])
async def test_a_link_that_is_cut_for_less_than_five_seconds_costs_no_session(
    cut_seconds: float, scene: MemoryScene, autojump_clock: MockClock
) -> None:
    """Whatever the moment: the owner needs a while to be back, and the reaper sees it a while later."""
    other = InstanceLease(scene.store, SETTINGS, Registry())
    await other.register()
    scene.store.instances[other.instance_id].instance = replace(
        scene.store.instances[other.instance_id].instance, host_id=THERE
    )
    session = await scene.session_of(other.instance_id)
    async with trio.open_nursery() as living:
        living.start_soon(scene.reaper.run)
        for moment in range(10):
            with trio.move_on_after(2 * LEASE_SECONDS + 0.07 * moment):
                await other.keep()
            await trio.sleep(cut_seconds)
        assert scene.row(session).is_active
        living.cancel_scope.cancel()


async def test_a_heartbeat_by_another_connection_keeps_an_instance_alive(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """As after its password was rotated: no new connection is let in, but those of its pool work on."""
    orphan = await crash(scene)
    owner = scene.row(orphan).instance_id
    assert owner is not None

    async def beat() -> None:
        while True:
            assert await scene.store.renew_lease(owner)
            await trio.sleep(SETTINGS.heartbeat_seconds)

    nursery.start_soon(beat)
    await scene.swept_for(3 * LEASE_SECONDS)
    assert scene.row(orphan).is_active


@pytest.mark.parametrize("away", ["suspects", "renew"])
async def test_after_an_outage_instances_that_are_not_back_yet_are_not_swept(
    away: str, scene: MemoryScene, autojump_clock: MockClock
) -> None:
    """Also where the database answered questions all the time, but took no heartbeat from anybody."""
    session = await crash(scene)
    operations = {away, "renew_lease"} if away == "renew" else {away}

    def out_of_reach(operation: str) -> None:
        if operation in operations:
            raise StoreUnavailable("no database")

    async with trio.open_nursery() as living:
        living.start_soon(scene.reaper.run)
        scene.store.fail_before = out_of_reach
        await trio.sleep(10 * LEASE_SECONDS)
        scene.store.fail_before = lambda operation: None
        await trio.sleep(NOT_BEFORE_SECONDS)
        assert scene.row(session).is_active
        await trio.sleep(OTHER_HOST_SECONDS_MAX + RECONNECT_SECONDS_MAX - NOT_BEFORE_SECONDS)
        assert not scene.row(session).is_active
        living.cancel_scope.cancel()


async def test_an_instance_that_was_declared_dead_sweeps_nothing(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    me = scene.lease.instance_id
    other = await scene.other()
    await scene.session_of(other)
    assert await scene.store.suspects(me)
    scene.store.declare_dead(me)
    assert not await scene.store.suspects(me)


async def test_an_instance_that_renews_before_the_verdict_lives_on(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    other = await scene.other()
    session = await scene.session_of(other)
    verdicts: list[str] = []

    def back_in_time(operation: str) -> None:
        if operation == "reap":
            verdicts.append(operation)
            scene.store.instances[other].heartbeat_at = trio.current_time()

    scene.store.fail_before = back_in_time
    await scene.swept_for(LEASE_SECONDS + LOOKS_SECONDS)
    assert verdicts
    assert scene.row(session).is_active
    assert not scene.store.instances[other].gone


async def test_an_instance_whose_row_was_locked_is_given_time_to_renew(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    """The lock keeps a living instance from renewing its lease, and others from declaring it dead."""

    def locked(operation: str) -> None:
        if operation == "reap":
            raise InstanceHeld("its row is locked")

    here = {"host_id": host_id(), "pid": os.getpid(), "process_started": process_started(os.getpid())}
    other = await scene.other(**here)
    session = await scene.session_of(other)
    scene.store.fail_before = locked
    logs.configure(json_logs=False, level="warning")
    with structlog.testing.capture_logs() as logged:
        await scene.swept_for(LOCKED_SECONDS)
    scene.store.fail_before = lambda operation: None
    await scene.swept_for(RECONNECT_SECONDS_MAX)
    assert await scene.store.renew_lease(other)
    await scene.swept_for(LEASE_SECONDS / 2)
    assert scene.row(session).is_active
    assert [line["event"] for line in logged] == ["instance_not_reaped"]


async def test_a_sweep_that_fails_is_counted_and_followed_by_the_next(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    orphan = await scene.session_of(await scene.other(host_id=host_id(), pid=no_pid(), process_started=1))

    def unavailable(operation: str) -> None:
        if operation == "suspects":
            raise StoreUnavailable("no database")

    scene.store.fail_before = unavailable
    nursery.start_soon(scene.reaper.run)
    await trio.sleep(1.5 * SETTINGS.reap_seconds)
    assert scene.metric("lastcall_reaper_failures_total") == 2
    assert scene.metric("lastcall_reaper_last_look_timestamp_seconds") == 0
    scene.store.fail_before = lambda operation: None
    await trio.sleep(SETTINGS.reap_seconds)
    assert not scene.row(orphan).is_active
    assert scene.metric("lastcall_sessions_reaped_total") == 1
    assert scene.metric("lastcall_reaper_last_look_timestamp_seconds") > 0


async def test_an_instance_that_cannot_be_reaped_does_not_delay_the_others(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    gone = {"host_id": host_id(), "pid": no_pid(), "process_started": 1}
    orphans = [await scene.session_of(await scene.other(**gone)) for _ in range(3)]
    reaped: list[str] = []

    def first_fails(operation: str) -> None:
        if operation == "reap":
            reaped.append(operation)
            if len(reaped) == 1:
                raise StoreUnavailable("somebody holds its row")

    scene.store.fail_before = first_fails
    await scene.reaper.sweep()
    assert sorted(scene.row(orphan).is_active for orphan in orphans) == [False, False, True]
    assert scene.metric("lastcall_reaper_failures_total") == 1
    await scene.reaper.sweep()
    assert not any(scene.row(orphan).is_active for orphan in orphans)


# --- on PostgreSQL


@pytest.fixture
def only_new_garbage() -> Iterator[None]:
    """What is in memory is left alone, as in `lastcall serve`: here it is all that a thousand tests left behind."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_garbage")
async def test_ten_thousand_orphans_are_reaped_in_one_sweep_and_the_loop_goes_on(
    postgres_store: PostgresStore,
) -> None:
    scene = Scene(postgres_store)
    await scene.lease.register()
    assert scene.lease.host_id == host_id()
    dead = await scene.other(host_id=host_id(), pid=no_pid(), process_started=1)
    await make_orphans(postgres_store, dead, ORPHANS)
    await postgres_store.select("UPDATE server_instances SET heartbeat_at = now() - interval '1 minute'")
    gaps: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, gaps)
        began = trio.current_time()
        await scene.reaper.sweep()
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()
    assert scene.metric("lastcall_sessions_reaped_total") == ORPHANS
    assert took < REAPED_WITHIN_SECONDS
    assert max(gaps) < GAP_OF_THE_LOOP_SECONDS_MAX
    (left,) = await postgres_store.select(
        "SELECT count(*) FILTER (WHERE is_active) AS active, count(DISTINCT session_end) AS ends,"
        " count(*) FILTER (WHERE end_reason = 'owner_died') AS reaped FROM conversation_sessions"
    )
    assert (left["active"], left["ends"], left["reaped"]) == (0, 1, ORPHANS)


async def tick(gaps: list[float]) -> None:
    """How long the loop was away, in seconds, beyond what was asked for."""
    while True:
        before = trio.current_time()
        await trio.sleep(TICK_SECONDS)
        gaps.append(trio.current_time() - before - TICK_SECONDS)


def no_pid() -> int:
    """A pid that no process has."""
    return next(pid for pid in range(4_000_000, 4_100_000) if process_started(pid) is None)


async def make_orphans(store: PostgresStore, owner: UUID, count: int) -> None:
    """Sessions in which the user spoke an hour ago."""
    await store.select(
        "WITH c AS (INSERT INTO conversations (conversation_id, user_id)"
        "    SELECT gen_random_uuid(), 'user-' || n FROM generate_series(1, $2::integer) n RETURNING *),"
        " s AS (INSERT INTO conversation_sessions (conversation_id, user_id, instance_id, session_start)"
        "    SELECT conversation_id, user_id, $1::uuid, now() - interval '1 hour' FROM c RETURNING *)"
        " INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content,"
        "    status, created_at) SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item', 1, 'user',"
        "    'hello', 'completed', now() - interval '1 hour' FROM s",
        owner,
        count,
    )
