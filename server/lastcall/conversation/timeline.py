"""The timeline of a conversation: its items in order, as one session knows them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from uuid import UUID

from ..agents.agent import ContextItem, FunctionCall, FunctionOutput, Message
from ..limits.memory import text_bytes
from ..protocol.ids import new_uuid
from ..protocol.items import FunctionCallItem, FunctionCallOutputItem, Item, MessageItem
from ..store.records import StoredItem
from .rows import restored_item, row_kind, row_role

POSITION_STEP = 1 << 20  # one millisecond; leaves room to insert at least 20 items between two neighbours
ENTRY_BYTES = 1_000  # of an entry without its content: its objects, and its places in the timeline
PART_BYTES = 48  # of a part of a message's content without its text
ROOT = "root"  # the client's name for the place before all items

_position = attrgetter("position")


class NoFreePosition(Exception):
    """No position is left between two neighbours."""


class UnknownItem(Exception):
    """The timeline has no item of this id."""


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(eq=False, slots=True)
class ConversationEntry:
    """An item and what is needed to store it. Its `message_id` makes storing it twice harmless.

    known: the client has been told of it; before that it only reserves its place.
    pending: part of a response whose items are not on their way to the store yet.
    deleted: removed from the conversation while it was pending.
    ceiling: from this position on, items that this session has not loaded may stand between it and the next one; None:
        there are none.
    held: what it takes in memory, as it was counted.
    """

    item: Item
    position: int = 0
    previous_item_id: str | None = None
    message_id: UUID = field(default_factory=new_uuid)
    known: bool = False
    pending: bool = False
    deleted: bool = False
    ceiling: int | None = None
    held: int = 0
    _seen: tuple[str, ContextItem | None] | None = None  # as agents see it, in the status it had then

    @property
    def bytes(self) -> int:
        """What the entry takes in memory, about. A message of many parts also keeps their text in one piece."""
        parts = self.item.content if isinstance(self.item, MessageItem) else ()
        whole = text_bytes(self.text) if len(parts) != 1 else 0
        return ENTRY_BYTES + whole + sum(PART_BYTES + text_bytes(part.text) for part in parts)

    @property
    def text(self) -> str:
        """A message's text, a call's arguments, or an output."""
        match self.item:
            case MessageItem(content=content):
                return "".join(part.text for part in content)
            case FunctionCallItem(arguments=arguments):
                return arguments
            case FunctionCallOutputItem(output=output):
                return output

    def context(self) -> ContextItem | None:
        """The item as agents see it; None for an empty message, one in progress, or an incomplete call.

        Made once: every turn of a long conversation asks for thousands. An item changes only with its status.
        """
        if self._seen is None or self._seen[0] != self.item.status:
            self._seen = self.item.status, self._as_seen()
        return self._seen[1]

    def _as_seen(self) -> ContextItem | None:
        match self.item:
            case MessageItem(role=role, status="completed" | "incomplete") if text := self.text:
                return Message(role, text, self.item.id)
            case FunctionCallItem(status="completed") as call:
                return FunctionCall(call.name, call.arguments, call.call_id, call.id)
            case FunctionCallOutputItem(call_id=call_id, output=output):
                return FunctionOutput(call_id, output, self.item.id)
        return None

    def stored(self, session_id: UUID, conversation_id: UUID) -> StoredItem:
        """The item as a row."""
        item = self.item
        return StoredItem(
            message_id=self.message_id,
            session_id=session_id,
            conversation_id=conversation_id,
            item_id=item.id,
            position=self.position,
            role=row_role(item),
            content=self.text,
            status="completed" if item.status == "completed" else "incomplete",
            kind=row_kind(item),
            call_id=None if isinstance(item, MessageItem) else item.call_id,
            name=item.name if isinstance(item, FunctionCallItem) else None,
            deleted=self.deleted,
        )


class Timeline:
    """Items by id and in order. A place is reserved first, and its item becomes known later.

    At the end, positions follow the clock, but never go behind the last known one. Two sessions in one conversation do
    not see each other's new items: were positions counted from the last known item, what one session adds an hour
    later would be sorted into the middle of what the other has added meanwhile.

    history: stored items, oldest first. older: how many of them, from the first on, are of role system and from before
        the others, so that other items may stand behind each.
    held: called with the change of what the entries take in memory.
    """

    def __init__(
        self, history: Sequence[StoredItem] = (), held: Callable[[int], object] = int, *, older: int = 0
    ) -> None:
        self._held = held
        self._entries: dict[str, ConversationEntry] = {}
        self._order: list[ConversationEntry] = []
        self._last_position = 0
        for number, stored in enumerate(history):
            entry = ConversationEntry(restored_item(stored), stored.position, message_id=stored.message_id)
            if number < older:
                entry.ceiling = stored.position + POSITION_STEP
            self._insert(entry, len(self._order))
            self.add(entry)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ConversationEntry]:
        """The known entries, in order."""
        return (entry for entry in self._order if entry.known)

    def get(self, item_id: str) -> ConversationEntry | None:
        """The known entry of this id, or None."""
        entry = self._entries.get(item_id)
        return entry if entry is not None and entry.known else None

    def place_behind(self, item: Item, entry: ConversationEntry) -> ConversationEntry:
        """Reserves the place behind an entry. Raises `UnknownItem` where it was removed, and `NoFreePosition`."""
        if self._entries.get(entry.item.id) is not entry:  # a client may have created another one under its id
            raise UnknownItem(entry.item.id)
        return self.place(item, entry.item.id)

    def place(self, item: Item, after: str | None = None) -> ConversationEntry:
        """Reserves the place after an item, before all items (`ROOT`) or, by default, at the end.

        Synchronous, so that no two items get the same place. Raises `UnknownItem` and `NoFreePosition`.
        """
        index = self._index_after(after)
        entry = ConversationEntry(item, self._position_at(index))
        if index < len(self._order):  # at the beginning, older items that this session has not loaded follow it
            entry.ceiling = self._order[index - 1].ceiling if index else entry.position + POSITION_STEP
        self._insert(entry, index)
        return entry

    def add(self, entry: ConversationEntry) -> None:
        """Makes the item of a reserved place known."""
        entry.known = True
        entry.previous_item_id = self._known_before(self._index(entry))
        entry.context()  # now, item by item: the first turn after thousands of them would make all of them at once

    def remove(self, entry: ConversationEntry) -> None:
        """Removes an item or a reserved place. Its position is not used again at the end."""
        del self._order[self._index(entry)]
        del self._entries[entry.item.id]
        self._held(-entry.held)

    def weigh(self, entry: ConversationEntry) -> None:
        """Counts what the entry takes in memory now; for one that has grown. Ignored where it was removed."""
        if self._entries.get(entry.item.id) is entry:
            before, entry.held = entry.held, entry.bytes
            self._held(entry.held - before)

    def context(self) -> list[ContextItem]:
        """The items as agents see them."""
        return [seen for entry in self if (seen := entry.context()) is not None]

    def _insert(self, entry: ConversationEntry, index: int) -> None:
        self._order.insert(index, entry)
        self._entries[entry.item.id] = entry
        self.weigh(entry)
        self._last_position = max(self._last_position, entry.position)

    def _index(self, entry: ConversationEntry) -> int:
        # Items that two sessions of one conversation insert at the same time may share a position.
        index = bisect_left(self._order, entry.position, key=_position)
        while self._order[index] is not entry:
            index += 1
        return index

    def _index_after(self, item_id: str | None) -> int:
        if item_id == ROOT:
            return 0
        if item_id is None:
            return len(self._order)
        if item_id not in self._entries:
            raise UnknownItem(item_id)
        return self._index(self._entries[item_id]) + 1

    def _position_at(self, index: int) -> int:
        if index == len(self._order):
            return max(self._last_position + POSITION_STEP, wall_clock_ms() * POSITION_STEP)
        after = self._order[index].position
        if index == 0:  # also before older items that this session has not loaded
            return min(after, POSITION_STEP) - POSITION_STEP
        before, ceiling = self._order[index - 1].position, self._order[index - 1].ceiling
        if ceiling is not None:  # in the middle, it could stand behind items that this session has not loaded
            after = min(after, ceiling)
        if after - before < 2:
            raise NoFreePosition
        return (before + after) // 2

    def _known_before(self, index: int) -> str | None:
        while index > 0 and not self._order[index - 1].known:
            index -= 1
        return self._order[index - 1].item.id if index else None
