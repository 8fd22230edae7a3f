"""Conversations: their items, by page or whole, and a user's list of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from ..errors import ItemNotFound
from ..records import PAGE_BYTES_MAX, ConversationSummary, StoredHistory, StoredItem
from .connections import Queries

BEFORE_ALL = (-(1 << 63), UUID(int=0))  # position and message id
AFTER_ALL = ((1 << 63) - 1, UUID(int=(1 << 128) - 1))


class ConversationQueries(Queries):
    """The part of `Store` about conversations."""

    async def load_history(
        self, conversation_id: UUID, user_id: str, limit: int, *, bytes_max: int
    ) -> StoredHistory | None:
        rows = await self.fetch("load_history", conversation_id, user_id, limit, limit, bytes_max)
        if not rows:
            return None
        size, left_out = rows[0]["bytes"], rows[0]["left_out"]
        items = [_stored_item(row) for row in rows if row["message_id"] is not None] if size <= bytes_max else None
        return StoredHistory(items=items, older=max(len(items or ()) - limit, 0), bytes=size, left_out=left_out)

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[StoredItem] | None:
        if not await self.fetch("find_conversation", conversation_id, user_id):
            return None
        start = AFTER_ALL if older else BEFORE_ALL
        if cursor is not None:
            found = await self.fetch("find_item", conversation_id, cursor)
            if not found:
                raise ItemNotFound(cursor)
            start = tuple(found[0])
        if older:
            rows = await self.fetch("items_before", conversation_id, *start, limit, PAGE_BYTES_MAX)
        else:
            rows = await self.fetch("items_after", conversation_id, *start, limit, PAGE_BYTES_MAX)
        return [_stored_item(row) for row in rows]

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None
    ) -> Sequence[ConversationSummary] | None:
        if after is not None and not await self.fetch("find_conversation", after, user_id):
            return None
        rows = await self.fetch("list_conversations", user_id, after, limit)
        return [ConversationSummary(**row) for row in rows]


def _stored_item(row: asyncpg.Record) -> StoredItem:
    names = ("message_id", "session_id", "conversation_id", "item_id", "position", "role", "content", "status", "kind",
             "call_id", "name")  # fmt: skip
    return StoredItem(**{name: row[name] for name in names})
