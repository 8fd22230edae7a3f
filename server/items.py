"""The items of a conversation, in order, as one session holds them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from . import wire
from .agent import Message
from .store import StoredItem

POSITION_STEP = 1 << 20  # a millisecond, and the least between neighbours: an item can later go between two others


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(eq=False, slots=True)
class Entry:
    """An item with what the store needs to know of it. The same `message_id` makes storing it again harmless."""

    item: wire.MessageItem
    position: int
    previous_item_id: str | None
    message_id: UUID = field(default_factory=uuid4)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.item.content)

    def stored(self, session_id: UUID, conversation_id: UUID) -> StoredItem:
        return StoredItem(
            message_id=self.message_id,
            session_id=session_id,
            conversation_id=conversation_id,
            item_id=self.item.id,
            position=self.position,
            role=self.item.role,
            content=self.text,
            status="completed" if self.item.status == "completed" else "incomplete",
        )


def restored_item(stored: StoredItem) -> wire.MessageItem:
    """A stored item as clients see it."""
    part = wire.OutputText if stored.role == "assistant" else wire.InputText
    return wire.MessageItem(id=stored.item_id, status=stored.status, role=stored.role, content=[part(stored.content)])


class Items:
    """Known items by id, oldest first.

    Positions follow the clock, though never behind what is known here. Two sessions in one conversation do not see
    each other's new items: counted from the last known one, what is said in one after an hour would stand in the
    middle of what was said in the other meanwhile.
    """

    def __init__(self, history: Sequence[StoredItem] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._last: Entry | None = None
        for stored in history:
            self.add(self._restore(stored))

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def _restore(self, stored: StoredItem) -> Entry:
        return Entry(restored_item(stored), stored.position, self.last_item_id, stored.message_id)

    @property
    def last_item_id(self) -> str | None:
        return self._last.item.id if self._last else None

    def next(self, item: wire.MessageItem) -> Entry:
        """An entry for the end of the conversation, not yet added."""
        behind_last = (self._last.position if self._last else 0) + POSITION_STEP
        return Entry(item, max(behind_last, wall_clock_ms() * POSITION_STEP), self.last_item_id)

    def add(self, entry: Entry) -> None:
        self._entries[entry.item.id] = entry
        self._last = entry

    def messages(self) -> list[Message]:
        """What an agent should see: every item with text, the one under way left out."""
        return [
            Message(entry.item.role, entry.text, entry.item.id)
            for entry in self
            if entry.item.status != "in_progress" and entry.text
        ]
