"""Histories, pages and lists of conversations."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from lastcall.store.errors import ItemNotFound, SessionClosed, StoreUnavailable
from lastcall.store.records import PAGE_BYTES_MAX, StoredHistory
from msgspec.structs import asdict

from .world import HISTORY_BYTES, WITHIN, World, deletion, item


async def test_history_is_the_newest_items_oldest_first_and_only_the_users_own(world: World) -> None:
    start = await world.begin()
    for position, text in ((3, "three"), (1, "one"), (2, "two")):
        await world.append(item(start, text, position=position))
    history = await world.history(start.conversation_id, "ada", 2)
    assert history is not None
    assert [stored.content for stored in history] == ["two", "three"]
    assert await world.history(start.conversation_id, "eve", 2) is None
    assert await world.history(uuid4(), "ada", 2) is None


async def test_a_history_has_older_system_items_too_where_they_stand(world: World) -> None:
    start = await world.begin()
    roles = ["system", "user", "system", "assistant", "system", "user", "system", "user"]
    await world.append(*(item(start, role=role, item_id=f"i{n}", position=n) for n, role in enumerate(roles)))
    await world.store.delete_item(deletion(start, "i2"), within=WITHIN)

    async def load(limit: int) -> tuple[list[str], int, bool]:
        found = await world.store.load_history(start.conversation_id, "ada", limit, bytes_max=HISTORY_BYTES)
        assert found is not None
        assert found.items is not None
        return [stored.item_id for stored in found.items], found.older, found.left_out

    assert await load(8) == (["i0", "i1", "i3", "i4", "i5", "i6", "i7"], 0, False)
    assert await load(5) == (["i0", "i3", "i4", "i5", "i6", "i7"], 1, False)
    assert await load(2) == (["i0", "i4", "i6", "i7"], 2, False)
    assert await load(1) == (["i6", "i7"], 1, True)


async def test_older_system_items_at_the_position_of_the_newest_items_are_loaded_once(world: World) -> None:
    start = await world.begin()
    await world.append(*(item(start, role="system", position=7) for _ in range(5)))
    found = await world.store.load_history(start.conversation_id, "ada", 3, bytes_max=HISTORY_BYTES)
    assert found is not None
    assert (found.items, found.older) == (await world.items(start.conversation_id), 2)


async def test_a_history_that_takes_too_many_bytes_is_not_loaded_and_says_how_many(world: World) -> None:
    start = await world.begin()
    texts = ["a rule", "\N{SNOWMAN}" * 100_000, "hello"]
    roles = ["system", "user", "user"]
    rows = [item(start, text, role=role, position=n) for n, (text, role) in enumerate(zip(texts, roles, strict=True))]
    await world.append(*rows)
    size = sum(len(text.encode()) for text in texts)
    for bytes_max, items, older in ((0, None, 0), (size - 1, None, 0), (size, rows, 1)):
        found = await world.store.load_history(start.conversation_id, "ada", 2, bytes_max=bytes_max)
        assert found == StoredHistory(items=items, older=older, bytes=size, left_out=False)
    empty = await world.begin()
    found = await world.store.load_history(empty.conversation_id, "ada", 2, bytes_max=0)
    assert found == StoredHistory(items=[], older=0, bytes=0, left_out=False)


async def test_items_come_in_pages_from_either_end_and_from_any_item(world: World) -> None:
    start = await world.begin()
    for position in (3, 1, 5, 2, 4):
        await world.append(item(start, item_id=f"i{position}", position=position))

    async def page(limit: int, *, older: bool, cursor: str | None = None) -> list[str]:
        page = await world.store.page_items(start.conversation_id, "ada", limit, older=older, cursor=cursor)
        assert page is not None
        return [stored.item_id for stored in page]

    assert await page(2, older=False) == ["i1", "i2"]
    assert await page(2, older=False, cursor="i2") == ["i3", "i4"]
    assert await page(2, older=False, cursor="i5") == []
    assert await page(2, older=True) == ["i5", "i4"]
    assert await page(9, older=True, cursor="i4") == ["i3", "i2", "i1"]


async def test_pages_hold_every_item_once_though_many_stand_at_one_position(world: World) -> None:
    start = await world.begin()
    await world.append(*(item(start, position=7) for _ in range(9)))
    seen: list[str] = []
    while page := await world.store.page_items(
        start.conversation_id, "ada", 2, older=False, cursor=seen[-1] if seen else None
    ):
        seen += [stored.item_id for stored in page]
    assert len(seen) == len(set(seen)) == 9
    assert seen == [stored.item_id for stored in await world.items(start.conversation_id)]
    history = await world.history(start.conversation_id, "ada", 4)
    assert history is not None
    assert [stored.item_id for stored in history] == seen[-4:]


async def test_no_page_shows_a_deleted_item_but_one_may_go_on_from_it(world: World) -> None:
    start = await world.begin()
    names = ("a", "b", "c", "d")
    await world.append(*(item(start, item_id=name, position=number) for number, name in enumerate(names)))
    await world.store.delete_item(deletion(start, "b"), within=WITHIN)
    for older, cursor, expected in (
        (True, None, ["d", "c"]),
        (True, "c", ["a"]),
        (True, "b", ["a"]),
        (False, None, ["a", "c"]),
        (False, "a", ["c", "d"]),
        (False, "b", ["c", "d"]),
    ):
        page = await world.store.page_items(start.conversation_id, "ada", 2, older=older, cursor=cursor)
        assert page is not None
        assert [stored.item_id for stored in page] == expected


async def test_a_page_goes_on_from_an_id_that_was_used_again_where_it_is_now(world: World) -> None:
    start = await world.begin()
    for position, item_id in enumerate(("a", "b", "a", "c", "a", "d")):
        await world.append(item(start, item_id=item_id, position=position))
        if item_id == "a":
            page = await world.store.page_items(start.conversation_id, "ada", 1, older=False, cursor="a")
            assert page == []
            await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    gone = await world.store.page_items(start.conversation_id, "ada", 9, older=False, cursor="a")
    assert [stored.item_id for stored in gone or ()] == ["d"], "from where the last one was"
    await world.append(item(start, item_id="a", position=1))
    there = await world.store.page_items(start.conversation_id, "ada", 9, older=True, cursor="c")
    assert {stored.item_id for stored in there or ()} == {"a", "b"}
    page = await world.store.page_items(start.conversation_id, "ada", 9, older=False, cursor="a")
    assert [stored.item_id for stored in page or () if stored.item_id != "b"] == ["c", "d"]


async def test_a_page_holds_items_of_every_kind_whole(world: World) -> None:
    start = await world.begin()
    call = item(start, "{}", role="assistant", kind="function_call", call_id="call_1", name="look_up", position=1)
    output = item(start, "rain", role="tool", kind="function_call_output", call_id="call_1", position=2)
    await world.append(call, output)
    for older, expected in ((False, [call, output]), (True, [output, call])):
        page = await world.store.page_items(start.conversation_id, "ada", 9, older=older) or ()
        shown = [asdict(each) for each in page]
        assert all(each.pop("stored_at") for each in shown)
        assert shown == [asdict(each) for each in expected]


async def test_a_page_needs_the_conversations_user_and_one_of_its_items(world: World) -> None:
    start, other = await world.begin(), await world.begin()
    await world.append(item(start, item_id="mine"))
    await world.append(item(other, item_id="elsewhere"))
    assert await world.store.page_items(start.conversation_id, "eve", 9, older=True) is None
    assert await world.store.page_items(start.conversation_id, "eve", 9, older=True, cursor="mine") is None
    assert await world.store.page_items(uuid4(), "ada", 9, older=True) is None
    for cursor in ("elsewhere", "none"):
        with pytest.raises(ItemNotFound):
            await world.store.page_items(start.conversation_id, "ada", 9, older=True, cursor=cursor)


async def test_conversations_are_listed_newest_first_with_their_last_activity(world: World) -> None:
    old = await world.begin()
    new = await world.begin()
    await world.begin("eve")
    await world.append(item(old))
    listed = await world.store.list_conversations("ada", 9)
    assert listed is not None
    assert [each.conversation_id for each in listed] == [new.conversation_id, old.conversation_id]
    assert listed[0].last_active_at == listed[0].created_at
    assert listed[1].last_active_at >= listed[0].created_at
    assert await world.store.list_conversations("ada", 1) == listed[:1]
    assert await world.store.list_conversations("ada", 9, after=new.conversation_id) == listed[1:]
    assert await world.store.list_conversations("eve", 9, after=new.conversation_id) is None


async def test_a_conversation_is_called_by_its_first_words_until_it_gets_a_title(world: World) -> None:
    start = await world.begin()
    conversation = start.conversation_id

    async def title() -> str | None:
        (listed,) = await world.store.list_conversations("ada", 9) or ()
        return listed.title

    assert await title() is None
    await world.append(item(start, "Welcome.", role="assistant"))
    assert await title() is None
    await world.append(item(start, " plan\n the   garden " + "x" * 900, item_id="first", position=1))
    assert await title() == ("plan the garden " + "x" * 900)[:80]
    assert await world.store.rename_conversation(conversation, "ada", "Garden")
    assert await title() == "Garden"
    assert await world.store.rename_conversation(conversation, "ada", None)
    await world.append(item(start, "later", position=2))
    await world.store.delete_item(deletion(start, "first"), within=WITHIN)
    assert await title() == "later", "words that were deleted are not shown as a title"
    assert not await world.store.rename_conversation(conversation, "eve", "mine")
    assert not await world.store.rename_conversation(uuid4(), "ada", "none")


async def test_a_search_finds_titles_and_what_was_said_whatever_the_case(world: World) -> None:
    garden, boat, hidden = await world.begin(), await world.begin(), await world.begin()
    await world.append(item(garden, "Roses"), item(garden, "and 100% Tulips", role="assistant", position=1))
    await world.append(item(boat, "sails", item_id="gone"), item(boat, "masts", position=1))
    await world.append(item(hidden, "{}", role="assistant", kind="function_call", call_id="c", name="roses"))
    await world.append(item(await world.begin("eve"), "roses"))
    await world.store.rename_conversation(boat.conversation_id, "ada", "The Boat")
    await world.store.delete_item(deletion(boat, "gone"), within=WITHIN)

    async def found(words: str, **more: Any) -> list[UUID]:
        return [
            each.conversation_id for each in await world.store.list_conversations("ada", 9, search=words, **more) or ()
        ]

    for words in ("rOSES", "tulips", "100%"):
        assert await found(words) == [garden.conversation_id]
    for words in ("boat", "MAST"):
        assert await found(words) == [boat.conversation_id]
    for words in ("sails", "%", "_oses", "nothing"):
        assert await found(words) == ([garden.conversation_id] if words == "%" else [])
    assert await found("roses", after=boat.conversation_id) == [garden.conversation_id]
    assert await found("boat", after=boat.conversation_id) == []


async def test_a_deleted_conversation_is_gone_for_its_user_and_its_sessions_end(world: World) -> None:
    kept = await world.spoken("ada", "kept")
    start = await world.begin()
    await world.append(item(start, item_id="said"))
    conversation = start.conversation_id
    assert not await world.store.delete_conversation(conversation, "eve")
    assert await world.store.delete_conversation(conversation, "ada")
    assert not await world.store.delete_conversation(conversation, "ada")
    assert [each.conversation_id for each in await world.store.list_conversations("ada", 9) or ()] == [
        kept.conversation_id
    ]
    assert await world.history(conversation, "ada", 9) is None
    assert await world.store.page_items(conversation, "ada", 9, older=True) is None
    assert not await world.store.rename_conversation(conversation, "ada", "back")
    row = await world.session(start.session_id)
    assert (row.is_active, row.end_reason) == (False, "by_hand")
    with pytest.raises(SessionClosed):
        await world.append(item(start, "late", position=1))
    assert [(each.item_id, each.deleted) for each in await world.items(conversation)] == [("said", True)]
    with pytest.raises(StoreUnavailable):
        await world.begin(conversation_id=conversation)


async def test_a_page_says_when_its_items_were_stored(world: World) -> None:
    start = await world.begin()
    await world.append(item(start))
    (summary,) = await world.store.list_conversations("ada", 9) or ()
    for older in (True, False):
        (stored,) = await world.store.page_items(start.conversation_id, "ada", 9, older=older) or ()
        assert stored.stored_at == summary.last_active_at


async def test_history_goes_on_in_the_next_session(world: World) -> None:
    first = await world.spoken("ada", "before")
    start = await world.begin("ada", conversation_id=first.conversation_id)
    await world.append(item(start, "after", position=9))
    assert await world.contents(first.conversation_id) == ["before", "after"]


async def test_a_page_ends_behind_the_item_that_makes_it_too_large(world: World) -> None:
    start = await world.begin()
    half = "x" * (PAGE_BYTES_MAX // 2)
    texts = [half, half, "é", half, half]
    await world.append(*(item(start, text, position=number) for number, text in enumerate(texts)))
    for older in (True, False):
        page = await world.store.page_items(start.conversation_id, "ada", 5, older=older)
        assert page is not None
        assert [stored.position for stored in page] == ([4, 3, 2] if older else [0, 1, 2])
