"""The journal: what it refuses, and what a failed write leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import uuid4

import pytest
import trio
from lastcall.config import Settings
from lastcall.conversation.journal import FIGURES_MAX, Journal
from lastcall.conversation.timeline import Timeline, UnknownItem
from lastcall.limits.limit import Limit
from lastcall.protocol.client_events import EventRejected, ItemCreate, NewItem
from lastcall.protocol.items import InputText, MessageItem
from lastcall.sessions.session import Session
from lastcall.store.errors import SessionClosed, StoreError
from lastcall.store.records import StoredItem, StoredResponse, StoredRow
from lastcall.store.store import Store


class RecordingStore:
    """Keeps the rows that it is given, or fails."""

    def __init__(self) -> None:
        self.rows: list[StoredRow] = []
        self.fails = False

    async def append_items(self, rows: Sequence[StoredRow], *, within: float) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise StoreError("away")
        self.rows += rows


class World:
    """A journal with its timeline and its store, and the refusals that it counted."""

    def __init__(self, **limits: Any) -> None:
        self.refused: list[Limit] = []
        self.timeline = Timeline()
        self.store = RecordingStore()
        self.session = session = Session("ada", uuid4())
        session.began()
        self.journal = Journal(
            session, self.timeline, cast("Store", self.store), Settings(**limits), self.refused.append
        )

    async def append(self, text: str, item_id: str = "item", after: str | None = None) -> None:
        event = ItemCreate(item=NewItem(type="message", role="user", content=[]), previous_item_id=after)
        item = MessageItem(id=item_id, status="completed", role="user", content=[InputText(text)])
        await self.journal.append(event, item)

    def figures(self) -> StoredResponse:
        return StoredResponse(
            response_id=uuid4().hex,
            session_id=self.session.session_id,
            user_id="ada",
            key_id=None,
            agent="parrot",
            model=None,
            outcome="completed",
            reason=None,
            created=0.0,
            first=None,
            ended=1.0,
        )

    @property
    def ids(self) -> list[str]:
        return [entry.item.id for entry in self.timeline]


async def test_an_item_is_stored_and_known() -> None:
    world = World()
    await world.append("hello", "a")
    await world.append("again", "b", after="root")
    assert world.ids == ["b", "a"]
    assert [row.content for row in world.store.rows if isinstance(row, StoredItem)] == ["hello", "again"]


@pytest.mark.parametrize("limits", [{"items_max": 2}, {"conversation_chars_max": 10}], ids=["items", "characters"])
async def test_an_item_above_the_quota_is_refused_and_leaves_no_trace(limits: dict[str, int]) -> None:
    world = World(**limits)
    await world.append("hello", "a")
    await world.append("there", "b")
    with pytest.raises(EventRejected) as rejected:
        await world.append("!", "c", after="nowhere")
    assert rejected.value.detail.code == "conversation_full"
    assert (world.ids, len(world.timeline), len(world.store.rows)) == (["a", "b"], 2, 2)
    assert world.refused == [Limit.ITEMS]


async def test_a_failed_write_gives_the_place_and_the_quota_back() -> None:
    world = World(conversation_chars_max=5)
    world.store.fails = True
    with pytest.raises(StoreError):
        await world.append("hello")
    assert len(world.timeline) == 0
    world.store.fails = False
    await world.append("hello")
    assert world.ids == ["item"]


async def test_a_reply_counts_towards_the_quota_even_if_it_is_not_stored() -> None:
    world = World(conversation_chars_max=5)
    world.store.fails = True
    item = MessageItem(id="reply", status="completed", role="assistant", content=[])
    entry = world.timeline.place(item)
    world.timeline.add(entry)
    item.content = [InputText("hello")]
    with pytest.raises(StoreError):
        await world.journal.append_reply([entry], world.figures())
    world.store.fails = False
    with pytest.raises(EventRejected):
        await world.append("!")


async def test_an_unknown_previous_item_is_refused() -> None:
    world = World()
    with pytest.raises(UnknownItem):
        await world.append("hello", after="nowhere")
    assert world.store.rows == []


async def test_a_closed_journal_stores_nothing() -> None:
    world = World()
    world.journal.closed = True
    with pytest.raises(SessionClosed):
        await world.append("hello")
    with pytest.raises(SessionClosed):
        await world.journal.append_reply([], world.figures())
    with pytest.raises(SessionClosed):
        await world.journal.delete("item")
    assert (len(world.timeline), world.store.rows) == (0, [])


async def test_figures_wait_for_the_database_up_to_a_bound() -> None:
    world = World()
    world.store.fails = True
    given = [world.figures() for _ in range(FIGURES_MAX + 1)]
    for each in given:
        await world.journal.keep(each)
    assert list(world.journal.unkept()) == given[1:]
    world.store.fails = False
    await world.journal.keep(given[0])
    assert world.store.rows == [*given[2:], given[0]]
    assert world.journal.unkept() == ()
