"""The reaper: which instances count as dead, and what becomes of their sessions; the rules, and on PostgreSQL."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.config import Settings
from lastcall.metrics import Metrics
from lastcall.runtime.host import host_id, process_started
from lastcall.sessions.instance import InstanceLease
from lastcall.sessions.reaper import CRASH_SILENT_SECONDS, CRASH_STEADY_SECONDS, Reaper, cause_of_death
from lastcall.sessions.registry import Registry
from lastcall.store.errors import StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import SessionStart, Suspect
from lastcall.store.store import Store
from trio.testing import MockClock

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore
from tests.support.instances import instance

SETTINGS = Settings()
HERE, THERE = "boot-1/4026531836", "boot-2/4026531836"
PID, STARTED = 4711, 1_000
LEASE_SECONDS = 10.0
A_HAIR = 0.001  # seconds
GUARD_GONE, LEASE, PROCESS, LEFT = (
    "its connection is gone",
    "its lease ran out",
    "its process is gone",
    "it left",
)
ORPHANS = 10_000
REAPED_WITHIN_SECONDS = 6.0
GAP_OF_THE_LOOP_SECONDS_MAX = 0.25
TICK_SECONDS = 0.005
WITHIN = 10.0

SUSPECT = Suspect(
    instance_id=UUID(int=1),
    host_id=THERE,
    pid=PID,
    process_started=STARTED,
    lease_seconds=LEASE_SECONDS,
    gone=False,
    silent_seconds=math.inf,
    steady_seconds=math.inf,
    guard_gone=False,
    heartbeat=0.0,
)


def alive(pid: int) -> int | None:
    return STARTED


def no_process(pid: int) -> int | None:
    return None


def another_process(pid: int) -> int | None:
    return STARTED + 1


# --- the rules


def test_an_instance_that_left_is_gone_however_recent_its_heartbeat() -> None:
    left = replace(SUSPECT, gone=True, silent_seconds=0.0, steady_seconds=0.0)
    assert cause_of_death(left, HERE, alive) == LEFT


@pytest.mark.parametrize(
    ("suspects_host", "our_host", "started", "cause"),
    [
        pytest.param(HERE, HERE, no_process, PROCESS, id="the process is gone"),
        pytest.param(HERE, HERE, another_process, PROCESS, id="another process has its pid"),
        pytest.param(HERE, HERE, alive, None, id="the process runs"),
        pytest.param(THERE, HERE, no_process, None, id="its pid means nothing on this host"),
        pytest.param(None, HERE, no_process, None, id="its host is not known"),
        pytest.param(None, None, no_process, None, id="neither host is known"),
        pytest.param(HERE, None, no_process, None, id="our host is not known"),
    ],
)
def test_a_missing_process_counts_only_on_the_host_where_it_ran(
    suspects_host: str | None, our_host: str | None, started: Any, cause: str | None
) -> None:
    suspect = replace(SUSPECT, host_id=suspects_host, silent_seconds=0.0, steady_seconds=0.0)
    assert cause_of_death(suspect, our_host, started) == cause


@pytest.mark.parametrize(
    ("guard_gone", "silent", "steady", "cause"),
    [
        (True, CRASH_SILENT_SECONDS, CRASH_STEADY_SECONDS, GUARD_GONE),
        (True, CRASH_SILENT_SECONDS - A_HAIR, CRASH_STEADY_SECONDS, None),
        (True, CRASH_SILENT_SECONDS, CRASH_STEADY_SECONDS - A_HAIR, None),
        (False, CRASH_SILENT_SECONDS, CRASH_STEADY_SECONDS, None),
        (False, LEASE_SECONDS, LEASE_SECONDS, LEASE),
        (False, LEASE_SECONDS - A_HAIR, LEASE_SECONDS, None),
        (False, LEASE_SECONDS, LEASE_SECONDS - A_HAIR, None),
        (False, 3_600.0, 0.0, None),
        (True, 3_600.0, 0.0, None),
    ],
)
def test_silence_is_proof_only_to_an_instance_that_was_steady_for_as_long(
    guard_gone: bool, silent: float, steady: float, cause: str | None
) -> None:
    suspect = replace(SUSPECT, guard_gone=guard_gone, silent_seconds=silent, steady_seconds=steady)
    assert cause_of_death(suspect, HERE, alive) == cause


def test_it_is_the_suspects_own_lease_that_counts() -> None:
    suspect = replace(SUSPECT, lease_seconds=60.0, silent_seconds=59.0)
    assert cause_of_death(suspect, HERE, alive) is None
    assert cause_of_death(replace(suspect, lease_seconds=59.0), HERE, alive) == LEASE


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


@pytest.fixture
async def scene(nursery: trio.Nursery) -> MemoryScene:
    """A judge that is steady."""
    scene = MemoryScene(FakeStore())
    await scene.lease.register()
    nursery.start_soon(scene.lease.keep)
    await trio.sleep(2 * LEASE_SECONDS)
    return scene


async def test_only_a_dead_instances_sessions_end_with_its_last_heartbeat(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    healthy, dead = await scene.other(), await scene.other()
    await nursery.start(scene.beat, healthy)
    theirs, orphan, mine = [await scene.session_of(owner) for owner in (healthy, dead, scene.lease.instance_id)]
    last_heartbeat = scene.store.instances[dead].heartbeat_at
    await trio.sleep(LEASE_SECONDS)
    await scene.reaper.sweep()
    assert scene.row(orphan).session_end == pytest.approx(max(last_heartbeat, scene.row(orphan).session_start))
    assert scene.row(orphan).ended_at == pytest.approx(trio.current_time())
    assert (scene.row(orphan).end_reason, scene.row(orphan).closed_by) == ("owner_died", scene.lease.instance_id)
    assert scene.row(theirs).is_active
    assert scene.row(mine).is_active


async def test_a_crash_is_seen_by_the_missing_lease_connection_before_the_lease_ends(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    crashing = await scene.other()
    with trio.CancelScope() as life:
        async with trio.open_nursery() as process:
            await process.start(scene.beat, crashing)
            orphan = await scene.session_of(crashing)
            nursery.start_soon(scene.reaper.run)
            await trio.sleep(3 * LEASE_SECONDS)
            assert scene.row(orphan).is_active
            life.cancel()
    await trio.sleep(CRASH_SILENT_SECONDS + SETTINGS.reap_seconds + A_HAIR)
    assert not scene.row(orphan).is_active


async def test_after_an_outage_instances_that_are_not_back_yet_are_not_swept(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    slow_to_return = await scene.other()
    async with trio.open_nursery() as process:
        await process.start(scene.beat, slow_to_return)
        session = await scene.session_of(slow_to_return)
        process.cancel_scope.cancel()
    nursery.start_soon(scene.reaper.run)
    scene.store.fail_before = out_of_reach
    await trio.sleep(10 * LEASE_SECONDS)
    scene.store.fail_before = lambda operation: None
    await trio.sleep(CRASH_STEADY_SECONDS - SETTINGS.reap_seconds)
    assert scene.row(session).is_active
    await nursery.start(scene.beat, slow_to_return)
    await trio.sleep(3 * LEASE_SECONDS)
    assert scene.row(session).is_active


def out_of_reach(operation: str) -> None:
    raise StoreUnavailable("no database")


async def test_the_first_sweep_after_an_outage_does_not_count_on_earlier_steadiness(
    scene: MemoryScene,
    autojump_clock: MockClock,
) -> None:
    other = await scene.other()
    session = await scene.session_of(other)

    def no_guard(operation: str) -> None:
        if operation in ("renew", "open_lease_connection"):
            raise StoreUnavailable("no database")

    scene.store.fail_before = no_guard
    await trio.sleep(2 * LEASE_SECONDS)
    await scene.reaper.sweep()
    assert scene.row(session).is_active, "the judge had not even renewed its own lease"


async def test_an_instance_that_was_declared_dead_sweeps_nothing(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    me = scene.lease.instance_id
    other = await scene.other()
    await scene.session_of(other)
    await trio.sleep(2 * LEASE_SECONDS)
    assert await scene.store.suspects(me)
    scene.store.declare_dead(me)
    assert not await scene.store.suspects(me)


async def test_an_instance_that_renews_before_the_verdict_lives_on(
    scene: MemoryScene, autojump_clock: MockClock
) -> None:
    other = await scene.other()
    session = await scene.session_of(other)
    await trio.sleep(LEASE_SECONDS)

    def back_in_time(operation: str) -> None:
        if operation == "reap":
            scene.store.instances[other].heartbeat_at = trio.current_time()

    scene.store.fail_before = back_in_time
    await scene.reaper.sweep()
    assert scene.row(session).is_active
    assert not scene.store.instances[other].gone


async def test_a_sweep_that_fails_is_counted_and_followed_by_the_next(
    scene: MemoryScene, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    orphan = await scene.session_of(await scene.other())
    await trio.sleep(LEASE_SECONDS)

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
    orphans = [await scene.session_of(await scene.other()) for _ in range(3)]
    await trio.sleep(LEASE_SECONDS)
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


async def test_on_postgresql_an_instance_that_has_not_renewed_is_not_steady(
    postgres_store: PostgresStore,
) -> None:
    scene = Scene(postgres_store)
    await scene.lease.register()
    await scene.session_of(await scene.other())
    age = "UPDATE server_instances SET heartbeat_at = heartbeat_at - $1::interval, steady_since = now() - $1::interval"
    await postgres_store.select(age.replace("$1", "'1 hour'"))
    (suspect,) = await postgres_store.suspects(scene.lease.instance_id)
    assert suspect.silent_seconds >= 3_600
    assert suspect.steady_seconds == 0
    await scene.reaper.sweep()
    assert scene.metric("lastcall_sessions_reaped_total") == 0


async def test_on_postgresql_a_new_lease_connection_restarts_steadiness(
    postgres_store: PostgresStore,
) -> None:
    scene = Scene(postgres_store)
    await scene.lease.register()
    await scene.session_of(await scene.other())
    await postgres_store.select("UPDATE server_instances SET steady_since = now() - interval '1 hour'")
    async with postgres_store.open_lease_connection(scene.lease.instance_id) as guard:
        await guard.renew()
    (suspect,) = await postgres_store.suspects(scene.lease.instance_id)
    assert suspect.steady_seconds < CRASH_STEADY_SECONDS


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
        " INSERT INTO messages (message_id, conversation_id, session_id, item_id, position, role, content, status,"
        "    created_at) SELECT gen_random_uuid(), conversation_id, session_id, 'item', 1, 'user', 'hello',"
        "    'completed', now() - interval '1 hour' FROM s",
        owner,
        count,
    )
