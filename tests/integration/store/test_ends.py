"""Sessions end: once, at their true time, one by one or all at once."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio
from lastcall.store.records import EndReason, SessionStart

from tests.support.instances import instance

from .world import CLOSE_TO, UNSTORABLE, WITHIN, World, end, gather, item, soon


async def test_an_end_is_written_once_and_never_rewritten(world: World) -> None:
    start = await world.begin(age=10.0)
    assert await world.store.end_session(end(start, age=5.0)) is True
    before = await world.session(start.session_id)
    later = end(start, reason=EndReason.SHUTDOWN, close_code=1012, unfinished=[item(start, "late")])
    assert await world.store.end_session(later) is False
    assert await world.session(start.session_id) == before
    assert await world.items(start.conversation_id) == []


async def test_of_two_ends_at_once_one_is_the_end(world: World) -> None:
    start = await world.begin()
    ends = [end(start, close_code=code) for code in (1000, 1001)]
    results = await gather(lambda: world.store.end_session(ends[0]), lambda: world.store.end_session(ends[1]))
    assert sorted(results) == [False, True]
    assert (await world.session(start.session_id)).close_code == ends[results.index(True)].close_code


async def test_an_end_says_why_and_by_whom(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start, reason=EndReason.CLIENT_LOST, close_code=None))
    row = await world.session(start.session_id)
    assert (row.is_active, row.end_reason, row.close_code) == (False, "client_lost", None)
    assert row.closed_by == world.instance_id


async def test_an_end_is_dated_when_it_happened_not_when_it_was_written(world: World) -> None:
    start = await world.begin(age=12.0)
    await world.store.end_session(end(start, age=5.0))
    row = await world.session(start.session_id)
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.ended_at - row.session_end == pytest.approx(5.0, abs=CLOSE_TO)
    assert row.session_end - row.session_start == pytest.approx(7.0, abs=CLOSE_TO)
    assert row.duration_seconds == pytest.approx(row.session_end - row.session_start, abs=1e-5)


async def test_an_end_is_never_before_the_start(world: World) -> None:
    start = await world.begin(age=1.0)
    await world.store.end_session(end(start, age=60.0))
    row = await world.session(start.session_id)
    assert (row.session_end, row.duration_seconds) == (row.session_start, 0.0)


async def test_an_end_is_never_in_the_future(world: World) -> None:
    start = await world.begin(age=1.0)
    await world.store.end_session(end(start, age=-60.0))
    row = await world.session(start.session_id)
    assert row.duration_seconds == pytest.approx(1.0, abs=CLOSE_TO)
    assert row.ended_at == pytest.approx(row.session_end, abs=CLOSE_TO)


async def test_ending_a_session_that_never_began_does_nothing(world: World) -> None:
    start = await world.begin()
    assert await world.store.end_session(end(start, session_id=uuid4())) is False
    assert (await world.session(start.session_id)).is_active


async def test_what_was_left_unsaid_is_stored_with_the_end(world: World) -> None:
    start = await world.begin()
    unsaid = item(start, "and then", role="assistant", status="incomplete")
    await world.store.end_session(end(start, unfinished=[unsaid]))
    assert await world.items(start.conversation_id) == [unsaid]


@pytest.mark.parametrize("content", UNSTORABLE)
async def test_unsaid_words_that_cannot_be_stored_do_not_prevent_the_end(world: World, content: str) -> None:
    start = await world.begin()
    refused = item(start, content, role="assistant", status="incomplete")
    assert await world.store.end_session(end(start, unfinished=[refused])) is True
    assert not (await world.session(start.session_id)).is_active
    assert await world.items(start.conversation_id) == []


async def test_unsaid_words_under_a_taken_id_do_not_prevent_the_end(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="item_1"))
    assert await world.store.end_session(end(start, unfinished=[item(start, "again", item_id="item_1")])) is True
    assert await world.contents(start.conversation_id) == ["hello"]


async def test_a_write_lands_although_its_caller_was_cancelled(world: World) -> None:
    start = SessionStart(
        session_id=uuid4(),
        conversation_id=uuid4(),
        user_id="ada",
        instance_id=world.instance_id,
        started=trio.current_time(),
    )
    store, stored = world.store, item(start)
    for write in (
        lambda: store.begin_session(start, within=WITHIN),
        lambda: store.append_items([stored], within=WITHIN),
        lambda: store.end_session(end(start)),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await write()
        assert scope.cancelled_caught

    async def ended() -> bool:
        return await world.session_count() == 1 and not (await world.session(start.session_id)).is_active

    await soon(ended)
    assert await world.items(start.conversation_id) == [stored]


async def test_a_shutdown_closes_its_own_sessions_and_no_others(world: World) -> None:
    other = uuid4()
    await world.store.register_instance(instance(other))
    mine = [await world.begin() for _ in range(3)]
    theirs = await world.begin(instance_id=other)
    ended = await world.begin()
    await world.store.end_session(end(ended))
    unsaid = item(mine[0], "and then", role="assistant", status="incomplete")
    closed = await world.store.close_instance_sessions(world.instance_id, [unsaid])
    assert set(closed) == {start.session_id for start in mine}
    rows = [await world.session(start.session_id) for start in mine]
    assert {(row.is_active, row.end_reason, row.close_code) for row in rows} == {(False, "shutdown", 1012)}
    assert (await world.session(theirs.session_id)).is_active
    assert (await world.session(ended.session_id)).end_reason == "client_closed"
    assert await world.items(mine[0].conversation_id) == [unsaid]
    assert not await world.store.close_instance_sessions(world.instance_id, [unsaid])


async def test_unfinished_items_that_are_invalid_do_not_prevent_a_bulk_close(world: World) -> None:
    starts = [await world.begin() for _ in range(2)]
    unsaid = [item(start, text, role="assistant") for start, text in zip(starts, ("bad \0", "fine"), strict=True)]
    assert len(await world.store.close_instance_sessions(world.instance_id, unsaid)) == 2
    assert not (await world.session(starts[0].session_id)).is_active


async def test_an_end_after_the_bulk_close_changes_nothing(world: World) -> None:
    start = await world.begin()
    await world.store.close_instance_sessions(world.instance_id, [])
    assert await world.store.end_session(end(start)) is False
    assert (await world.session(start.session_id)).end_reason == "shutdown"
