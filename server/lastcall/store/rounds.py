"""The statements of a batch: more than one where an item follows the deletion of another one with its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from .records import ItemDeletion, StoredItem


@dataclass(frozen=True, slots=True)
class Round:
    """The items and deletions of one statement.

    spared: for each deletion, the items of its id that its session stores behind it, in this or a later statement.
    """

    items: list[StoredItem] = field(default_factory=list)
    deletions: list[ItemDeletion] = field(default_factory=list)
    spared: list[list[UUID]] = field(default_factory=list)

    def deletion_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "session_id": deletion.session_id,
                "item_id": deletion.item_id,
                "message_id": deletion.message_id,
                "spared": spared,
            }
            for deletion, spared in zip(self.deletions, self.spared, strict=True)
        ]


def in_rounds(writes: Sequence[object]) -> list[Round]:
    """The items and deletions in as few statements as keep each session's order where it matters."""
    if any(isinstance(write, ItemDeletion) for write in writes):
        return _around_deletions(writes)
    return [Round([item for write in writes if isinstance(write, tuple) for item in write])]


def _around_deletions(writes: Sequence[object]) -> list[Round]:
    rounds = [Round()]
    reached: dict[UUID, int] = {}  # by session: the number of its latest statement
    freed: dict[UUID, set[str]] = {}  # by session: the ids that it deletes there
    spared: dict[tuple[UUID, str], list[list[UUID]]] = {}  # by session and id: of each deletion so far
    for write in writes:
        if isinstance(write, ItemDeletion):
            of_this: list[UUID] = []
            rounds[reached.get(write.session_id, 0)].deletions.append(write)
            rounds[reached.get(write.session_id, 0)].spared.append(of_this)
            spared.setdefault((write.session_id, write.item_id), []).append(of_this)
            freed.setdefault(write.session_id, set()).add(write.item_id)
        elif isinstance(write, tuple):
            session_id = write[0].session_id
            if freed.get(session_id, set()) & {item.item_id for item in write}:
                reached[session_id] = reached.get(session_id, 0) + 1
                freed[session_id] = set()
                if reached[session_id] == len(rounds):
                    rounds.append(Round())
            rounds[reached.get(session_id, 0)].items.extend(write)
            for item in write:
                for before in spared.get((session_id, item.item_id), ()):
                    before.append(item.message_id)
    return rounds
