"""What a session writes of its conversation: each write returns once it is committed; none comes after the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config import Settings
from ..sessions.session import Session
from ..store.errors import SessionClosed
from ..store.records import ItemDeletion, StoredItem
from ..store.store import Store
from .items import ConversationEntry


class Ledger:
    """over: the session ends; nothing more is stored, and so nothing more acknowledged, by this way."""

    def __init__(self, session: Session, store: Store, settings: Settings) -> None:
        self._session = session
        self._store = store
        self._settings = settings
        self.over = False

    async def append(self, entries: Iterable[ConversationEntry]) -> None:
        """Stores all items or none. Raises `SessionClosed`, `ItemExists` and other `StoreError`s."""
        self._check()
        rows = self.rows(entries)
        if any(row.role == "user" for row in rows):
            self._session.user_spoke()  # before the commit: its outcome may stay unknown
        if rows:  # a response that failed may have none
            await self._store.append_items(rows, within=self._settings.append_seconds)

    async def delete(self, item_id: str) -> None:
        """Marks an item as deleted. Raises `SessionClosed`, `ItemNotFound` and other `StoreError`s."""
        self._check()
        deletion = ItemDeletion(self._session.session_id, item_id)
        await self._store.delete_item(deletion, within=self._settings.append_seconds)

    def rows(self, entries: Iterable[ConversationEntry]) -> Sequence[StoredItem]:
        return [entry.stored(self._session.session_id, self._session.conversation_id) for entry in entries]

    def _check(self) -> None:
        if self.over:
            raise SessionClosed("the session is over")
