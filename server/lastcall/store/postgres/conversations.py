"""Conversations: their items, by page or whole, and a user's list of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
import trio

from ..conversations.seam import SEARCHED_CONVERSATIONS_MAX, SEARCHED_MESSAGES_MAX, ConversationSummary, ItemKey
from ..errors import ItemNotFound, StoreUnavailable
from ..records import (
    PAGE_BYTES_MAX,
    PageItem,
    StoredHistory,
    StoredItem,
)
from .connections import Queries

LOCKED_SECONDS = 3.0  # for which a rename or a deletion tries to get at locked rows
LOCKED_RETRY_SECONDS = 0.05
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
    ) -> Sequence[PageItem] | None:
        if not await self.fetch("find_conversation", conversation_id, user_id):
            return None
        start = AFTER_ALL if older else BEFORE_ALL
        if cursor is not None:
            found = await self.fetch("find_item", conversation_id, user_id, cursor)
            if not found:
                raise ItemNotFound(cursor)
            start = tuple(found[0])
        if older:
            rows = await self.fetch("items_before", conversation_id, user_id, *start, limit, PAGE_BYTES_MAX)
        else:
            rows = await self.fetch("items_after", conversation_id, user_id, *start, limit, PAGE_BYTES_MAX)
        return [PageItem(**row) for row in rows]

    async def share_conversation(self, session_id: UUID) -> bool:
        (row,) = await self.fetch("share_conversation", session_id)
        if row["outcome"] == "held":  # mostly by a commit; who asks again does so without a connection
            raise StoreUnavailable("the row of a session is locked by another transaction")
        return bool(row["outcome"] != "alone")

    async def shared_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        return [row["session_id"] for row in await self.fetch("shared_among", session_ids)]

    async def changed_items(
        self, conversation_id: UUID, user_id: str, message_ids: Sequence[UUID]
    ) -> Sequence[StoredItem]:
        rows = await self.fetch("changed_items", conversation_id, user_id, message_ids, PAGE_BYTES_MAX)
        return [_stored_item(row) for row in rows]

    async def item_keys(
        self, conversation_id: UUID, user_id: str, after: tuple[int, UUID], limit: int
    ) -> Sequence[ItemKey]:
        return [ItemKey(*row) for row in await self.fetch("item_keys", conversation_id, user_id, *after, limit)]

    async def deleted_among(self, user_id: str, message_ids: Sequence[UUID]) -> Sequence[UUID]:
        return [row["message_id"] for row in await self.fetch("deleted_among", user_id, message_ids)]

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None, search: str | None = None
    ) -> Sequence[ConversationSummary] | None:
        if after is not None and not await self.fetch("find_conversation", after, user_id):
            return None
        bounds = SEARCHED_CONVERSATIONS_MAX, SEARCHED_MESSAGES_MAX
        rows = await self.fetch("list_conversations", user_id, after, limit, search, *bounds)
        return [ConversationSummary(**row) for row in rows]

    async def rename_conversation(self, conversation_id: UUID, user_id: str, title: str | None) -> bool:
        async def rename() -> str:
            rows = await self.fetch("rename_conversation", conversation_id, user_id, title)
            return ("held" if rows[0]["held"] else "renamed") if rows else "unknown"

        return await _unless_held(rename) != "unknown"

    async def delete_conversation(self, conversation_id: UUID, user_id: str) -> bool:
        async def delete() -> str:
            return str((await self.fetch("delete_conversation", conversation_id, user_id))[0]["outcome"])

        return await _unless_held(delete) != "unknown"


async def _unless_held(write: Callable[[], Awaitable[str]]) -> str:
    """Tries again while rows are locked by another transaction: most locks are short. It waits without a connection."""
    until = trio.current_time() + LOCKED_SECONDS
    while (outcome := await write()) == "held":
        if trio.current_time() >= until:
            raise StoreUnavailable("the conversation is locked by another transaction")
        await trio.sleep(LOCKED_RETRY_SECONDS)
    return outcome


def _stored_item(row: asyncpg.Record) -> StoredItem:
    names = ("message_id", "session_id", "conversation_id", "item_id", "position", "role", "content", "status", "kind",
             "call_id", "name")  # fmt: skip
    return StoredItem(**{name: row[name] for name in names}, deleted=row.get("deleted", False))
