"""The lease connection on PostgreSQL: its lock, its heartbeats and the notifications that it receives."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
import trio
from lastcall.store.errors import StoreUnavailable
from lastcall.store.lease import LeaseConnection
from lastcall.store.postgres import PostgresStore, lease, open_store
from lastcall.store.records import Suspect

from tests.support.databases import new_database
from tests.support.instances import instance

from .world import WAIT_SECONDS, PostgresWorld, registered, soon

HEX_DIGITS = 32  # of a UUID
CLOSED_MAX = 2
LEASE_CONNECTIONS = "FROM pg_stat_activity WHERE application_name = 'lastcall guard'"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def another(world: PostgresWorld, instance_id: UUID) -> UUID:
    """Another instance, with an active session."""
    await world.store.register_instance(instance(instance_id))
    await world.begin(instance_id=instance_id)
    return instance_id


async def suspect(world: PostgresWorld) -> Suspect:
    """The only suspect of the world's own instance."""
    (suspect,) = await world.store.suspects(world.instance_id)
    return suspect


async def news(connection: LeaseConnection) -> None:
    with trio.fail_after(WAIT_SECONDS):
        await connection.news()


# --- notifications


async def test_a_lease_connection_that_replaces_another_hears_of_closed_rows(world: PostgresWorld) -> None:
    start = await world.begin()
    async with world.store.open_lease_connection(world.instance_id):
        pass
    async with world.store.open_lease_connection(world.instance_id) as connection:
        await world.close_by_hand(start.session_id)
        await news(connection)
        assert connection.closed_by_others() == [start.session_id]


async def test_more_notifications_than_are_kept_ask_for_a_look_at_all_rows(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "CLOSED_MAX", CLOSED_MAX)
    starts = [await world.begin() for _ in range(CLOSED_MAX + 2)]
    last = starts.pop()
    async with world.store.open_lease_connection(world.instance_id) as connection:
        await world.sql(
            "UPDATE conversation_sessions SET is_active = false WHERE session_id = ANY ($1::uuid[])",
            [start.session_id for start in starts],
        )
        # One statement notifies of all of them; its answer may come before the last of its notifications.
        await connection.closed_among([])
        assert connection.closed_by_others() is None
        assert connection.closed_by_others() == []
        await world.close_by_hand(last.session_id)
        await news(connection)
        assert connection.closed_by_others() == [last.session_id]


async def test_a_lease_connection_that_is_cut_is_news_at_once(world: PostgresWorld) -> None:
    """It is replaced at once then, not only when the next heartbeat fails."""
    async with world.store.open_lease_connection(world.instance_id) as connection:
        await world.sql(f"SELECT pg_terminate_backend(pid) {LEASE_CONNECTIONS}")
        await news(connection)
        with pytest.raises(StoreUnavailable):
            await connection.renew()


async def test_a_look_at_all_rows_finds_only_those_that_are_closed(world: PostgresWorld) -> None:
    active, closed = await world.begin(), await world.begin()
    await world.close_by_hand(closed.session_id)
    async with world.store.open_lease_connection(world.instance_id) as connection:
        assert await connection.closed_among([active.session_id, closed.session_id]) == [closed.session_id]


async def test_whatever_fails_on_a_lease_connection_asks_for_another(world: PostgresWorld) -> None:
    async with world.store.open_lease_connection(world.instance_id) as connection:
        with pytest.raises(StoreUnavailable):
            await connection.closed_among(["not an id"])  # type: ignore[list-item]


# --- the lock


async def test_instances_whose_ids_differ_in_one_digit_have_locks_of_their_own(world: PostgresWorld) -> None:
    me = world.instance_id
    ids = [me, *(UUID(int=me.int ^ (1 << 4 * place)) for place in range(HEX_DIGITS))]
    [row] = await world.sql("SELECT count(DISTINCT instance_lock_key(id)) AS keys FROM unnest($1::uuid[]) id", ids)
    assert row["keys"] == len(ids)
    async with AsyncExitStack() as stack:
        for instance_id in (me, ids[1], ids[-1]):
            await world.store.register_instance(instance(instance_id))
            connection = await stack.enter_async_context(world.store.open_lease_connection(instance_id))
            assert await connection.renew()


async def locks(world: PostgresWorld) -> int:
    [row] = await world.sql("SELECT count(*) AS held FROM pg_locks WHERE locktype = 'advisory' AND granted")
    return int(row["held"])


async def test_a_lock_in_a_copy_of_the_database_guards_nothing_here(world: PostgresWorld, database_url: str) -> None:
    """A copy that was restored beside its original has the same instances, and servers of its own."""
    other = await another(world, UUID(int=7))
    async with world.store.open_lease_connection(other) as connection:
        assert await connection.renew()
        assert not (await suspect(world)).guard_gone
    with new_database(database_url) as copy:
        async with open_store(copy) as store:
            await store.register_instance(instance(other))
            async with store.open_lease_connection(other) as connection:
                assert await connection.renew()

                async def unguarded() -> bool:
                    return (await suspect(world)).guard_gone

                assert await soon(unguarded)


async def test_a_lease_is_renewed_while_an_earlier_connection_still_has_its_lock(world: PostgresWorld) -> None:
    """As after a link that was dead for a while: the database has not noticed yet that the earlier one is gone."""
    async with world.store.open_lease_connection(world.instance_id) as earlier:
        assert await earlier.renew()
        async with world.store.open_lease_connection(world.instance_id) as later:
            assert await later.renew()
            assert await locks(world) == 1
            earlier._connection.terminate()
            await soon(lambda: free(world))
            assert await later.renew()
            assert await locks(world) == 1


async def free(world: PostgresWorld) -> bool:
    return await locks(world) == 0


async def test_a_lease_is_renewed_without_a_connection_of_its_own(world: PostgresWorld) -> None:
    before = await heartbeat(world)
    assert await world.store.renew_lease(world.instance_id)
    assert await heartbeat(world) > before
    await world.declare_dead(world.instance_id)
    assert not await world.store.renew_lease(world.instance_id)


async def heartbeat(world: PostgresWorld) -> Any:
    [row] = await world.sql("SELECT heartbeat_at FROM server_instances")
    return row["heartbeat_at"]


# --- connecting


async def test_an_attempt_that_hangs_does_not_delay_the_next(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was begun while the link was down may hang long after it is back."""
    attempts = attempts_that(monkeypatch, "hang", "hang", "connect")
    with trio.fail_after(lease.LEASE_COMMAND_SECONDS):
        async with world.store.open_lease_connection(world.instance_id) as connection:
            assert await connection.renew()
    assert attempts == ["hang", "hang", "connect"]


async def test_an_attempt_that_is_refused_leaves_the_ones_before_it_their_time(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a limit of connections, which a slow attempt has used up."""
    attempts_that(monkeypatch, "be slow", "be refused", "be refused")
    async with world.store.open_lease_connection(world.instance_id) as connection:
        assert await connection.renew()


async def test_a_database_that_refuses_is_told_at_once(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = attempts_that(monkeypatch, "be refused", "connect")
    with pytest.raises(StoreUnavailable):
        async with world.store.open_lease_connection(world.instance_id):
            pass
    assert attempts == ["be refused"]


def attempts_that(monkeypatch: pytest.MonkeyPatch, *behaviours: str) -> list[str]:
    """The attempts to connect behave like this, one after the other. Returns those that were made."""
    connect, made = lease._connect, list[str]()

    async def attempt(*args: Any) -> Any:
        made.append(behaviours[len(made)])
        match made[-1]:
            case "hang":
                await asyncio.Event().wait()
            case "be slow":
                await asyncio.sleep(2 * lease.STAGGER_SECONDS)
            case "be refused":
                raise ConnectionRefusedError
        return await connect(*args)

    monkeypatch.setattr(lease, "_connect", attempt)
    return made


@pytest.mark.parametrize(
    ("taken", "gone"),
    [
        ("pg_postmaster_start_time()", True),
        ("pg_postmaster_start_time() - interval '1 s'", False),
        ("pg_postmaster_start_time() + interval '1 s'", False),  # the clock was set back since
        ("NULL", False),
    ],
)
async def test_a_lock_that_was_lost_in_a_restart_of_postgresql_says_nothing(
    world: PostgresWorld, taken: str, gone: bool
) -> None:
    other = await another(world, UUID(int=1))
    await world.sql(f"UPDATE server_instances SET guarded_by = {taken} WHERE instance_id = $1", other)
    assert (await suspect(world)).guard_gone is gone


@pytest.mark.parametrize("end", ["reaped_at", "stopped_at"])
async def test_an_instance_that_is_dead_or_has_stopped_suspects_nobody(world: PostgresWorld, end: str) -> None:
    await another(world, UUID(int=1))
    assert len(await world.store.suspects(world.instance_id)) == 1
    await world.sql(f"UPDATE server_instances SET {end} = now() WHERE instance_id = $1", world.instance_id)
    assert await world.store.suspects(world.instance_id) == []


async def test_a_reaped_session_does_not_end_before_the_last_heartbeat(world: PostgresWorld) -> None:
    """Its last item may be much older."""
    other = await another(world, UUID(int=1))
    [start] = await world.sql("SELECT session_id, conversation_id, user_id FROM conversation_sessions")
    await world.sql(
        "INSERT INTO messages (user_id, message_id, session_id, conversation_id, item_id, position, role, content,"
        " status, created_at) VALUES ($3, $1, $1, $2, 'item', 1, 'user', 'hello', 'completed',"
        " now() - interval '1 hour')",
        start["session_id"],
        start["conversation_id"],
        start["user_id"],
    )
    await world.sql("UPDATE server_instances SET heartbeat_at = now() WHERE instance_id = $1", other)
    found = await suspect(world)
    assert await world.store.reap(found, world.instance_id) == 1
    [row] = await world.sql(
        "SELECT session_end = heartbeat_at AS dated FROM conversation_sessions JOIN server_instances"
        " USING (instance_id) WHERE instance_id = $1",
        other,
    )
    assert row["dated"]
