"""The statements of a batch: more than one where an item follows the deletion of another one with its id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from .records import ItemDeletion, StoredItem, StoredResponse, StoredRow


@dataclass(frozen=True, slots=True)
class Round:
    """The items, figures of responses and deletions of one statement.

    spared: for each deletion, the items of its id that its session stores behind it, in this or a later statement.
    """

    items: list[StoredItem] = field(default_factory=list)
    responses: list[StoredResponse] = field(default_factory=list)
    deletions: list[ItemDeletion] = field(default_factory=list)
    spared: list[list[UUID]] = field(default_factory=list)

    def rows(self, now: float) -> dict[str, Any]:
        """The rows by kind. now: on Trio's clock."""
        responses = {"clock": now, "rows": self.responses} if self.responses else None
        return {"items": self.items, "responses": responses, "deletions": self._deletion_rows()}

    def _deletion_rows(self) -> list[dict[str, Any]]:
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
    rows = [row for write in writes if isinstance(write, tuple) for row in write]
    return [Round(_items(rows), _responses(rows))]


def _items(rows: Iterable[StoredRow]) -> list[StoredItem]:
    return [row for row in rows if isinstance(row, StoredItem)]


def _responses(rows: Iterable[StoredRow]) -> list[StoredResponse]:
    return [row for row in rows if isinstance(row, StoredResponse)]


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
            session_id, items = write[0].session_id, _items(write)
            if freed.get(session_id, set()) & {item.item_id for item in items}:
                reached[session_id] = reached.get(session_id, 0) + 1
                freed[session_id] = set()
                if reached[session_id] == len(rounds):
                    rounds.append(Round())
            rounds[reached.get(session_id, 0)].items.extend(items)
            rounds[0].responses.extend(_responses(write))
            for item in items:
                for before in spared.get((session_id, item.item_id), ()):
                    before.append(item.message_id)
    return rounds
