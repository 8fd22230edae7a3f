"""The items of a conversation as agents see them, kept as they come and go: a turn only copies them. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from msgspec import Struct

from ...agents.agent import ContextItem, FunctionCall, FunctionOutput, Message
from ...agents.window import chars_of
from ...limits.memory import text_bytes


class Context(Struct, frozen=True):
    """What one turn is given.

    messages: the items that are messages. chars: of all items, as `agents.window` counts them. bytes: what their texts
    take in memory.
    """

    items: list[ContextItem]
    messages: list[Message]
    chars: int
    bytes: int

    @classmethod
    def of(cls, items: Iterable[ContextItem]) -> Context:
        """Made from nothing but the items, which `KeptContext` need not do."""
        listed = list(items)
        messages = [item for item in listed if isinstance(item, Message)]
        return cls(listed, messages, sum(map(chars_of, listed)), sum(map(_bytes, listed)))


class KeptContext:
    """The items by their positions. Each change costs as much as a search, however many items there are."""

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._items: list[ContextItem] = []
        self._message_positions: list[int] = []
        self._messages: list[Message] = []
        self._chars = self._bytes = 0

    def put(self, position: int, item: ContextItem) -> None:
        """Puts an item behind those of lower positions, and of the same one: restored items may share one, in order."""
        index = bisect_right(self._positions, position)
        self._positions.insert(index, position)
        self._items.insert(index, item)
        if isinstance(item, Message):
            message_index = bisect_right(self._message_positions, position)
            self._message_positions.insert(message_index, position)
            self._messages.insert(message_index, item)
        self._chars += chars_of(item)
        self._bytes += _bytes(item)

    def remove(self, position: int, item: ContextItem) -> None:
        """Removes an item from the position that it was put at."""
        _remove(self._positions, self._items, position, item)
        if isinstance(item, Message):
            _remove(self._message_positions, self._messages, position, item)
        self._chars -= chars_of(item)
        self._bytes -= _bytes(item)

    def context(self) -> Context:
        """The items as they are now. Copies: an agent may keep its turn, or change it."""
        return Context(self._items.copy(), self._messages.copy(), self._chars, self._bytes)


def _remove(positions: list[int], items: list[ContextItem] | list[Message], position: int, item: ContextItem) -> None:
    index = bisect_left(positions, position)
    while items[index] is not item:  # some may share the position
        index += 1
    del positions[index], items[index]


def _bytes(item: ContextItem) -> int:
    match item:
        case Message(text=text) | FunctionCall(arguments=text) | FunctionOutput(output=text):
            return text_bytes(text)
