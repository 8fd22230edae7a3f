"""Sessions begin."""

from __future__ import annotations

from uuid import uuid4

import pytest
from lastcall.store.errors import InvalidRow

from .world import UNSTORABLE, WITHIN, World, end, gather


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
