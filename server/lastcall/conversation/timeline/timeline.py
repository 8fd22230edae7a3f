"""The timeline of a conversation: its items in order, as one session knows them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from operator import attrgetter
from uuid import UUID

from ...protocol.items import Item
from ...store.records import StoredItem
from ..rows import restored_item
from .context import Context, KeptContext
from .entry import ConversationEntry

POSITION_STEP = 1 << 20  # one millisecond; leaves room to insert at least 20 items between two neighbours
ROOT = "root"  # the client's name for the place before all items

_position = attrgetter("position")


class NoFreePosition(Exception):
    """No position is left between two neighbours."""


class UnknownItem(Exception):
    """The timeline has no item of this id."""


def wall_clock_ms() -> float:
    """Milliseconds since 1970, and their fraction: two sessions that say something at once hardly share a position."""
    return time.time_ns() / 1_000_000


class Timeline:
    """Items by id and in order. A place is reserved first, and its item becomes known later.

    At the end, positions follow the clock, but never go behind the last known one. Two sessions in one conversation see
    each other's new items only a moment later: were positions counted from the last known item, what one session adds
    could be sorted into the middle of what the other has added meanwhile.

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
        self._context = KeptContext()
        self._unsettled: list[ConversationEntry] = []  # those of the latest response, which changes their status
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

    def find(self, item_id: str) -> ConversationEntry | None:
        """The entry of this id, also where its place is only reserved, or None."""
        return self._entries.get(item_id)

    def insert(self, item: Item, position: int, message_id: UUID) -> ConversationEntry:
        """Makes an item known that another session has stored, at its position. No other entry may have its id."""
        entry = ConversationEntry(item, position, message_id=message_id)
        index = bisect_left(self._order, position, key=_position)
        tied = [*takewhile(lambda each: each.position == position, self._order[index:])]
        index += sum(each.message_id < message_id for each in tied)  # as the database orders them
        before = self._order[index - 1] if index else None
        if before is not None and before.ceiling is not None and position < before.ceiling:
            entry.ceiling = before.ceiling
        elif index < len(self._order) and (before is None or before.ceiling is not None):
            entry.ceiling = position + POSITION_STEP  # items that this session has not loaded may follow it
        self._insert(entry, index)
        self.add(entry)
        for each in tied:
            if each.message_id > message_id and each.shown is not None:
                self._context.remove(position, each.shown)
                self._context.put(position, each.shown)
        return entry

    def known_before(self, entry: ConversationEntry) -> str | None:
        """The id of the known item before an entry's, or None."""
        return self._known_before(self._index(entry))

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
        self._show(entry)
        if entry.pending or entry.item.status == "in_progress":
            self._settle()
            self._unsettled.append(entry)

    def remove(self, entry: ConversationEntry) -> None:
        """Removes an item or a reserved place. Its position is not used again at the end."""
        if self._entries.get(entry.item.id) is not entry:  # another session has deleted it meanwhile
            return
        del self._order[self._index(entry)]
        del self._entries[entry.item.id]
        self._held(-entry.held)
        if entry.shown is not None:
            self._context.remove(entry.position, entry.shown)
        if entry in self._unsettled:
            self._unsettled.remove(entry)

    def weigh(self, entry: ConversationEntry) -> None:
        """Counts what the entry takes in memory now; for one that has grown. Ignored where it was removed."""
        if self._entries.get(entry.item.id) is entry:
            before, entry.held = entry.held, entry.bytes
            self._held(entry.held - before)

    def context(self) -> Context:
        """The known items as agents see them."""
        for entry in self._unsettled:
            self._show(entry)
        return self._context.context()

    def _show(self, entry: ConversationEntry) -> None:
        """Has the context show a known entry as it is now."""
        seen = entry.context()
        if seen is entry.shown:
            return
        if entry.shown is not None:
            self._context.remove(entry.position, entry.shown)
        entry.shown = seen
        if seen is not None:
            self._context.put(entry.position, seen)

    def _settle(self) -> None:
        """Forgets the entries of a response that is over: its last change of their status was before the next one."""
        for entry in self._unsettled:
            self._show(entry)
        self._unsettled = [each for each in self._unsettled if each.pending or each.item.status == "in_progress"]

    def _insert(self, entry: ConversationEntry, index: int) -> None:
        self._order.insert(index, entry)
        self._entries[entry.item.id] = entry
        self.weigh(entry)
        self._last_position = max(self._last_position, entry.position)

    def _index(self, entry: ConversationEntry) -> int:
        if self._order[-1] is entry:  # mostly, and to search takes as long as all else here
            return len(self._order) - 1
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
            return max(self._last_position + POSITION_STEP, int(wall_clock_ms() * POSITION_STEP))
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
