"""What is said is stored, once, in order, while the session is open; and taken back."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import trio
from lastcall.store.errors import InvalidRow, ItemExists, ItemNotFound, SessionClosed
from lastcall.store.records import SessionStart, StoredItem
from msgspec.structs import replace

from .world import UNSTORABLE, WITHIN, World, deletion, end, gather, item


async def test_an_acknowledged_item_is_stored_as_it_was_given(world: World) -> None:
    start = await world.begin()
    first = item(start, "one", position=1 << 20)
    second = item(start, "two \N{SNOWMAN} \U0001f980", position=2 << 20, role="assistant", status="incomplete")
    await world.append(second)
    await world.append(first)
    assert await world.items(start.conversation_id) == [first, second]


async def test_appending_an_item_again_is_one_item(world: World) -> None:
    start = await world.begin()
    stored = item(start)
    await gather(*[lambda: world.append(stored)] * 3)
    await world.append(stored)
    assert await world.items(start.conversation_id) == [stored]


async def test_an_item_with_an_id_in_use_is_refused_with_all_of_its_call(world: World) -> None:
    start = await world.begin()
    first = item(start, "first")
    await world.append(first)
    with pytest.raises(ItemExists):
        await world.append(item(start, "fresh"), item(start, "same id", item_id=first.item_id))
    assert await world.items(start.conversation_id) == [first]


async def test_one_item_id_may_stand_in_two_conversations(world: World) -> None:
    for start in (await world.begin(), await world.begin()):
        await world.append(item(start, item_id="item_1"))
        assert await world.contents(start.conversation_id) == ["hello"]


async def test_of_two_items_with_one_id_at_once_one_is_stored(world: World) -> None:
    start = await world.begin()
    same = [item(start, text, item_id="item_1") for text in ("a", "b")]
    results = await gather(lambda: world.append(same[0]), lambda: world.append(same[1]))
    assert sorted(isinstance(result, ItemExists) for result in results) == [False, True]
    assert len(await world.items(start.conversation_id)) == 1


async def test_nothing_is_stored_for_a_closed_session(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start))
    with pytest.raises(SessionClosed):
        await world.append(item(start))
    assert await world.items(start.conversation_id) == []


async def test_nothing_is_stored_for_a_session_that_never_began(world: World) -> None:
    start = await world.begin()
    with pytest.raises(SessionClosed):
        await world.append(item(start, session_id=uuid4()))
    assert await world.items(start.conversation_id) == []


@pytest.mark.parametrize("content", UNSTORABLE)
async def test_content_that_cannot_be_stored_is_refused(world: World, content: str) -> None:
    start = await world.begin()
    with pytest.raises(InvalidRow):
        await world.append(item(start, content))
    assert await world.items(start.conversation_id) == []


async def test_one_bad_row_among_many_concurrent_ones_fails_alone(world: World) -> None:
    starts = [await world.begin(f"user-{index}") for index in range(20)]
    taken = item(starts[0], "taken", item_id="taken")
    await world.append(taken)
    good = [item(start, f"good {index}") for index, start in enumerate(starts) for _ in range(5)]
    bad = {17: item(starts[3], "bad \0"), 50: item(starts[0], "again", item_id="taken")}
    rows = [bad.get(index, row) for index, row in enumerate(good)]
    results = await gather(*[lambda row=row: world.append(row) for row in rows])
    assert [index for index, result in enumerate(results) if result is not None] == [17, 50]
    assert isinstance(results[17], InvalidRow)
    assert isinstance(results[50], ItemExists)
    stored = {row.message_id for start in starts for row in await world.items(start.conversation_id)}
    assert stored == {row.message_id for index, row in enumerate(good) if index not in bad} | {taken.message_id}


async def test_an_item_id_too_long_for_the_index_fails_alone(world: World) -> None:
    start = await world.begin()
    long_id = "".join(uuid4().hex for _ in range(500))
    rows = [item(start, "good"), item(start, "bad", item_id=long_id), item(start, "fine")]
    results = await gather(*[lambda row=row: world.append(row) for row in rows])
    assert isinstance(results[1], InvalidRow)
    assert (results[0], results[2]) == (None, None)


async def test_a_whole_session_may_be_written_at_once(world: World) -> None:
    ids: dict[str, Any] = {"session_id": uuid4(), "conversation_id": uuid4()}
    start = SessionStart(user_id="ada", instance_id=world.instance_id, started=trio.current_time(), **ids)
    store = world.store
    results = await gather(
        *[lambda: store.begin_session(start, within=WITHIN), lambda: world.append(item(start, session_id=uuid4()))]
    )
    assert results[0] is None
    assert isinstance(results[1], SessionClosed | InvalidRow)
    await gather(lambda: world.append(item(start)), lambda: store.end_session(end(start)))
    row = await world.session(start.session_id)
    assert not row.is_active
    stored = await world.items(start.conversation_id)
    assert row.memory_status == ("pending" if stored else "none")


def call(start: SessionStart, **changes: Any) -> StoredItem:
    fields = {"kind": "function_call", "role": "assistant", "call_id": "call_1", "name": "look_up"}
    return item(start, '{"city":"Oslo"}', **(fields | changes))


def output(start: SessionStart, **changes: Any) -> StoredItem:
    return item(start, "rain", **({"kind": "function_call_output", "role": "tool", "call_id": "call_1"} | changes))


async def test_calls_and_their_outputs_are_stored_and_loaded_as_they_were_given(world: World) -> None:
    start = await world.begin()
    rows = [item(start, position=1), call(start, position=2), output(start, position=3)]
    await world.append(*rows)
    assert await world.items(start.conversation_id) == rows
    assert await world.history(start.conversation_id, "ada", 10) == rows


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "thought"},
        {"role": "tool"},
        {"role": "tool", "call_id": "call_1"},
        {"call_id": "call_1"},
        {"name": "look_up"},
        {"kind": "function_call", "role": "assistant", "call_id": "call_1"},
        {"kind": "function_call", "role": "assistant", "name": "look_up"},
        {"kind": "function_call", "role": "user", "name": "look_up", "call_id": "call_1"},
        {"kind": "function_call", "role": "tool", "name": "look_up", "call_id": "call_1"},
        {"kind": "function_call_output", "role": "tool"},
        {"kind": "function_call_output", "role": "user", "call_id": "call_1"},
        {"kind": "function_call_output", "role": "tool", "call_id": "call_1", "name": "look_up"},
        {"kind": "function_call_output", "role": "tool", "call_id": "nul \0"},
    ],
    ids=str,
)
async def test_an_item_of_no_legal_shape_is_refused(world: World, changes: dict[str, str]) -> None:
    start = await world.begin()
    with pytest.raises(InvalidRow):
        await world.append(item(start, **changes))
    assert await world.items(start.conversation_id) == []


async def test_output_of_a_function_does_not_make_a_session_memorable(world: World) -> None:
    silent, spoken = await world.begin("ada"), await world.begin("bob")
    await world.append(call(silent, position=1), output(silent, position=2))
    await world.append(item(spoken, "hello", position=1), call(spoken, position=2), output(spoken, position=3))
    for start in (silent, spoken):
        await world.store.end_session(end(start))
    assert (await world.session(silent.session_id)).memory_status == "none"
    [claim] = await world.store.claim_memory(10, 60.0)
    assert [message.text for message in claim.transcript.messages] == ["hello"]


async def test_a_deleted_item_stays_in_the_transcript_only(world: World) -> None:
    start = await world.begin()
    rows = [item(start, text, position=n) for n, text in enumerate(("one", "two", "three"))]
    await world.append(*rows)
    await world.store.delete_item(deletion(start, rows[1].item_id), within=WITHIN)
    assert await world.items(start.conversation_id) == [rows[0], replace(rows[1], deleted=True), rows[2]]
    assert await world.history(start.conversation_id, "ada", 10) == [rows[0], rows[2]]
    assert await world.history(start.conversation_id, "ada", 2) == [rows[0], rows[2]]


async def test_deleting_an_item_again_is_one_deletion(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="a"))
    results = await gather(*[lambda: world.store.delete_item(deletion(start, "a"), within=WITHIN)] * 3)
    assert results == [None] * 3
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)


async def test_an_item_and_its_deletion_may_be_written_at_once(world: World) -> None:
    start = await world.begin()
    results = await gather(
        lambda: world.append(item(start, item_id="a")),
        lambda: world.store.delete_item(deletion(start, "a"), within=WITHIN),
    )
    assert results[0] is None
    assert results[1] is None or isinstance(results[1], ItemNotFound)
    [stored] = await world.items(start.conversation_id)
    assert stored.deleted is (results[1] is None)


# --- an id that is used again


async def replaced(world: World, start: SessionStart, *texts: str) -> list[StoredItem]:
    """Items of the id "a", each but the last deleted before the next is stored."""
    rows = [item(start, text, item_id="a", position=number) for number, text in enumerate(texts)]
    for row in rows[:-1]:
        await world.append(row)
        await world.store.delete_item(deletion(start, "a", row.message_id), within=WITHIN)
    await world.append(rows[-1])
    return [*(replace(row, deleted=True) for row in rows[:-1]), rows[-1]]


async def test_the_id_of_a_deleted_item_is_free_again_and_the_transcript_keeps_both(world: World) -> None:
    start = await world.begin()
    rows = await replaced(world, start, "long", "shorter", "short")
    assert await world.items(start.conversation_id) == rows
    assert await world.history(start.conversation_id, "ada", 10) == [rows[-1]]
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    assert await world.items(start.conversation_id) == [*rows[:-1], replace(rows[-1], deleted=True)]


async def test_an_id_that_was_free_is_taken_again_in_all_sessions(world: World) -> None:
    start = await world.begin()
    other = await world.begin(conversation_id=start.conversation_id)
    await replaced(world, start, "old", "new")
    for each in (start, other):
        with pytest.raises(ItemExists):
            await world.append(item(each, "one more", item_id="a"))
    results = await gather(
        lambda: world.store.delete_item(deletion(start, "a"), within=WITHIN),
        lambda: world.store.delete_item(deletion(other, "a"), within=WITHIN),
    )
    assert results == [None, None]
    results = await gather(*[lambda each=each: world.append(item(each, item_id="a")) for each in (start, other)])
    assert sorted(map(type, results), key=str) == sorted([ItemExists, type(None)], key=str)


async def test_an_item_that_is_sent_again_late_takes_no_place_of_its_successor(world: World) -> None:
    """Such as one whose commit was confirmed too late: the client has deleted it and created another one since."""
    start = await world.begin()
    rows = await replaced(world, start, "old", "new")
    for row in rows:
        await world.append(replace(row, deleted=False))
    assert await world.items(start.conversation_id) == rows


async def test_a_deletion_that_arrives_again_late_spares_the_sessions_next_item_of_that_id(world: World) -> None:
    start = await world.begin()
    rows = await replaced(world, start, "old", "new")
    await world.store.delete_item(deletion(start, "a", rows[0].message_id), within=WITHIN)
    assert await world.items(start.conversation_id) == rows


async def test_a_session_deletes_what_another_one_has_put_in_the_place_of_what_it_knows(world: World) -> None:
    """What a client has deleted never comes back to it."""
    start = await world.begin()
    other = await world.begin(conversation_id=start.conversation_id)
    rows = await replaced(world, other, "old", "new")
    await world.store.delete_item(deletion(start, "a", rows[0].message_id), within=WITHIN)
    assert await world.history(start.conversation_id, "ada", 10) == []


async def test_an_item_stored_as_deleted_leaves_its_id_to_another(world: World) -> None:
    """An answer that was deleted and replaced while it was said comes last."""
    start = await world.begin()
    rows = [item(start, "short", item_id="a", position=1), item(start, "long", item_id="a", position=2, deleted=True)]
    await world.append(rows[0])
    await world.append(rows[1], item(start, "call", position=3))
    assert (await world.items(start.conversation_id))[:2] == rows
    await world.store.delete_item(deletion(start, "a", rows[0].message_id), within=WITHIN)
    assert await world.contents(start.conversation_id) == ["short", "long", "call"]
    assert [row.content for row in await world.history(start.conversation_id, "ada", 9) or ()] == ["call"]


async def test_an_id_is_used_again_and_again_without_waiting_for_an_answer(world: World) -> None:
    start, other = await world.begin(), await world.begin()
    rows = [item(start, str(number), item_id="a", position=number) for number in range(5)]
    calls: list[Any] = [lambda: world.append(item(other))]
    for row in rows:
        calls.append(lambda row=row: world.append(row))
        calls.append(lambda row=row: world.store.delete_item(deletion(start, "a", row.message_id), within=WITHIN))
    assert await gather(*calls[:-1], in_order=True) == [None] * 10
    assert await world.items(start.conversation_id) == [*(replace(row, deleted=True) for row in rows[:-1]), rows[-1]]


async def test_only_the_last_wording_is_remembered(world: World) -> None:
    start = await world.begin()
    await replaced(world, start, "I am allergic to nuts", "I am allergic to cats")
    await world.store.end_session(end(start))
    [claim] = await world.store.claim_memory(10, 60.0)
    assert [(message.item_id, message.text) for message in claim.transcript.messages] == [
        ("a", "I am allergic to cats")
    ]


# --- deletions


async def test_an_item_may_be_stored_as_deleted(world: World) -> None:
    start = await world.begin()
    stored = item(start, deleted=True)
    await world.append(stored)
    assert await world.items(start.conversation_id) == [stored]
    assert await world.history(start.conversation_id, "ada", 10) == []


async def test_what_is_not_there_is_not_deleted_and_fails_alone(world: World) -> None:
    start, other = await world.begin("ada"), await world.begin("eve")
    await world.append(item(start, item_id="mine"), item(start, item_id="also mine"))
    await world.append(item(other, item_id="theirs"))
    results = await gather(
        lambda: world.store.delete_item(deletion(start, "nowhere"), within=WITHIN),
        lambda: world.store.delete_item(deletion(start, "mine"), within=WITHIN),
        lambda: world.store.delete_item(deletion(other, "also mine"), within=WITHIN),
        lambda: world.store.delete_item(deletion(other, "nul \0"), within=WITHIN),
    )
    assert [type(result) for result in results[:3]] == [ItemNotFound, type(None), ItemNotFound]
    assert isinstance(results[3], InvalidRow)
    assert {row.item_id for row in await world.items(start.conversation_id) if row.deleted} == {"mine"}


async def test_nothing_is_deleted_for_a_closed_session(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="a"))
    await world.close_by_hand(start.session_id)
    with pytest.raises(SessionClosed):
        await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    assert not (await world.items(start.conversation_id))[0].deleted


async def test_what_the_user_took_back_is_not_remembered(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, "I like tea", item_id="a", position=1), item(start, "Hello", position=2))
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    await world.store.end_session(end(start))
    [claim] = await world.store.claim_memory(10, 60.0)
    assert [message.text for message in claim.transcript.messages] == ["Hello"]
