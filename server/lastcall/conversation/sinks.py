"""Where a response's events and items go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..protocol import server_events
from ..protocol.items import Item
from ..store.records import StoredResponse
from .journal import Journal
from .timeline import ConversationEntry, NoFreePosition, Timeline, UnknownItem


class EventSink(Protocol):
    """The client's side of the connection."""

    def emit(self, event: server_events.ServerEvent) -> None:
        """Queues an event for the client. Never blocks."""
        ...

    async def room(self) -> None:
        """Waits until a client that reads slowly has caught up."""
        ...


class ItemSink(Protocol):
    """Takes a response's items: each is reserved, announced, committed and acknowledged, in this order."""

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        """Reserves a place for an item to come, after the response's previous item if there is one."""
        ...

    def announce(self, entry: ConversationEntry) -> None:
        """Tells the client that the item exists."""
        ...

    def release(self, entry: ConversationEntry) -> None:
        """Gives back a place that was reserved but not used."""
        ...

    async def commit(self, entries: Sequence[ConversationEntry], figures: StoredResponse) -> bool:
        """Returns once the finished items are committed, and whether the figures are. Raises `StoreError`."""
        ...

    def acknowledge(self, entry: ConversationEntry) -> None:
        """Tells the client that the item is committed."""
        ...


class ConversationSink:
    """Adds a response's items to the conversation, where the response was requested, one after the other."""

    def __init__(self, timeline: Timeline, journal: Journal, outbox: EventSink) -> None:
        self._timeline = timeline
        self._journal = journal
        self._outbox = outbox

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        if after is None:
            return self._timeline.place(item)
        try:
            return self._timeline.place_behind(item, after)
        except (UnknownItem, NoFreePosition):  # the previous item was deleted, or other items fill the gap behind it
            return self._timeline.place(item)

    def announce(self, entry: ConversationEntry) -> None:
        entry.pending = True
        self._timeline.add(entry)
        self._outbox.emit(server_events.ItemAdded(previous_item_id=entry.previous_item_id, item=entry.item))

    def release(self, entry: ConversationEntry) -> None:
        self._timeline.remove(entry)

    async def commit(self, entries: Sequence[ConversationEntry], figures: StoredResponse) -> bool:
        return await self._journal.append_reply(entries, figures)

    def acknowledge(self, entry: ConversationEntry) -> None:
        if not entry.deleted:
            self._outbox.emit(server_events.ItemDone(previous_item_id=entry.previous_item_id, item=entry.item))


class OutOfBandSink:
    """Stores no items: a response outside the conversation appears only in its own events."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        return ConversationEntry(item)

    def announce(self, entry: ConversationEntry) -> None: ...

    def release(self, entry: ConversationEntry) -> None: ...

    async def commit(self, entries: Sequence[ConversationEntry], figures: StoredResponse) -> bool:
        self._journal.check_open()
        return False

    def acknowledge(self, entry: ConversationEntry) -> None: ...
