"""The fake's statements on conversations."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from lastcall.store.errors import ItemNotFound
from lastcall.store.records import PAGE_BYTES_MAX, ConversationSummary, StoredHistory, StoredItem

from .fake_rows import check_text
from .fake_tables import FakeTables, newest


class FakeConversations(FakeTables):
    """Conversations: their items, by page or whole, and a user's list of them."""

    def _load_history(self, conversation_id: UUID, user_id: str, limit: int, bytes_max: int) -> StoredHistory | None:
        if self.conversations.get(conversation_id) != user_id:
            return None
        kept = [item for item in self.items(conversation_id) if not item.deleted]
        last = newest(kept, limit)
        older = [item for item in kept[: len(kept) - len(last)] if item.role == "system"]
        items = [*newest(older, limit), *last]
        size = sum(_bytes(item) for item in items)
        return StoredHistory(
            items=items if size <= bytes_max else None,
            older=len(items) - len(last) if size <= bytes_max else 0,
            bytes=size,
            left_out=len(older) > limit,
        )

    def _page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None
    ) -> Sequence[StoredItem] | None:
        check_text(cursor or "")
        if self.conversations.get(conversation_id) != user_id:
            return None
        items = self.items(conversation_id)
        ids = [item.item_id for item in items]
        if cursor is not None:
            if cursor not in ids:
                raise ItemNotFound(cursor)
            at = max((not item.deleted, at) for at, item in enumerate(items) if item.item_id == cursor)[1]
            items = items[:at] if older else items[at + 1 :]
        left = [item for item in items if not item.deleted]
        return _within_bytes(left[::-1][:limit] if older else left[:limit])

    def _list_conversations(self, user_id: str, limit: int, after: UUID | None) -> Sequence[ConversationSummary] | None:
        theirs = [key for key, owner in self.conversations.items() if owner == user_id][::-1]
        if after is not None and after not in theirs:
            return None
        first = 0 if after is None else theirs.index(after) + 1
        return [self._summary(key) for key in theirs[first : first + limit]]

    def _summary(self, conversation_id: UUID) -> ConversationSummary:
        created_at = self.created_at[conversation_id]
        items = self.items(conversation_id)
        last_active_at = self.stored_at[items[-1].message_id] if items else created_at
        return ConversationSummary(conversation_id, created_at, None, last_active_at)


def _bytes(item: StoredItem) -> int:
    return len(item.content.encode())


def _within_bytes(items: Sequence[StoredItem]) -> Sequence[StoredItem]:
    page, left = [], PAGE_BYTES_MAX
    for item in items:
        if left >= 0:
            page.append(item)
        left -= _bytes(item)
    return page
