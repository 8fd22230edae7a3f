"""Instances live, are guarded, and are reaped when they are dead."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
import trio
from lastcall.store.errors import InstanceGone, SessionClosed
from lastcall.store.postgres import instances
from lastcall.store.records import EVIDENCE_SECONDS, Suspect

from tests.support import fake_tables as memory_tables
from tests.support.instances import instance

from .world import CLOSE_TO, MemoryWorld, World, end, item, soon


async def test_a_stopped_or_dead_instance_is_not_renewed_and_begins_no_sessions(world: World) -> None:
    stopped, dead = uuid4(), uuid4()
    for instance_id in (stopped, dead):
        await world.store.register_instance(instance(instance_id))
        async with world.store.open_lease_connection(instance_id) as guard:
            assert await guard.renew() is True
    await world.store.stop_instance(stopped)
    await world.declare_dead(dead)
    for instance_id in (stopped, dead):
        await world.store.register_instance(instance(instance_id))
        async with world.store.open_lease_connection(instance_id) as guard:
            assert await guard.renew() is False
        with pytest.raises(InstanceGone):
            await world.begin(instance_id=instance_id)
    assert await world.session_count() == 0


async def test_a_guard_hears_of_rows_that_others_close_and_not_of_its_own(world: World) -> None:
    mine, theirs = await world.begin(), await world.begin()
    async with world.store.open_lease_connection(world.instance_id) as guard:
        assert await guard.renew()
        await world.store.end_session(end(mine))
        await world.close_by_hand(theirs.session_id)
        with trio.fail_after(5):
            await guard.news()
        assert guard.closed_by_others() == [theirs.session_id]
        assert guard.closed_by_others() == []
        for source in (guard, world.store):
            closed = await source.closed_among([mine.session_id, theirs.session_id, uuid4()])
            assert set(closed) == {mine.session_id, theirs.session_id}


async def test_a_row_that_is_missing_counts_as_closed_only_if_it_was_stored(world: World) -> None:
    open_here, deleted, beginning = await world.begin(), uuid4(), uuid4()
    ids = [open_here.session_id, deleted, beginning]
    async with world.store.open_lease_connection(world.instance_id) as guard:
        for source in (guard, world.store):
            assert await source.closed_among(ids, [open_here.session_id, deleted]) == [deleted]


async def judge(world: World) -> UUID:
    """Another instance, which looks for the dead."""
    instance_id = uuid4()
    await world.store.register_instance(instance(instance_id))
    return instance_id


async def test_an_owner_of_active_sessions_is_a_suspect(world: World) -> None:
    """That its lease connection is gone shows once it is closed."""
    other = await judge(world)
    await world.begin()
    async with world.store.open_lease_connection(world.instance_id) as guard:
        await guard.renew()
        (suspect,) = await world.store.suspects(other)
        assert (suspect.instance_id, suspect.gone, suspect.guard_gone) == (world.instance_id, False, False)
        assert await world.store.suspects(None) == [suspect]
    missed = await soon(lambda: guard_missed(world, other))
    assert missed.instance_id == world.instance_id


async def guard_missed(world: World, other: UUID) -> Suspect | None:
    (suspect,) = await world.store.suspects(other)
    return suspect if suspect.guard_gone else None


async def test_an_instance_without_active_sessions_is_a_suspect_once_it_is_silent(world: World) -> None:
    """Else nobody would ever say that it is dead, and what it counted last would stay unknown for ever."""
    other = await judge(world)
    start = await world.begin()
    await world.store.end_session(end(start))
    assert await world.store.suspects(other) == []
    await world.silence(60.0)
    (suspect,) = await world.store.suspects(other)
    assert suspect.instance_id == world.instance_id
    assert await world.store.reap(suspect, other) == 0
    assert await world.store.suspects(other) == []


async def test_a_reaped_instances_sessions_end_with_its_last_heartbeat(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    await world.append(item(start, "hello"))
    (suspect,) = await world.store.suspects(other)
    assert await world.store.reap(suspect, other) == 1
    row = await world.session(start.session_id)
    assert (row.is_active, row.end_reason, row.closed_by) == (False, "owner_died", other)
    assert row.memory_status == "pending"
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.session_start <= row.session_end <= row.ended_at
    with pytest.raises(SessionClosed):
        await world.append(item(start, "from beyond"))
    with pytest.raises(InstanceGone):
        await world.begin()


@pytest.mark.parametrize(
    ("silent", "later"), [(0.5, 0.5), (60.0, EVIDENCE_SECONDS)], ids=["an item soon after it", "one long after it"]
)
async def test_a_reaped_session_ends_with_its_last_item_within_a_bound(
    world: World, silent: float, later: float
) -> None:
    """At most EVIDENCE_SECONDS after the last heartbeat of its owner."""
    other = await judge(world)
    start = await world.begin(age=100.0)
    heartbeat = await world.silence(silent)
    await world.append(item(start, "hello"))
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(start.session_id)).session_end == pytest.approx(heartbeat + later, abs=CLOSE_TO)


async def test_a_reaped_session_that_stored_nothing_ends_with_the_last_heartbeat(world: World) -> None:
    other = await judge(world)
    start = await world.begin(age=100.0)
    heartbeat = await world.silence(60.0)
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(start.session_id)).session_end == pytest.approx(heartbeat, abs=CLOSE_TO)


async def test_a_dead_instances_sessions_are_reaped_a_bounded_number_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (instances, memory_tables):
        monkeypatch.setattr(module, "REAP_ROWS_MAX", 2)
    other = await judge(world)
    for _ in range(3):
        await world.begin()
    (suspect,) = await world.store.suspects(other)
    assert [await world.store.reap(suspect, other) for _ in range(3)] == [2, 1, 0]


async def test_an_instance_that_renewed_its_lease_meanwhile_is_not_reaped(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    (suspect,) = await world.store.suspects(other)
    async with world.store.open_lease_connection(world.instance_id) as guard:
        await passing(world)
        await guard.renew()
        assert await world.store.reap(suspect, other) == 0
        assert (await world.session(start.session_id)).is_active
        assert await guard.renew() is True


async def test_an_instance_that_renewed_without_its_connection_is_not_reaped(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    (suspect,) = await world.store.suspects(other)
    await passing(world)
    assert await world.store.renew_lease(world.instance_id)
    assert await world.store.reap(suspect, other) == 0
    assert (await world.session(start.session_id)).is_active


async def passing(world: World) -> None:
    """Lets the store's clock move on."""
    if isinstance(world, MemoryWorld):
        await trio.sleep(0.001)


async def test_reaping_leaves_sessions_of_others_and_of_nobody(world: World) -> None:
    other = await judge(world)
    await world.begin()
    healthy = await world.begin(instance_id=other)
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(healthy.session_id)).is_active


async def test_a_store_that_works_proves_a_commit_and_keeps_no_rows(world: World) -> None:
    await world.store.prove_commit(world.instance_id)
    assert await world.session_count() == 0
