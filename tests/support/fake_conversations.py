"""The fake's statements on conversations."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from lastcall.store.conversations.seam import (
    SEARCHED_CONVERSATIONS_MAX,
    SEARCHED_MESSAGES_MAX,
    ConversationSummary,
    ItemKey,
)
from lastcall.store.errors import ItemNotFound
from lastcall.store.records import (
    PAGE_BYTES_MAX,
    PageItem,
    StoredHistory,
    StoredItem,
)
from msgspec.structs import asdict, replace

from .fake_rows import check_text
from .fake_tables import FakeTables, newest

LEFT_SECONDS = 5.0  # as in the schema's share_conversation


class FakeConversations(FakeTables):
    """Conversations: their items, by page or whole, and a user's list of them."""

    def _load_history(self, conversation_id: UUID, user_id: str, limit: int, bytes_max: int) -> StoredHistory | None:
        if not self._owns(user_id, conversation_id):
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
    ) -> Sequence[PageItem] | None:
        check_text(cursor or "")
        if not self._owns(user_id, conversation_id):
            return None
        items = self.items(conversation_id)
        ids = [item.item_id for item in items]
        if cursor is not None:
            if cursor not in ids:
                raise ItemNotFound(cursor)
            at = max((not item.deleted, at) for at, item in enumerate(items) if item.item_id == cursor)[1]
            items = items[:at] if older else items[at + 1 :]
        left = [item for item in items if not item.deleted]
        page = _within_bytes(left[::-1][:limit] if older else left[:limit])
        return [PageItem(**asdict(item), stored_at=self.stored_at[item.message_id]) for item in page]

    def _share(self, session_id: UUID) -> bool:
        me = self.sessions[session_id]
        these = [s for s in self.sessions.values() if s.is_active and s.conversation_id == me.conversation_id]
        if len(these) == 1:
            left = [s for s in self.sessions.values() if s is not me and s.conversation_id == me.conversation_id]
            return any((s.ended_at or 0.0) >= me.session_start - LEFT_SECONDS for s in left)
        fresh = [session for session in these if not session.shared]
        for session in fresh:
            session.shared = True
        for session in these if fresh else ():
            if session is not me:
                self._notify_of_changes(session, None)
        return True

    def _is_shared(self, session_id: UUID) -> bool:
        return self._is_active(session_id) and self.sessions[session_id].shared

    def _changed_items(self, conversation_id: UUID, user_id: str, message_ids: Sequence[UUID]) -> Sequence[StoredItem]:
        items = [item for item in self._items_of(conversation_id, user_id) if item.message_id in message_ids]
        return _within_bytes([replace(item, content="") if item.deleted else item for item in items])

    def _item_keys(self, conversation_id: UUID, user_id: str, after: tuple[int, UUID], limit: int) -> Sequence[ItemKey]:
        items = [item for item in self._items_of(conversation_id, user_id) if not item.deleted]
        keys = [ItemKey(item.position, item.message_id, item.item_id) for item in items]
        return [key for key in keys if key[:2] > after][:limit]

    def _deleted_among(self, user_id: str, message_ids: Sequence[UUID]) -> Sequence[UUID]:
        found = [self.messages[key] for key in message_ids if key in self.messages]
        return [item.message_id for item in found if item.deleted and self._owns(user_id, item.conversation_id)]

    def _items_of(self, conversation_id: UUID, user_id: str) -> Sequence[StoredItem]:
        return self.items(conversation_id) if self._owns(user_id, conversation_id) else []

    def _list_conversations(
        self, user_id: str, limit: int, after: UUID | None, search: str | None
    ) -> Sequence[ConversationSummary] | None:
        check_text(search or "")
        theirs = [key for key in self.conversations if self._owns(user_id, key)][::-1]
        if after is not None and after not in theirs:
            return None
        following = theirs[0 if after is None else theirs.index(after) + 1 :]
        if search is not None:
            following = [key for key in following[:SEARCHED_CONVERSATIONS_MAX] if self._mentions(key, search.lower())]
        return [self._summary(key) for key in following[:limit]]

    def _rename(self, conversation_id: UUID, user_id: str, title: str | None) -> bool:
        check_text(title or "")
        if not self._owns(user_id, conversation_id):
            return False
        self.titles[conversation_id] = title
        return True

    def _delete_conversation(self, conversation_id: UUID, user_id: str) -> bool:
        if not self._owns(user_id, conversation_id):
            return False
        for session in self.sessions.values():
            if session.conversation_id == conversation_id and session.is_active:
                self.close_by_hand(session.session_id)
        for item in self.items(conversation_id):
            self._mark_deleted(item)
        self.deleted_conversations.add(conversation_id)
        return True

    def _owns(self, user_id: str, conversation_id: UUID) -> bool:
        return self.conversations.get(conversation_id) == user_id and conversation_id not in self.deleted_conversations

    def _mentions(self, conversation_id: UUID, words: str) -> bool:
        said = [each.content for each in self.items(conversation_id) if each.kind == "message" and not each.deleted]
        title = self._summary(conversation_id).title or ""
        return any(words in text.lower() for text in (title, *newest(said, SEARCHED_MESSAGES_MAX)))

    def _summary(self, conversation_id: UUID) -> ConversationSummary:
        created_at = self.created_at[conversation_id]
        items = self.items(conversation_id)
        last_active_at = self.stored_at[items[-1].message_id] if items else created_at
        first = next((each.content for each in items if each.role == "user" and not each.deleted), "")
        title = self.titles.get(conversation_id) or " ".join(first[:500].split())[:80] or None
        return ConversationSummary(conversation_id, created_at, title, last_active_at)


def _bytes(item: StoredItem) -> int:
    return len(item.content.encode())


def _within_bytes(items: Sequence[StoredItem]) -> Sequence[StoredItem]:
    page, left = [], PAGE_BYTES_MAX
    for item in items:
        if left >= 0:
            page.append(item)
        left -= _bytes(item)
    return page
