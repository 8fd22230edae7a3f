"""The lease: renewals, rows that others close, and going on after a lost lease or a lost lease connection."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.config import Settings
from lastcall.metrics import Metrics
from lastcall.sessions.death import GAP_SECONDS
from lastcall.sessions.instance import RECONNECT_SECONDS, RECONNECT_SECONDS_MAX, LeaseNotHeld, open_instance
from lastcall.sessions.registry import Registry
from lastcall.store.errors import InstanceGone, StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.batch import BatchStatement, Outcome
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.queries import QUERIES
from lastcall.store.records import SessionStart
from trio.testing import MockClock

from tests.support.clients import Client, connect
from tests.support.fake_store import FakeStore
from tests.support.instances import instance
from tests.support.servers import TestServer
from tests.support.virtual_server import Peer, World
from tests.support.waiting import eventually

SETTINGS = Settings()
HEARTBEAT_SECONDS_MAX = 1.0
A_HAIR = 0.01  # seconds, of virtual time
SOCKET_GONE_SECONDS_MAX = 1.0
GUARD_BACK_SECONDS_MAX = 2.0
SESSIONS = 20
GUARDS = "FROM pg_stat_activity WHERE application_name = 'lastcall guard'"


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    """A registered server that keeps its lease."""
    world = World(FakeStore(), EchoAgent())
    await world.lease.register()
    nursery.start_soon(world.lease.keep)
    await trio.testing.wait_all_tasks_blocked()
    return world


def guard_of(world: World) -> Any:
    return world.store.guards[world.lease.instance_id]


async def reap(world: World) -> int:
    """What another server does that takes this one for dead."""
    judge = uuid4()
    await world.store.register_instance(instance(judge))
    suspects = await world.store.suspects(judge)
    return sum([await world.store.reap(suspect, judge) for suspect in suspects])


def no(*operations: str) -> Any:
    """Lets the store fail at these operations."""

    def unavailable(operation: str) -> None:
        if operation in operations:
            raise StoreUnavailable("no database")

    return unavailable


async def created(peer: Peer) -> UUID:
    """The peer's session."""
    return UUID((await peer.receive("session.created"))["session"]["id"].removeprefix("sess_"))


async def test_the_lease_is_renewed_at_least_every_second(world: World, autojump_clock: MockClock) -> None:
    record = world.store.instances[world.lease.instance_id]
    beats = set()
    for _ in range(100):
        await trio.sleep(0.1)
        beats.add(record.heartbeat_at)
        assert trio.current_time() - record.heartbeat_at <= HEARTBEAT_SECONDS_MAX
    assert len(beats) >= 10


async def test_a_row_that_somebody_closes_closes_its_socket_at_once_and_no_other(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.connected() as one, world.connected() as two:
        closed, _ = await created(one), await created(two)
        world.store.close_by_hand(closed)
        with trio.fail_after(A_HAIR):
            assert await one.closed() == 4001
        await two.say("Still here")


async def test_an_end_of_its_own_is_not_reported_as_closed_by_others(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as peer:
        await created(peer)
        await peer.ws.aclose()
        await world.over.wait()
    assert guard_of(world).closed_by_others() == []


async def test_a_lost_lease_closes_all_sockets_and_a_new_one_is_taken(world: World, autojump_clock: MockClock) -> None:
    before = world.lease.instance_id
    async with world.connected() as one, world.connected() as two:
        await created(one)
        await created(two)
        assert await reap(world) == 2
        with trio.fail_after(world.settings.heartbeat_seconds + A_HAIR):
            assert [await one.closed(), await two.closed()] == [1012, 1012]
    assert {row.end_reason for row in world.store.sessions.values()} == {"owner_died"}
    await trio.sleep(RECONNECT_SECONDS + A_HAIR)
    after = world.lease.instance_id
    assert after != before
    assert world.lease.held
    async with world.connected() as again:
        session_id = await created(again)
        await again.say("Hello again")
        assert world.store.sessions[session_id].instance_id == after


async def test_a_lost_lease_is_replaced_although_registering_fails_at_first(
    world: World, autojump_clock: MockClock
) -> None:
    before = world.lease.instance_id
    async with world.connected() as peer:
        await created(peer)
        world.store.fail_before = no("register_instance")
        world.store.declare_dead(before)
        assert await peer.closed() == 1012
    await trio.sleep(60)
    assert world.lease.instance_id == before
    async with world.connected() as early:
        assert (await early.receive("error"))["error"]["code"] == "store_unavailable"
        assert await early.closed() == 1013
    world.store.fail_before = no()
    await trio.sleep(2 * RECONNECT_SECONDS_MAX)
    assert world.lease.instance_id != before
    async with world.connected() as peer:
        await created(peer)


async def test_a_lost_lease_connection_is_replaced_and_sessions_live_on(
    world: World, autojump_clock: MockClock
) -> None:
    before, health = world.lease.instance_id, world.services
    async with world.connected() as peer:
        await created(peer)
        assert await health.ready() is None
        health.conditions.set("database", "the disk is full")
        assert await health.ready() == "database is away: the disk is full"
        health.conditions.clear("database")
        assert await health.ready() is None
        lost = guard_of(world)
        lost.lost = True
        await trio.sleep(world.settings.heartbeat_seconds + RECONNECT_SECONDS + A_HAIR)
        assert await health.ready() is None
        assert guard_of(world) is not lost
        await peer.say("Hello")
    assert world.lease.instance_id == before


async def test_without_its_connection_the_lease_is_renewed_by_others_and_closed_rows_are_seen(
    world: World, autojump_clock: MockClock
) -> None:
    """As after a password was rotated: the pool works on, but no new connection is let in."""
    before, health = world.lease.instance_id, world.services
    async with world.connected() as one, world.connected() as two:
        closed, _ = await created(one), await created(two)
        world.store.fail_before = no("open_lease_connection")
        guard_of(world).lost = True
        record = world.store.instances[before]
        for _ in range(100):
            await trio.sleep(world.settings.heartbeat_seconds)
            assert trio.current_time() - record.heartbeat_at <= GAP_SECONDS
            assert await health.ready() is None
        world.store.close_by_hand(closed)
        with trio.fail_after(1.0):
            assert await one.closed() == 4001
        await two.say("Still here")
        world.store.declare_dead(before)
        with trio.fail_after(1.0):
            assert await two.closed() == 1012


async def test_a_lease_that_nobody_can_renew_is_not_held(world: World, autojump_clock: MockClock) -> None:
    world.store.fail_before = no("open_lease_connection", "renew", "renew_lease")
    await trio.sleep(GAP_SECONDS + world.settings.heartbeat_seconds)
    assert await world.services.ready() == "lease not renewed"
    world.store.fail_before = no()
    await trio.sleep(world.settings.heartbeat_seconds + A_HAIR)
    assert await world.services.ready() is None


async def test_a_start_without_its_lease_connection_ends_and_says_why(autojump_clock: MockClock) -> None:
    """Also where the lease could be renewed on other connections."""
    store = FakeStore()
    store.fail_before = no("open_lease_connection")
    with pytest.raises(ExceptionGroup) as failed:
        async with open_instance(store, SETTINGS, Registry(), Metrics()):
            raise AssertionError
    assert failed.group_contains(LeaseNotHeld, match="no database")
    assert all(record.stopped_at is not None for record in store.instances.values())


async def test_rows_closed_while_no_connection_listened_are_found_when_it_is_back(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.connected() as one, world.connected() as two:
        closed, _ = await created(one), await created(two)
        world.store.fail_before = no("open_lease_connection", "renew_lease")
        guard_of(world).lost = True
        await trio.sleep(2 * world.settings.heartbeat_seconds)
        assert not world.store.guards
        world.store.close_by_hand(closed)
        world.store.fail_before = no()
        with trio.fail_after(RECONNECT_SECONDS + A_HAIR):
            assert await one.closed() == 4001
        await two.say("Still here")


async def test_rows_deleted_while_no_connection_listened_are_found_when_it_is_back(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.connected("?user=ada") as erased, world.connected("?user=eve") as other:
        await created(erased), await created(other)
        world.store.fail_before = no("open_lease_connection", "renew_lease")
        guard_of(world).lost = True
        await trio.sleep(2 * world.settings.heartbeat_seconds)
        assert not world.store.guards
        world.store.erase("ada")
        world.store.fail_before = no()
        with trio.fail_after(RECONNECT_SECONDS + A_HAIR):
            assert await erased.closed() == 4001
        await other.say("Still here")


async def test_a_session_that_is_about_to_get_its_row_is_not_taken_for_deleted(
    world: World, autojump_clock: MockClock
) -> None:
    world.store.delay = lambda operation: 2.0 if operation == "begin_session" else 0.0
    async with world.connected() as peer:
        await trio.sleep(world.settings.heartbeat_seconds)
        guard_of(world).lost = True
        await created(peer)
        await peer.say("Hello")


async def test_an_overflow_of_notifications_makes_it_check_all_rows(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as one, world.connected() as two:
        closed, _ = await created(one), await created(two)
        await trio.sleep(world.settings.heartbeat_seconds)
        guard, listen = guard_of(world), guard_of(world).closed_by_others

        def overflown() -> None:
            listen()
            guard.closed_by_others = listen

        guard.closed_by_others = overflown
        world.store.close_by_hand(closed)
        with trio.fail_after(world.settings.heartbeat_seconds):
            assert await one.closed() == 4001
        await two.say("Still here")


async def test_a_slow_check_of_the_rows_does_not_delay_a_new_connections_heartbeat(
    world: World, autojump_clock: MockClock
) -> None:
    record = world.store.instances[world.lease.instance_id]
    async with world.connected() as peer:
        await created(peer)
        world.store.delay = lambda operation: 5.0 if operation == "closed_among" else 0.0
        guard_of(world).lost = True
        await trio.sleep(world.settings.heartbeat_seconds + RECONNECT_SECONDS + A_HAIR)
        assert trio.current_time() - record.heartbeat_at < GAP_SECONDS


# --- on PostgreSQL, with real sockets


async def test_a_row_closed_by_sql_closes_the_socket_of_a_silent_client_in_time(
    server: TestServer, record_property: Any
) -> None:
    took: list[float] = []
    async with trio.open_nursery() as nursery:
        clients = [await nursery.start(silent_client, server.url, took) for _ in range(SESSIONS)]
        async with connect(server.url, user="bystander") as bystander:
            ids = [UUID(client.session_id) for client in clients]
            began = trio.current_time()
            await server.store.select(  # type: ignore[attr-defined]
                "UPDATE conversation_sessions SET is_active = false WHERE session_id = ANY ($1::uuid[])", ids
            )
            nursery.cancel_scope.deadline = began + 2 * SOCKET_GONE_SECONDS_MAX
            while len(took) < SESSIONS:
                await trio.testing.wait_all_tasks_blocked(cushion=0.01)
            await bystander.ask("Still here?")
    record_property("socket_gone_seconds_max", max(took) - began)
    assert [client.close_code for client in clients] == [4001] * SESSIONS
    assert max(took) - began < SOCKET_GONE_SECONDS_MAX


async def silent_client(url: str, ended: list[float], *, task_status: trio.TaskStatus[Client]) -> None:
    """Connects, says nothing, and notes when it was closed."""
    async with connect(url) as client:
        task_status.started(client)
        client.close_code = await client.closed()
        ended.append(trio.current_time())


async def test_a_lease_connection_that_is_cut_is_replaced_and_the_lease_is_kept(
    server: TestServer,
) -> None:
    select = server.store.select  # type: ignore[attr-defined]
    instances = "SELECT instance_id, reaped_at, guarded_at FROM server_instances"
    async with connect(server.url) as client:
        await client.say("Hello")
        (before,) = await eventually(lambda: select(instances), lambda rows: rows[0]["guarded_at"])
        await select(f"SELECT pg_terminate_backend(pid) {GUARDS}")
        (after,) = await eventually(
            lambda: select(instances),
            lambda rows: rows[0]["guarded_at"] > before["guarded_at"],
            within=GUARD_BACK_SECONDS_MAX,
        )
        assert (after["instance_id"], after["reaped_at"]) == (before["instance_id"], None)
        await client.ask("Are you there?")
        (row,) = await select("SELECT is_active FROM conversation_sessions")
        assert row["is_active"]


async def test_a_row_closed_just_when_no_connection_listens_closes_its_socket(
    server: TestServer,
) -> None:
    select = server.store.select  # type: ignore[attr-defined]
    async with connect(server.url) as client:
        await client.say("Hello")
        await eventually(lambda: select(f"SELECT pid {GUARDS}"), bool)
        await select(
            f"WITH cut AS MATERIALIZED (SELECT pg_terminate_backend(pid, 1000) AS gone {GUARDS})"
            " UPDATE conversation_sessions SET is_active = false WHERE (SELECT bool_and(gone) FROM cut)"
        )
        with trio.fail_after(GUARD_BACK_SECONDS_MAX):
            assert await client.closed() == 4001


async def begin_session(connection: Any, instance_id: UUID) -> Outcome:
    """A begin's statement on a connection of one's own; what it came to."""
    start = SessionStart(
        session_id=uuid4(), conversation_id=uuid4(), user_id="ada", instance_id=instance_id, started=trio.current_time()
    )
    moment = await connection.fetchval("SELECT clock_timestamp()")
    (outcome,) = await BatchStatement([start]).run(connection, trio.current_time(), moment)
    return outcome


@pytest.mark.parametrize("first", ["begin", "renewal"])
async def test_begins_and_renewals_never_wait_for_each_other(first: str, postgres_store: PostgresStore) -> None:
    """Commits overlap: under load there may be no moment at which nobody begins a session."""
    me = uuid4()
    await postgres_store.register_instance(instance(me))

    async def begin(connection: Any) -> None:
        await begin_session(connection, me)

    async def renew(connection: Any) -> None:
        assert await connection.fetch(QUERIES["renew_instance"], me)

    async def both() -> None:
        one, other = (begin, renew) if first == "begin" else (renew, begin)
        async with postgres_store._connections.one() as ours, postgres_store._connections.one() as theirs:
            await theirs.execute("SET lock_timeout = '100ms'")
            async with ours.transaction():
                await one(ours)
                await other(theirs)
            await theirs.execute("RESET lock_timeout")

    await bounded_call(postgres_store._loop, CALL_SECONDS, both)


async def test_an_instance_that_is_being_declared_dead_begins_no_session(postgres_store: PostgresStore) -> None:
    """The begin is held until the verdict is committed, and then refused."""
    me, judge = uuid4(), uuid4()
    for each in (me, judge):
        await postgres_store.register_instance(instance(each))
    [heartbeat] = await postgres_store.select("SELECT heartbeat_at FROM server_instances WHERE instance_id = $1", me)

    async def meet() -> Outcome:
        async with postgres_store._connections.one() as ours, postgres_store._connections.one() as theirs:
            async with ours.transaction():
                await ours.fetch(QUERIES["reap_instance"], me, heartbeat["heartbeat_at"], judge, 1, 0.0)
                assert isinstance(await begin_session(theirs, me), StoreUnavailable)
            return await begin_session(theirs, me)

    assert isinstance(await bounded_call(postgres_store._loop, CALL_SECONDS, meet), InstanceGone)
