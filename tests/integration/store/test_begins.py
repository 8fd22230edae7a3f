"""Sessions begin."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import trio
from lastcall.store.errors import InstanceGone, InvalidRow
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.records import FinishedMemory, Recollection, RememberedFact, SessionStart

from .world import UNSTORABLE, WITHIN, World, end, gather, item, memory, registered

NO_WAIT_SECONDS = 2.0  # below the statements' timeout of the store


async def test_a_begun_session_is_an_active_row_of_its_own_conversation(world: World) -> None:
    start = await world.begin(age=3.0)
    row = await world.session(start.session_id)
    assert (row.is_active, row.user_id, row.instance_id) == (True, "ada", world.instance_id)
    assert (row.session_end, row.ended_at, row.duration_seconds, row.end_reason) == (None, None, None, None)
    assert row.memory_status == "none"
    assert await world.history(start.conversation_id, "ada", 10) == []


async def test_beginning_again_is_one_row(world: World) -> None:
    start = await world.begin()
    assert await gather(*[lambda: world.store.begin_session(start, within=WITHIN)] * 3) == [None] * 3
    assert await world.session_count() == 1


async def test_beginning_again_does_not_reopen(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start))
    await world.store.begin_session(start, within=WITHIN)
    assert not (await world.session(start.session_id)).is_active


async def test_a_session_in_another_users_conversation_is_refused_and_not_stored(world: World) -> None:
    start = await world.begin("ada")
    with pytest.raises(InvalidRow):
        await world.begin("eve", conversation_id=start.conversation_id)
    assert await world.session_count() == 1


@pytest.mark.parametrize("user_id", ["", "u" * 257, *UNSTORABLE])
async def test_a_user_id_that_cannot_be_stored_is_refused(world: World, user_id: str) -> None:
    with pytest.raises(InvalidRow):
        await world.begin(user_id)
    assert await world.session_count() == 0


async def test_a_session_of_an_unregistered_instance_is_refused(world: World) -> None:
    with pytest.raises(InvalidRow):
        await world.begin(instance_id=uuid4())


async def test_of_two_users_who_begin_one_conversation_at_once_one_has_it(world: World) -> None:
    conversation_id = uuid4()
    results = await gather(
        lambda: world.begin("ada", conversation_id=conversation_id),
        lambda: world.begin("eve", conversation_id=conversation_id),
    )
    assert sorted(isinstance(result, InvalidRow) for result in results) == [False, True]


# --- what is recalled with a begin


async def test_a_begin_recalls_what_is_known_of_its_user(world: World) -> None:
    stranger = await world.begin("bob", memories_max=2)
    assert await world.store.begin_session(stranger, within=WITHIN) == Recollection([], pending=False)
    spoken = await world.spoken("ada")
    again = session_of(world, "ada", memories_max=2)
    assert await world.store.begin_session(again, within=WITHIN) == Recollection([], pending=True)
    await world.store.finish_memory(
        [FinishedMemory(spoken.session_id, [memory(text) for text in ("one", "two", 'thr"ee\n')])]
    )
    known = await world.store.begin_session(session_of(world, "ada", memories_max=2), within=WITHIN)
    assert known == await world.store.recall("ada", 2)
    assert known.facts == [RememberedFact("note", "two"), RememberedFact("note", 'thr"ee\n')]
    assert await world.store.begin_session(session_of(world, "ada"), within=WITHIN) is None


async def test_each_of_many_begins_recalls_its_own_users_memories(world: World) -> None:
    users = [f"user-{number}" for number in range(20)]
    for user in users:
        spoken = await world.spoken(user)
        await world.store.finish_memory([FinishedMemory(spoken.session_id, [memory(f"of {user}")])])
    starts = [session_of(world, user, memories_max=5) for user in users]
    known = await gather(*(partial(world.store.begin_session, start, within=WITHIN) for start in starts))
    assert [each.facts for each in known] == [[RememberedFact("note", f"of {user}")] for user in users]


async def test_a_begin_that_is_refused_recalls_nothing(world: World) -> None:
    await world.declare_dead(world.instance_id)
    with pytest.raises(InstanceGone):
        await world.store.begin_session(session_of(world, "ada", memories_max=5), within=WITHIN)


@pytest.mark.parametrize("table", ["user_memories", "recall_passages", "forgotten_turns"])
async def test_where_memories_are_locked_a_begin_recalls_nothing_and_delays_no_other_write(
    postgres_store: PostgresStore, database_url: str, table: str
) -> None:
    """Somebody adds an index, or restores the table."""
    world = await registered(postgres_store)
    person: Any = await bounded_call(world.store._loop, CALL_SECONDS, asyncpg.connect, database_url)
    try:
        for sql in ("BEGIN", f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            await bounded_call(world.store._loop, CALL_SECONDS, person.execute, sql)
        with trio.fail_after(NO_WAIT_SECONDS):
            start = session_of(world, "ada", memories_max=5)
            assert await world.store.begin_session(start, within=WITHIN) is None
            await world.append(item(start))
    finally:
        person.terminate()
    assert (await world.session(start.session_id)).is_active


def session_of(world: World, user_id: str, **changes: Any) -> SessionStart:
    ids = {"session_id": uuid4(), "conversation_id": uuid4(), "instance_id": world.instance_id}
    return SessionStart(**{**ids, "user_id": user_id, "started": trio.current_time(), **changes})
