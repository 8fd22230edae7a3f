"""What a client is told without having asked: stored items when it resumes, and what other sessions change."""

from __future__ import annotations

from bisect import insort_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from uuid import UUID

import structlog
import trio

from ..config import Settings
from ..limits.limit import Limit
from ..protocol import server_events
from ..protocol.errors import MEMORY_FULL, error_event
from ..sessions.changes import Missed
from ..sessions.session import Session
from ..store.conversations.seam import ItemKey
from ..store.errors import StoreError
from ..store.records import EndReason, StoredItem
from ..store.store import Store
from .rows import restored_item
from .sinks import EventSink
from .timeline import ConversationEntry, Timeline, bytes_of

READ_ITEMS_MAX = 64  # with their texts, at once
READ_KEYS_MAX = 1_000  # of items, or messages that are asked about, at once
AGAIN_SECONDS = 0.05  # until an item is read again, whose id a write of this session is about to take or has just freed
BEFORE_ALL = -(1 << 63), UUID(int=0)  # position and message id

_position = attrgetter("position")
_log = structlog.get_logger(__name__)


class Follower:
    """Tells a client of what it did not ask for, and keeps its session in step with others in the conversation.

    Nothing is told before the client's first event: one client drops what arrives earlier. Each item is told in one
    piece, so that it stands between the events of a response, and cuts none of them in two.

    forgotten: called with the id of each item that another session has deleted.
    replay: how many of the newest items the client is told.
    loaded_from: the position from which on the session has loaded all items; None: it has loaded all there were.
    """

    def __init__(
        self,
        session: Session,
        timeline: Timeline,
        store: Store,
        outbox: EventSink,
        settings: Settings,
        count: Callable[[Limit], None],
        *,
        forgotten: Callable[[str], None],
        replay: int,
        loaded_from: int | None,
    ) -> None:
        self._session = session
        self._whose = session.conversation_id, session.user_id
        self._timeline = timeline
        self._store = store
        self._outbox = outbox
        self._items_max = settings.items_max
        self._count = count
        self._forgotten = forgotten
        self._waiting: list[ConversationEntry] | None = list(timeline)[-replay:] if replay else []
        self._first_key = BEFORE_ALL if loaded_from is None else (loaded_from, BEFORE_ALL[1])
        self._begun = self._full = False
        self._reading = False
        self._deleting: str | None = None  # the id of an item whose deletion by this session is on its way
        self._freed: set[str] = set()  # ids of items that this session has deleted since the read began

    # --- what the client does

    @property
    def silent(self) -> bool:
        """Whether the client is to be told of nothing yet."""
        return self._waiting is not None

    async def begin(self) -> None:
        """The client's first event is here: it is told of what waits."""
        self._begun = True
        while self._waiting:
            self._tell(self._waiting.pop(0))
            await self._outbox.room()
        self._waiting = None

    @contextmanager
    def deleting(self, item_id: str) -> Iterator[None]:
        """The client's deletion is on its way: a read may find it done before, and must not tell of it as well."""
        self._deleting = item_id
        try:
            yield
        finally:
            self._deleting = None

    def deleted(self, item_id: str) -> None:
        """The client has deleted an item: a read that is under way may have found it before."""
        if self._reading:
            self._freed.add(item_id)

    # --- what the others do

    async def catch_up(self, missed: Missed, readers: trio.CapacityLimiter) -> None:
        """Takes over what others have stored and deleted: a `CatchUp`. Raises `StoreError`."""
        self._reading = True
        try:
            if missed is not None:
                await self._take(missed, readers)
            else:
                await self._look_at_everything(readers)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - the task's boundary: the session ends, nothing else
            _log.exception("changes_not_taken", session_id=str(self._session.session_id))
            self._session.stop(EndReason.SERVER_ERROR)
        finally:
            self._reading = False
            self._freed.clear()

    async def _look_at_everything(self, readers: trio.CapacityLimiter) -> None:
        """Looks for items that the session does not know, and for those that it knows and that are deleted."""
        key, more = self._first_key, True
        while more and not self._full and self._session.reason is None:
            async with readers:
                keys = await self._store.item_keys(*self._whose, key, READ_KEYS_MAX)
            await self._take([each.message_id for each in keys if not self._knows(each)], readers)
            more = len(keys) == READ_KEYS_MAX
            key = (keys[-1].position, keys[-1].message_id) if keys else key
        known = [entry.message_id for entry in self._timeline if not entry.pending]
        for piece in _pieces(known, READ_KEYS_MAX):
            async with readers:
                gone = await self._store.deleted_among(self._session.user_id, piece)
            await self._take(gone, readers)

    async def _take(self, message_ids: Iterable[UUID], readers: trio.CapacityLimiter) -> None:
        left = set(message_ids)
        while left:
            asked = list(left)[:READ_ITEMS_MAX]
            self._freed.clear()
            async with readers:
                rows = await self._store.changed_items(*self._whose, asked)
            if self._session.reason is not None:
                return
            # A page may end early, for its bytes. What is not there at all was removed by hand.
            left.difference_update((row.message_id for row in rows) if rows else asked)
            again = self._apply(rows)
            await self._outbox.room()
            if again:
                left.update(again)
                await trio.sleep(AGAIN_SECONDS)

    def _apply(self, rows: Sequence[StoredItem]) -> Collection[UUID]:
        """Takes over rows, in one step. Returns those that cannot be yet."""
        own = [row.message_id for row in rows if row.deleted and row.item_id == self._deleting]
        for row in rows:
            if row.deleted and row.item_id != self._deleting:
                self._remove(row)
        return own + [row.message_id for row in rows if not row.deleted and not self._add(row)]

    def _remove(self, row: StoredItem) -> None:
        entry = self._timeline.find(row.item_id)
        if entry is not None and (entry.message_id != row.message_id or not entry.known):
            return  # an item that was created under its id since
        if entry is None and (row.position >= self._first_key[0] or row.item_id in self._freed):
            return  # the client was not told of it, or knows that it is gone
        self._drop(row.item_id, entry)

    def _drop(self, item_id: str, entry: ConversationEntry | None) -> None:
        """entry: None where the session has not loaded it: its client may still have it, from a page of older items."""
        if entry is not None:
            entry.deleted = True  # where it is part of a response, it is not acknowledged any more
            self._timeline.remove(entry)
        self._forgotten(item_id)
        if self._waiting is not None and entry in self._waiting:
            self._waiting.remove(entry)
        elif self._begun:
            self._outbox.emit(server_events.ItemDeleted(item_id=item_id))

    def _add(self, row: StoredItem) -> bool:
        """Whether that is settled, one way or another."""
        if self._knows(row):
            return True
        entry = self._timeline.find(row.item_id)
        if row.item_id in (self._deleting, *self._freed) or (entry is not None and not entry.known):
            return False  # maybe deleted since it was read; or an own one is being stored, which will be refused
        if entry is not None:  # its deletion is committed, since another item has its id now
            self._drop(row.item_id, entry)
        item = restored_item(row)
        if not self._has_room(bytes_of(item)):
            return True
        entry = self._timeline.insert(item, row.position, row.message_id)
        if self._waiting is None:
            self._tell(entry)
        else:
            insort_right(self._waiting, entry, key=_position)
        return True

    def _has_room(self, size: int) -> bool:
        """Whether the session can hold one more item; where it cannot, its client is told so once."""
        is_full = len(self._timeline) >= self._items_max
        if not is_full and not self._session.memory.refuses(size):
            return True
        self._count(Limit.ITEMS if is_full else Limit.MEMORY)
        if not self._full:
            self._full = True
            reason = f"A session may hold at most {self._items_max} items." if is_full else MEMORY_FULL
            self._outbox.emit(error_event("conversation_full", f"{reason} What other sessions add is left out."))
        return False

    def _knows(self, item: StoredItem | ItemKey) -> bool:
        entry = self._timeline.find(item.item_id)
        return entry is not None and entry.message_id == item.message_id

    def _tell(self, entry: ConversationEntry) -> None:
        previous = self._timeline.known_before(entry)
        self._outbox.emit(server_events.ItemAdded(previous_item_id=previous, item=entry.item))
        self._outbox.emit(server_events.ItemDone(previous_item_id=previous, item=entry.item))


def _pieces(ids: Sequence[UUID], size: int) -> Iterable[Sequence[UUID]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))
