"""The items of a conversation, in order, as one session holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from . import wire
from .agent import Message
from .store import StoredItem

POSITION_STEP = 1 << 20  # between neighbours, so that an item can later go between two others


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


class Items:
    """Known items by id, oldest first."""

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
        part = wire.OutputText if stored.role == "assistant" else wire.InputText
        item = wire.MessageItem(
            id=stored.item_id, status=stored.status, role=stored.role, content=[part(stored.content)]
        )
        return Entry(item, stored.position, self.last_item_id, stored.message_id)

    @property
    def last_item_id(self) -> str | None:
        return self._last.item.id if self._last else None

    def next(self, item: wire.MessageItem) -> Entry:
        """An entry for the end of the conversation, not yet added."""
        position = self._last.position + POSITION_STEP if self._last else POSITION_STEP
        return Entry(item, position, self.last_item_id)

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


def within_budget(messages: Sequence[Message], chars_max: int) -> list[Message]:
    """The newest messages of at most so many characters in all; those of role system come first, then the others.

    What came before the first one that does not fit is left out with it: half a conversation may be told, but not with
    holes. The newest message is always kept.
    """
    kept, left = {id(message) for message in messages[-1:]}, chars_max - sum(len(m.text) for m in messages[-1:])
    for systems in (True, False):
        for message in reversed(messages[:-1]):
            if (message.role == "system") is systems:
                left -= len(message.text)
                if left < 0:
                    break
                kept.add(id(message))
    return [message for message in messages if id(message) in kept]
