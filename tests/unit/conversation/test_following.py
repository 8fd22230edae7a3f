"""A session that keeps in step with the others in its conversation, in every order of events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.config import Settings
from lastcall.conversation import following
from lastcall.conversation.following import Follower
from lastcall.conversation.timeline import Timeline
from lastcall.limits.limit import Limit
from lastcall.limits.memory import MemoryAccount
from lastcall.protocol import server_events
from lastcall.protocol.errors import Error
from lastcall.protocol.items import InputText, MessageItem
from lastcall.sessions.session import Session
from lastcall.store.conversations.seam import ItemKey
from lastcall.store.records import EndReason, StoredItem
from lastcall.store.store import Store
from msgspec.structs import replace

ALICE = uuid4()


def row(item_id: str, position: int, text: str = "") -> StoredItem:
    return StoredItem(
        session_id=ALICE,
        conversation_id=ALICE,
        item_id=item_id,
        position=position,
        role="user",
        content=text or item_id,
        status="completed",
    )


class Table:
    """The rows of one conversation. during: what happens while a read is under way, after it has seen the rows."""

    def __init__(self) -> None:
        self.rows: dict[UUID, StoredItem] = {}
        self.reads = 0
        self.during: Callable[[], None] = lambda: None

    def put(self, *rows: StoredItem) -> None:
        self.rows |= {each.message_id: each for each in rows}

    def delete(self, gone: StoredItem) -> None:
        self.rows[gone.message_id] = replace(gone, deleted=True)

    async def changed_items(
        self, conversation_id: UUID, user_id: str, message_ids: Sequence[UUID]
    ) -> Sequence[StoredItem]:
        found = [self.rows[key] for key in message_ids if key in self.rows]
        self.reads += 1
        during, self.during = self.during, lambda: None
        await trio.lowlevel.checkpoint()
        during()
        return sorted(found, key=lambda each: each.position)

    async def item_keys(
        self, conversation_id: UUID, user_id: str, after: tuple[int, UUID], limit: int
    ) -> Sequence[ItemKey]:
        await trio.lowlevel.checkpoint()
        live = sorted((each.position, each.message_id, each.item_id) for each in self.rows.values() if not each.deleted)
        return [ItemKey(*key) for key in live if key[:2] > after][:limit]

    async def deleted_among(self, user_id: str, message_ids: Sequence[UUID]) -> Sequence[UUID]:
        await trio.lowlevel.checkpoint()
        return [key for key in message_ids if key in self.rows and self.rows[key].deleted]


class Screen:
    """What the client is told, in short."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.room: Callable[[], Coroutine[Any, Any, None]] = trio.lowlevel.checkpoint

    def emit(self, event: server_events.ServerEvent) -> None:
        match event:
            case server_events.ItemAdded(previous_item_id=previous, item=item):
                self.told.append(f"{previous} < {item.id}")
            case server_events.ItemDone(previous_item_id=previous, item=item):
                assert self.told[-1] == f"{previous} < {item.id}"  # in one piece
            case server_events.ItemDeleted(item_id=item_id):
                self.told.append(f"no {item_id}")
            case Error(error=error):
                self.told.append(error.code or "")


class World:
    """Bob's session, whose conversation is Alice's too."""

    def __init__(
        self,
        history: Sequence[StoredItem] = (),
        *,
        replay: int = 0,
        loaded_from: int | None = None,
        items_max: int = 99,
    ) -> None:
        self.table, self.screen = Table(), Screen()
        self.table.put(*history)
        self.timeline = Timeline(history)
        self.session = Session("ada", ALICE, MemoryAccount())
        self.counted: list[Limit] = []
        self.forgotten: list[str] = []
        self._readers = trio.CapacityLimiter(1)
        self.follower = Follower(
            self.session,
            self.timeline,
            cast("Store", self.table),
            self.screen,
            Settings(items_max=items_max),
            self.counted.append,
            forgotten=self.forgotten.append,
            replay=replay,
            loaded_from=loaded_from,
        )

    async def hear(self, *rows: StoredItem) -> list[str]:
        """Bob's server is told of rows; what Bob's client is told then."""
        return await self.catch_up([each.message_id for each in rows])

    async def catch_up(self, missed: Collection[UUID] | None = None) -> list[str]:
        self.screen.told.clear()
        await self.follower.catch_up(missed, self._readers)
        return self.screen.told

    @property
    def ids(self) -> list[str]:
        return [entry.item.id for entry in self.timeline]

    @property
    def seen(self) -> list[str]:
        """What Bob's agent sees."""
        return [message.text for message in self.timeline.context().messages]


async def begun(history: Sequence[StoredItem] = (), **options: int) -> World:
    world = World(history, **options)
    await world.follower.begin()
    return world


def own(item_id: str) -> MessageItem:
    return MessageItem(id=item_id, status="completed", role="user", content=[InputText(item_id)])


# --- what is told


async def test_items_are_told_once_in_order_each_with_the_one_before_it() -> None:
    one, two, three = (row(name, position << 30) for position, name in enumerate(("one", "two", "three")))
    world = await begun([two])
    world.table.put(three, one)
    assert await world.hear(three, one) == ["None < one", "two < three"]
    assert world.ids == world.seen == ["one", "two", "three"]
    assert await world.hear(one, three) == []
    assert await world.catch_up() == []


async def test_a_deleted_item_leaves_the_timeline_and_the_context() -> None:
    one, two = row("one", 1), row("two", 2)
    world = await begun([one, two])
    world.table.delete(one)
    assert await world.hear(one) == ["no one"]
    assert world.ids == world.seen == ["two"]
    assert world.forgotten == ["one"]


async def test_the_deletion_of_an_item_that_is_not_loaded_is_told_too() -> None:
    """A client may have it from a page of older items."""
    old, loaded, new = row("old", 1), row("loaded", 2), row("new", 3)
    world = await begun([loaded], loaded_from=2)
    world.table.put(old, new)
    world.table.delete(old)
    world.table.delete(new)
    assert await world.hear(old, new) == ["no old"]


async def test_an_edited_item_is_told_as_deleted_and_created_again() -> None:
    before, after = row("one", 1, "befor"), row("one", 1, "before")
    world = await begun([before])
    world.table.put(after)
    world.table.delete(before)
    assert await world.hear(before, after) == ["no one", "None < one"]
    assert world.seen == ["before"]


async def test_an_edit_is_understood_where_its_deletion_was_not_heard_of() -> None:
    before, after = row("one", 1, "befor"), row("one", 1, "before")
    world = await begun([before])
    world.table.delete(before)
    world.table.put(after)
    assert await world.hear(after) == ["no one", "None < one"]
    assert await world.hear(before) == []
    assert world.seen == ["before"]


async def test_what_is_not_there_is_not_looked_for_again() -> None:
    world = await begun()
    assert await world.hear(row("gone", 1)) == []
    assert world.table.reads == 1


# --- before the client's first event


async def test_nothing_is_told_before_the_clients_first_event() -> None:
    one, two, three = (row(name, position) for position, name in enumerate(("one", "two", "three"), 1))
    world = World([one, three], replay=9)
    world.table.put(two)
    world.table.delete(three)
    assert await world.hear(two, three) == []
    assert world.ids == ["one", "two"]
    await world.follower.begin()
    assert world.screen.told == ["None < one", "one < two"]
    assert not world.follower.silent


async def test_what_comes_while_the_first_items_are_told_takes_its_place() -> None:
    one, two, three = (row(name, position) for position, name in enumerate(("one", "two", "three"), 1))
    world = World([one, three], replay=9)
    world.table.put(two)
    heard: list[bool] = []

    async def room() -> None:
        if not heard:
            heard.append(True)
            await world.follower.catch_up([two.message_id], trio.CapacityLimiter(1))

    world.screen.room = room
    await world.follower.begin()
    assert world.screen.told == ["None < one", "one < two", "two < three"]


async def test_what_is_deleted_while_the_first_items_are_told_is_taken_back_where_it_was_told() -> None:
    one, two, three = (row(name, position) for position, name in enumerate(("one", "two", "three"), 1))
    world = World([one, two, three], replay=9)
    world.table.delete(one)
    world.table.delete(two)

    async def room() -> None:
        if world.screen.told == ["None < one"]:
            await world.follower.catch_up([one.message_id, two.message_id], trio.CapacityLimiter(1))

    world.screen.room = room
    await world.follower.begin()
    assert world.screen.told == ["None < one", "no one", "None < three"]


# --- beside the session's own writes


async def test_an_item_that_is_deleted_here_while_it_is_read_does_not_come_back() -> None:
    one = row("one", 1)
    world = await begun()
    world.table.put(one)

    def delete() -> None:
        world.table.delete(one)
        world.follower.deleted("one")

    world.table.during = delete
    assert await world.hear(one) == []
    assert world.ids == []


@pytest.mark.parametrize("edited", [False, True])
async def test_an_own_deletion_that_is_read_before_it_is_confirmed_is_told_once(
    autojump_clock: object, edited: bool
) -> None:
    """By `Conversation`, which tells of its own; what another session creates under the id comes after that."""
    one, again = row("one", 1), row("one", 2, "again")
    world = await begun([one])
    world.table.delete(one)
    if edited:
        world.table.put(again)
    async with trio.open_nursery() as nursery:
        with world.follower.deleting("one"):
            nursery.start_soon(world.hear, one, again)
            await trio.sleep(1.0)
            assert world.screen.told == []
        world.timeline.remove(world.timeline.find("one"))  # type: ignore[arg-type]
        world.follower.deleted("one")
    assert world.screen.told == (["None < one"] if edited else [])


async def test_a_deletion_that_failed_here_is_told_where_another_session_made_it(autojump_clock: object) -> None:
    one = row("one", 1)
    world = await begun([one])
    async with trio.open_nursery() as nursery:
        with world.follower.deleting("one"):
            world.table.delete(one)
            nursery.start_soon(world.hear, one)
            await trio.sleep(1.0)
    assert world.screen.told == ["no one"]


async def test_an_item_waits_while_an_own_one_of_its_id_is_being_stored(autojump_clock: object) -> None:
    theirs = row("same", 1, "theirs")
    world = await begun()
    ours = world.timeline.place(own("same"))
    world.table.put(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.hear, theirs)
        await trio.sleep(1.0)
        assert world.screen.told == []
        world.timeline.remove(ours)  # the database has refused it
    assert world.screen.told == ["None < same"]
    assert world.seen == ["theirs"]


async def test_an_own_item_of_the_same_id_that_is_newer_stays() -> None:
    before = row("one", 1)
    world = await begun([before])
    world.timeline.remove(world.timeline.find("one"))  # type: ignore[arg-type]
    world.timeline.add(world.timeline.place(own("one")))
    world.table.delete(before)
    assert await world.hear(before) == []
    assert world.ids == ["one"]


async def test_an_answer_that_is_deleted_before_it_is_acknowledged_is_not_acknowledged() -> None:
    one = row("one", 1)
    world = await begun([one])
    entry = world.timeline.get("one")
    world.table.delete(one)
    await world.hear(one)
    assert entry is not None
    assert entry.deleted


# --- looking at everything


async def test_what_was_missed_is_found_on_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "READ_KEYS_MAX", 2)
    monkeypatch.setattr(following, "READ_ITEMS_MAX", 1)
    known = [row(f"known{number}", number) for number in range(0, 10, 2)]
    world = await begun(known)
    missed = [row(f"missed{number}", number) for number in range(1, 10, 2)]
    world.table.put(*missed)
    for each in known[:3]:
        world.table.delete(each)
    told = await world.catch_up()
    assert sorted(told)[-3:] == ["no known0", "no known2", "no known4"]
    assert len(told) == len(missed) + 3
    assert world.ids == [key.item_id for key in await world.table.item_keys(ALICE, "ada", (-1, ALICE), 99)]


async def test_older_items_that_are_not_loaded_are_not_taken_for_news() -> None:
    old, loaded, new = row("old", 1), row("loaded", 2), row("new", 3)
    world = await begun([loaded], loaded_from=2)
    world.table.put(old, new)
    assert await world.catch_up() == ["loaded < new"]


# --- bounds


async def test_a_session_that_is_full_says_so_once_and_holds_no_more() -> None:
    rows = [row(str(number), number) for number in range(4)]
    world = await begun(rows[:1], items_max=2)
    world.table.put(*rows)
    assert await world.hear(*rows) == ["0 < 1", "conversation_full"]
    assert await world.hear(*rows) == []
    assert world.ids == ["0", "1"]
    assert set(world.counted) == {Limit.ITEMS}


async def test_a_session_that_may_hold_no_more_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await begun()
    monkeypatch.setattr(MemoryAccount, "refuses", lambda _account, _size=0: True)
    one = row("one", 1)
    world.table.put(one)
    assert await world.hear(one) == ["conversation_full"]
    assert world.counted == [Limit.MEMORY]


async def test_what_others_add_is_counted_as_held() -> None:
    world = await begun()
    held: list[int] = []
    world.timeline._held = held.append
    one = row("one", 1, "x" * 1_000)
    world.table.put(one)
    await world.hear(one)
    assert sum(held) > len(one.content)
    world.table.delete(one)
    await world.hear(one)
    assert sum(held) == 0


async def test_a_session_that_has_ended_meanwhile_is_told_nothing() -> None:
    one = row("one", 1)
    world = await begun()
    world.table.put(one)
    world.table.during = lambda: world.session.stop(EndReason.CLIENT_CLOSED)
    assert await world.hear(one) == []


async def test_a_failure_here_ends_the_session_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await begun()
    one = row("one", 1)
    world.table.put(one)
    monkeypatch.setattr(following, "restored_item", lambda _row: 1 / 0)
    assert await world.hear(one) == []
    assert world.session.reason is EndReason.SERVER_ERROR
