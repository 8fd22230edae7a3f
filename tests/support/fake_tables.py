"""The fake's tables, and the statements on instances, sessions and items: synchronous, idempotent, all or nothing.

They do what `schema.sql` and `queries.sql` promise of one statement. How a statement gets here, or fails to, is in
fake_store.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import trio
from lastcall.store.errors import (
    CredentialRevoked,
    InstanceGone,
    InvalidRow,
    ItemExists,
    ItemNotFound,
    SessionClosed,
    StoreError,
    StoreUnavailable,
)
from lastcall.store.records import (
    EVIDENCE_SECONDS,
    EndReason,
    Instance,
    ItemDeletion,
    SessionEnd,
    SessionStart,
    StoredItem,
    StoredResponse,
    StoredRow,
    Suspect,
)
from msgspec.structs import replace

from .fake_rows import (
    USER_CHARS,
    CredentialRecord,
    InstanceRecord,
    MemoryRecord,
    SessionRecord,
    check_item,
    check_text,
)

if TYPE_CHECKING:
    from .fake_store import FakeLeaseConnection

T = TypeVar("T")

REAP_ROWS_MAX = 5_000  # per call


class FakeTables:
    """All rows, and the open lease connection of each instance (`guards`)."""

    def __init__(self) -> None:
        self.instances: dict[UUID, InstanceRecord] = {}
        self.guards: dict[UUID, FakeLeaseConnection] = {}
        self.conversations: dict[UUID, str] = {}
        self.created_at: dict[UUID, float] = {}  # by conversation
        self.titles: dict[UUID, str | None] = {}  # by conversation; given by hand
        self.deleted_conversations: set[UUID] = set()
        self.sessions: dict[UUID, SessionRecord] = {}
        self.messages: dict[UUID, StoredItem] = {}
        self.stored_at: dict[UUID, float] = {}  # by message
        self.message_ids: dict[tuple[UUID, str], UUID] = {}  # by conversation and item; not of deleted ones
        self.deleted_ids: set[tuple[UUID, str]] = set()  # the conversations and items of deleted ones
        self.ids_in_session: dict[UUID, list[UUID]] = {}  # of its messages
        self.ids_in_conversation: dict[UUID, list[UUID]] = {}
        self.responses: dict[str, StoredResponse] = {}
        self.closings: list[SessionRecord] = []  # a row that is closed twice is in it twice
        self.credentials: dict[UUID, CredentialRecord] = {}
        self.memories: dict[tuple[str, str, str], MemoryRecord] = {}
        self._memories_made = 0

    # --- for tests: reading, and acting as somebody else

    def items(self, conversation_id: UUID) -> list[StoredItem]:
        """The conversation's items, in order, deleted ones included."""
        return in_order(self.messages[key] for key in self.ids_in_conversation.get(conversation_id, ()))

    def said_in(self, session_id: UUID) -> Iterator[StoredItem]:
        """The session's items, in the order in which they were stored, deleted ones included."""
        return (self.messages[key] for key in self.ids_in_session.get(session_id, ()))

    def close_by_hand(self, session_id: UUID) -> None:
        """Closes an active row as a person in psql would."""
        self._close(self.sessions[session_id], trio.current_time(), EndReason.BY_HAND, None, None)

    def erase(self, user_id: str) -> None:
        """Deletes all rows of a user in one transaction, as an operator would."""
        theirs = [session for session in self.sessions.values() if session.user_id == user_id]
        for session in theirs:
            for message_id in self.ids_in_session.pop(session.session_id, ()):
                item = self.messages.pop(message_id)
                del self.stored_at[message_id]
                self.message_ids.pop((item.conversation_id, item.item_id), None)
                self.deleted_ids.discard((item.conversation_id, item.item_id))
            del self.sessions[session.session_id]
            self.responses = {key: row for key, row in self.responses.items() if row.session_id in self.sessions}
            if session.is_active:
                self._notify(session)
        for key in [key for key, owner in self.conversations.items() if owner == user_id]:
            del self.conversations[key], self.created_at[key]
            self.ids_in_conversation.pop(key, None)
            self.titles.pop(key, None)
            self.deleted_conversations.discard(key)
        self.memories = {key: memory for key, memory in self.memories.items() if key[0] != user_id}

    def declare_dead(self, instance_id: UUID) -> None:
        """Marks an instance as dead as another server would."""
        self.instances[instance_id].reaped_at = trio.current_time()

    # --- instances

    def _register(self, instance: Instance) -> None:
        now = trio.current_time()
        record = InstanceRecord(instance=instance, heartbeat_at=now)
        self.instances.setdefault(instance.instance_id, record)

    def _renew(self, instance_id: UUID) -> bool:
        record, now = self.instances[instance_id], trio.current_time()
        if record.gone:
            return False
        record.heartbeat_at = now
        return True

    def _suspects(self, instance_id: UUID | None) -> Sequence[Suspect]:
        if instance_id is not None and self.instances[instance_id].gone:
            return []
        owners = {s.instance_id for s in self.sessions.values() if s.is_active and s.instance_id is not None}
        silent = {key for key, record in self.instances.items() if not record.gone and self._seems_silent(record)}
        others = [(key, self.instances[key]) for key in sorted(owners | silent) if key != instance_id]
        return [self._suspect(key, record) for key, record in others]

    def _seems_silent(self, record: InstanceRecord) -> bool:
        return record.heartbeat_at < trio.current_time() - record.instance.lease_seconds

    def _suspect(self, key: UUID, record: InstanceRecord) -> Suspect:
        return Suspect(
            instance_id=key,
            host_id=record.instance.host_id,
            pid=record.instance.pid,
            process_started=record.instance.process_started,
            lease_seconds=record.instance.lease_seconds,
            gone=record.gone,
            guard_gone=record.guarded and key not in self.guards,
            heartbeat=record.heartbeat_at,
        )

    def _closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID]) -> Sequence[UUID]:
        closed = [key for key in session_ids if key in self.sessions and not self.sessions[key].is_active]
        return closed + [key for key in stored if key not in self.sessions]

    def _reap(self, suspect: Suspect, judge: UUID) -> int:
        record = self.instances[suspect.instance_id]
        if record.heartbeat_at != suspect.heartbeat:
            return 0
        if record.reaped_at is None:
            record.reaped_at = trio.current_time()
        theirs = self._active_of(suspect.instance_id)[:REAP_ROWS_MAX]
        for session in theirs:
            ended = max(record.heartbeat_at, self._evidence(session, record.heartbeat_at))
            self._close(session, ended, EndReason.OWNER_DIED, None, judge)
        return len(theirs)

    def _evidence(self, session: SessionRecord, heartbeat_at: float) -> float:
        """When a session stored its last item, but not later than its owner can have been alive."""
        return min(self._last_stored(session, heartbeat_at), heartbeat_at + EVIDENCE_SECONDS)

    def _last_stored(self, session: SessionRecord, default: float) -> float:
        """When its last item was stored."""
        return max((self.stored_at[key] for key in self.ids_in_session.get(session.session_id, ())), default=default)

    def _stop(self, instance_id: UUID) -> None:
        instance = self.instances.get(instance_id)
        if instance is not None and not instance.gone:
            instance.stopped_at = trio.current_time()

    def _active_of(self, instance_id: UUID) -> list[SessionRecord]:
        return [s for s in self.sessions.values() if s.is_active and s.instance_id == instance_id]

    def _close_all_of(self, instance_id: UUID, unfinished: Iterable[StoredRow], ended: float) -> Collection[UUID]:
        ends = [(session, max(ended, self._last_stored(session, ended))) for session in self._active_of(instance_id)]
        self._append_what_is_valid(unfinished)
        for session, last in ends:
            self._close(session, last, EndReason.SHUTDOWN, 1012, instance_id)
        return [session.session_id for session, _ in ends]

    # --- sessions and their items

    def _begin(self, start: SessionStart) -> bool:
        if start.session_id in self.sessions:
            return True
        check_text(start.user_id, USER_CHARS)
        if start.instance_id not in self.instances or self.instances[start.instance_id].gone:
            raise InstanceGone("the instance was declared dead")
        if start.credential_id is not None and not self._may_begin(start.credential_id):
            raise CredentialRevoked("the key or client secret was revoked")
        if start.started > trio.current_time():
            raise InvalidRow("a session cannot start in the future")
        if self.conversations.get(start.conversation_id, start.user_id) != start.user_id:
            raise InvalidRow("the conversation is another user's")
        if start.conversation_id in self.deleted_conversations:
            raise StoreUnavailable("the conversation was deleted")
        self.conversations[start.conversation_id] = start.user_id
        self.created_at.setdefault(start.conversation_id, trio.current_time())
        self.sessions[start.session_id] = SessionRecord(
            session_id=start.session_id,
            conversation_id=start.conversation_id,
            user_id=start.user_id,
            instance_id=start.instance_id,
            session_start=start.started,
            credential_id=start.credential_id,
        )
        return True

    def _may_begin(self, credential_id: UUID) -> bool:
        record = self.credentials.get(credential_id)
        return record is not None and not record.revoked

    def _append(self, rows: Sequence[StoredRow]) -> bool:
        """Figures are stored for sessions that have ended too."""
        items = [row for row in rows if isinstance(row, StoredItem)]
        figures = [row for row in rows if isinstance(row, StoredResponse) and row.session_id in self.sessions]
        try:
            self._append_items(items)
        except SessionClosed:
            self.responses = {row.response_id: row for row in figures} | self.responses
            raise
        self.responses = {row.response_id: row for row in figures} | self.responses
        return True

    def _append_items(self, items: Sequence[StoredItem]) -> None:
        fresh: dict[UUID, StoredItem] = {}
        taken: set[tuple[UUID, str]] = set()
        for item in items:
            check_item(item)
            if not self._is_active(item.session_id):
                raise SessionClosed("the session's row is closed")
            if item.message_id in self.messages or item.message_id in fresh:
                continue
            if item.conversation_id not in self.conversations:
                raise InvalidRow("no such conversation")
            key = item.conversation_id, item.item_id
            if not item.deleted and (key in self.message_ids or key in taken):
                raise ItemExists(f"item {item.item_id} exists")
            fresh[item.message_id] = item
            if not item.deleted:
                taken.add(key)
        for item in fresh.values():
            self._insert(item)
        self._tell_of_items([item for item in fresh.values() if not item.deleted])

    def _tell_of_items(self, items: Sequence[StoredItem]) -> None:
        for session_id in {item.session_id for item in items}:
            self._tell_of_changes(session_id, [item.message_id for item in items])

    def _tell_of_changes(self, author: UUID, message_ids: Sequence[UUID]) -> None:
        """Tells the other sessions of a conversation that is open more than once."""
        mine = self.sessions[author]
        for other in self.sessions.values() if mine.shared and message_ids else ():
            if other is not mine and other.conversation_id == mine.conversation_id and other.is_active and other.shared:
                self._notify_of_changes(other, message_ids)

    def _notify_of_changes(self, session: SessionRecord, message_ids: Sequence[UUID] | None) -> None:
        if session.instance_id in self.guards:
            self.guards[session.instance_id].notify_of_changes(session.session_id, message_ids)

    def _insert(self, item: StoredItem) -> None:
        message_id, key = item.message_id, (item.conversation_id, item.item_id)
        if item.deleted:
            self.deleted_ids.add(key)
        else:
            self.message_ids[key] = message_id
        self.messages[message_id] = item
        self.stored_at[message_id] = trio.current_time()
        self.ids_in_session.setdefault(item.session_id, []).append(message_id)
        self.ids_in_conversation.setdefault(item.conversation_id, []).append(message_id)

    def _delete(self, deletion: ItemDeletion) -> bool:
        check_text(deletion.item_id)
        if not self._is_active(deletion.session_id):
            raise SessionClosed("the session's row is closed")
        wanted = self.sessions[deletion.session_id].conversation_id, deletion.item_id
        key = self.message_ids.get(wanted)
        if key is not None and not self._arrives_late(deletion, self.messages[key]):
            self._mark_deleted(self.messages[key])
            self._tell_of_changes(deletion.session_id, [key])
        elif wanted not in self.deleted_ids:
            raise ItemNotFound("no such item")
        return True

    def _mark_deleted(self, item: StoredItem) -> None:
        """Its id is free again, and what was remembered of it goes along; that an older memory comes back is the real
        store's."""
        self.messages[item.message_id] = replace(item, deleted=True)
        shown = item.conversation_id, item.item_id
        if self.message_ids.get(shown) == item.message_id:
            del self.message_ids[shown]
            self.deleted_ids.add(shown)
        for key, memory in list(self.memories.items()):
            if (memory.source_session_id, memory.source_item_id) == (item.session_id, item.item_id):
                del self.memories[key]

    def _arrives_late(self, deletion: ItemDeletion, item: StoredItem) -> bool:
        """Whether the session itself has created the item after what it asked to delete."""
        is_own = item.session_id == deletion.session_id
        return is_own and deletion.message_id not in (None, item.message_id)

    def _append_what_is_valid(self, rows: Iterable[StoredRow]) -> None:
        """Rows that the database would refuse do not stop an end."""
        for row in rows:
            try:
                self._append([row])
            except StoreError:
                continue

    def _end(self, end: SessionEnd) -> bool:
        if not self._is_active(end.session_id):
            return False
        with contextlib.suppress(StoreError):  # the end counts even where the unfinished items that came with it do not
            self._append(end.unfinished)
        self._close(self.sessions[end.session_id], end.ended, end.reason, end.close_code, end.instance_id)
        return True

    def _is_active(self, session_id: UUID) -> bool:
        session = self.sessions.get(session_id)
        return session is not None and session.is_active

    def _close(
        self, session: SessionRecord, ended: float, reason: EndReason, code: int | None, closed_by: UUID | None
    ) -> None:
        now = trio.current_time()
        session.is_active = False
        session.session_end = max(session.session_start, min(ended, now))
        session.ended_at = now
        session.duration_seconds = session.session_end - session.session_start
        session.end_reason, session.close_code, session.closed_by = reason.value, code, closed_by
        self.closings.append(session)
        if any(item.role == "user" for item in self.said_in(session.session_id)):
            session.memory_status = "pending"
            session.memory_due_at = now
        if closed_by != session.instance_id:
            self._notify(session)

    def _notify(self, session: SessionRecord) -> None:
        """Tells the session's owner that its row was closed or deleted."""
        if session.instance_id in self.guards:
            self.guards[session.instance_id].notify(session.session_id)


def in_order(items: Iterable[StoredItem]) -> list[StoredItem]:
    """By position; those at the same position by their message ids."""
    return sorted(items, key=lambda item: (item.position, item.message_id))


def newest(rows: Sequence[T], limit: int) -> Sequence[T]:
    """The last `limit` rows."""
    return rows[max(len(rows) - limit, 0) :]
