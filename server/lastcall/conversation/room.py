"""How much one session's conversation takes, and how much of it an agent is given. Counts what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..agents.agent import ContextItem
from ..agents.window import within_budget
from ..config import Settings
from ..limits.limit import Limit
from ..protocol.client_events import ClientEvent
from .items import ConversationEntry, Items
from .validation import refusal


class Room:
    """One session's. Its characters are those that this session brought: the history has its own limit."""

    def __init__(self, items: Items, settings: Settings, count: Callable[[Limit], None]) -> None:
        self._items = items
        self._settings = settings
        self._count = count
        self._chars = 0

    def check(self, event: ClientEvent, chars: int = 0) -> None:
        """Whether the conversation takes one more item, of so many characters. Raises `EventRejected`."""
        settings = self._settings
        if len(self._items) >= settings.items_max:
            self._count(Limit.ITEMS)
            raise refusal(event, "conversation_full", f"A session may hold at most {settings.items_max} items.")
        if self._chars + chars > settings.conversation_chars_max:
            self._count(Limit.ITEMS)
            message = f"A session may add at most {settings.conversation_chars_max} characters."
            raise refusal(event, "conversation_full", message)

    def take(self, entries: Iterable[ConversationEntry]) -> None:
        """Items that are there now. None is ever given back: the transcript keeps what is deleted too."""
        self._chars += sum(len(entry.text) for entry in entries)

    def within_budget(self, items: Sequence[ContextItem]) -> Sequence[ContextItem]:
        """What the agent is given of a context."""
        kept = within_budget(items, self._settings.context_chars_max)
        if len(kept) < len(items):
            self._count(Limit.CONTEXT)
        return kept
