"""What a session writes of its conversation: within its quota, and never after its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import structlog

from ..config import Settings
from ..limits.limit import Limit
from ..protocol.client_events import ClientEvent, ItemCreate
from ..protocol.errors import MEMORY_FULL
from ..protocol.items import Item
from ..sessions.session import Session
from ..store.errors import InvalidRow, ItemNotFound, SessionClosed, StoreError
from ..store.records import ItemDeletion, StoredResponse, StoredRow
from ..store.store import Store
from .rows import row_role
from .timeline import ConversationEntry, Timeline, bytes_of, text_of
from .validation import refusal

FIGURES_MAX = 64  # of responses, that wait for a commit while the database is away; older ones are lost

_log = structlog.get_logger(__name__)


class Journal:
    """The writes of one session. Each returns once it is committed.

    The quota counts the characters that this session adds; history has a limit of its own. Deleting an item gives
    nothing back, because the transcript keeps it.

    closed: the session has ended; nothing more is stored through the journal, and so nothing more is acknowledged.
    count: counts refusals per limit.
    """

    def __init__(
        self, session: Session, timeline: Timeline, store: Store, settings: Settings, count: Callable[[Limit], None]
    ) -> None:
        self._session = session
        self._timeline = timeline
        self._store = store
        self._settings = settings
        self._count = count
        self._chars = 0
        self._waiting: deque[StoredResponse] = deque(maxlen=FIGURES_MAX)
        self._unstored_deleted: list[ConversationEntry] = []  # of the active response, so at most OUTPUT_ITEMS_MAX
        self.closed = False

    def check_memory(self, event: ClientEvent, size: int = 0) -> None:
        """Raises `EventRejected` if the session may not hold so many bytes more."""
        if self._session.memory.refuses(size):
            self._count(Limit.MEMORY)
            raise refusal(event, "conversation_full", MEMORY_FULL)

    def check_quota(self, event: ClientEvent, chars: int = 0, size: int = 0) -> None:
        """Raises `EventRejected` if the conversation cannot take one more item of this many characters and bytes."""
        settings = self._settings
        self.check_memory(event, size)
        if len(self._timeline) >= settings.items_max:
            self._count(Limit.ITEMS)
            raise refusal(event, "conversation_full", f"A session may hold at most {settings.items_max} items.")
        if self._chars + chars > settings.conversation_chars_max:
            self._count(Limit.ITEMS)
            message = f"A session may add at most {settings.conversation_chars_max} characters."
            raise refusal(event, "conversation_full", message)

    async def append(self, event: ItemCreate, item: Item) -> ConversationEntry:
        """Adds a client's item to the conversation: checks the quota, reserves a place, and stores the item.

        Raises `EventRejected` where the quota is used up, `UnknownItem` or `NoFreePosition` where there is no such
        place, and `SessionClosed`, `ItemExists` or another `StoreError` where the item is not stored.
        """
        chars = len(text_of(item))
        self.check_quota(event, chars, bytes_of(item))
        # Reserved before the commit: a response that adds items meanwhile must not take the same position.
        entry = self._timeline.place(item, event.previous_item_id)
        try:
            await self._store_items([entry])
            self._timeline.add(entry)
            self._chars += chars
        finally:
            if not entry.known:
                self._timeline.remove(entry)
        return entry

    async def append_reply(self, entries: Sequence[ConversationEntry], figures: StoredResponse) -> bool:
        """Stores a response's items, all or none. They are in the timeline already; the quota was checked at its start.

        Returns whether its figures are stored too: without items there is no commit that they could go with.

        Raises `SessionClosed` and other `StoreError`s.
        """
        # Counted even where the commit fails: the items stay in the agent's context.
        self._chars += sum(len(entry.text) for entry in entries)
        for entry in entries:
            entry.pending = False  # from here on, a deletion is a write behind this one
            self._timeline.weigh(entry)
        await self._store_items(entries, figures)
        return bool(entries)

    async def keep(self, figures: StoredResponse) -> None:
        """Stores figures that went with no items. In an outage they wait for the next ones, or for the session's end.

        Once the session is closed there is nothing to do: what was running is taken with its end.
        """
        if self.closed:
            return
        self._waiting.append(figures)
        rows = tuple(self._waiting)
        try:
            await self._store.append_items(rows, within=self._settings.append_seconds)
        except InvalidRow as error:
            _log.error("figures_refused", error=str(error))
        except StoreError as error:
            _log.warning("figures_not_stored", error=str(error))
            return
        for row in rows:
            if row in self._waiting:  # not where the session has ended meanwhile
                self._waiting.remove(row)

    def unkept(self) -> Sequence[StoredResponse]:
        """The figures that wait for a commit, or are in one."""
        return tuple(self._waiting)

    async def delete(self, item_id: str) -> None:
        """Removes an item from the conversation, and marks it as deleted.

        Raises `ItemNotFound`, `SessionClosed` and other `StoreError`s, and then has removed nothing.
        """
        entry = self._timeline.get(item_id)
        if entry is not None and entry.pending:
            entry.deleted = True  # its response goes on, and stores it as deleted
            self._unstored_deleted = [each for each in self._unstored_deleted if each.pending] + [entry]
        elif entry is not None or not self._is_deleted_unstored(item_id):
            await self._mark_deleted(item_id, entry)
            entry = self._timeline.get(item_id)  # another session may have edited it meanwhile: that is deleted too
        if entry is not None:
            self._timeline.remove(entry)

    def _is_deleted_unstored(self, item_id: str) -> bool:
        """Whether this deletes an item again that its response has not stored yet: no error, as for a stored one."""
        return any(each.pending and each.item.id == item_id for each in self._unstored_deleted)

    async def _mark_deleted(self, item_id: str, entry: ConversationEntry | None) -> None:
        self.check_open()
        if "\0" in item_id:
            raise ItemNotFound(item_id)
        deletion = ItemDeletion(self._session.session_id, item_id, entry.message_id if entry is not None else None)
        try:
            await self._store.delete_item(deletion, within=self._settings.append_seconds)
        except ItemNotFound:
            if entry is None:  # else a reply that could not be stored: only the context has it
                raise

    def check_open(self) -> None:
        """Raises `SessionClosed` once the session has ended."""
        if self.closed:
            raise SessionClosed("the session is over")

    def rows(self, entries: Sequence[ConversationEntry], figures: StoredResponse | None = None) -> list[StoredRow]:
        """The entries, and the figures of the response that they are of, as rows of this session."""
        ids = self._session.session_id, self._session.conversation_id
        rows: list[StoredRow] = [entry.stored(*ids) for entry in entries]
        return rows if figures is None else [*rows, figures]

    async def _store_items(self, entries: Sequence[ConversationEntry], figures: StoredResponse | None = None) -> None:
        self.check_open()
        if not self._session.spoke and any(row_role(entry.item) == "user" for entry in entries):
            self._session.user_spoke()  # before the commit: its outcome may stay unknown
        if entries:  # a failed response may have none
            await self._store.append_items(self.rows(entries, figures), within=self._settings.append_seconds)
