"""The tables of the store's fake, and what is done to them: synchronous, idempotent, whole or not at all.

Here stands what `schema.sql` and `queries.sql` promise of one statement. How a statement gets here, or does not, is
memory_store.py's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast
from uuid import UUID

import trio
from lastcall.agents.agent import Memory, Message, Role, Transcript
from lastcall.auth.identity import Scope
from lastcall.store.errors import (
    CredentialRevoked,
    InstanceGone,
    InvalidRow,
    ItemExists,
    ItemNotFound,
    SessionClosed,
    StoreError,
)
from lastcall.store.records import (
    EVIDENCE_SECONDS,
    ClientSecret,
    ConversationSummary,
    Credential,
    EndReason,
    Instance,
    ItemDeletion,
    MemoryClaim,
    RememberedFact,
    SessionEnd,
    SessionStart,
    StoredItem,
    Suspect,
)

from .fake_rows import (
    CONTENT_CHARS,
    KIND_CHARS,
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

REAP_ROWS_MAX = 5_000  # by one call
GAP_SECONDS = 1.5  # without a heartbeat: the database was out of reach


class FakeTables:
    """All rows, and the connections that guard an instance."""

    def __init__(self) -> None:
        self.instances: dict[UUID, InstanceRecord] = {}
        self.guards: dict[UUID, FakeLeaseConnection] = {}
        self.conversations: dict[UUID, str] = {}
        self.created_at: dict[UUID, float] = {}  # by conversation
        self.sessions: dict[UUID, SessionRecord] = {}
        self.messages: dict[UUID, StoredItem] = {}
        self.stored_at: dict[UUID, float] = {}  # by message
        self.message_ids: dict[tuple[UUID, str], UUID] = {}  # by conversation and item
        self.ids_in_session: dict[UUID, list[UUID]] = {}  # of its messages
        self.ids_in_conversation: dict[UUID, list[UUID]] = {}
        self.closings: list[SessionRecord] = []  # each time that one was written
        self.credentials: dict[UUID, CredentialRecord] = {}
        self.memories: dict[tuple[str, str, str], MemoryRecord] = {}
        self._memories_made = 0

    # --- what tests look at and do by hand

    def items(self, conversation_id: UUID) -> list[StoredItem]:
        """The conversation's items, in order, deleted ones included."""
        return _in_order(self.messages[key] for key in self.ids_in_conversation.get(conversation_id, ()))

    def said_in(self, session_id: UUID) -> Iterator[StoredItem]:
        """The session's items, in the order in which they were stored, deleted ones included."""
        return (self.messages[key] for key in self.ids_in_session.get(session_id, ()))

    def close_by_hand(self, session_id: UUID) -> None:
        """What a person in psql does to an active row."""
        self._close(self.sessions[session_id], trio.current_time(), EndReason.BY_HAND, None, None)

    def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        """What `lastcall keys create` does."""
        self.credentials[credential.credential_id] = CredentialRecord(credential=credential, secret_hash=secret_hash)

    def revoke(self, credential_id: UUID) -> None:
        """What `lastcall keys revoke` does: a key's client secrets go with it, and the sessions of both are closed."""
        for key, record in self.credentials.items():
            if credential_id in (key, record.credential.key_id) and not record.revoked:
                record.revoked = True
                self._close_sessions_of(key)

    def _close_sessions_of(self, credential_id: UUID) -> None:
        for session in self.sessions.values():
            if session.is_active and session.credential_id == credential_id:
                self._close(session, trio.current_time(), EndReason.REVOKED, None, None)

    def declare_dead(self, instance_id: UUID) -> None:
        """What another server does to an instance's own row."""
        self.instances[instance_id].reaped_at = trio.current_time()

    # --- instances

    def _register(self, instance: Instance) -> None:
        now = trio.current_time()
        record = InstanceRecord(instance=instance, heartbeat_at=now, steady_since=now)
        self.instances.setdefault(instance.instance_id, record)

    def _renew(self, instance_id: UUID) -> bool:
        record, now = self.instances[instance_id], trio.current_time()
        if record.gone:
            return False
        if now - record.heartbeat_at > GAP_SECONDS:
            record.steady_since = now
        record.heartbeat_at = now
        return True

    def _suspects(self, instance_id: UUID) -> Sequence[Suspect]:
        now, me = trio.current_time(), self.instances[instance_id]
        if me.gone:
            return []
        steady_seconds = 0.0 if now - me.heartbeat_at > GAP_SECONDS else now - me.steady_since
        owners = {s.instance_id for s in self.sessions.values() if s.is_active and s.instance_id is not None}
        others = [(key, self.instances[key]) for key in sorted(owners) if key != instance_id]
        return [self._suspect(key, record, steady_seconds) for key, record in others]

    def _suspect(self, key: UUID, record: InstanceRecord, steady_seconds: float) -> Suspect:
        return Suspect(
            instance_id=key,
            host_id=record.instance.host_id,
            pid=record.instance.pid,
            process_started=record.instance.process_started,
            lease_seconds=record.instance.lease_seconds,
            gone=record.gone,
            silent_seconds=trio.current_time() - record.heartbeat_at,
            steady_seconds=steady_seconds,
            guard_gone=record.guarded and key not in self.guards,
            heartbeat=record.heartbeat_at,
        )

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
        """When a session stored its last item, as far as its owner can have lived to see it."""
        return min(self._last_stored(session, heartbeat_at), heartbeat_at + EVIDENCE_SECONDS)

    def _last_stored(self, session: SessionRecord, default: float) -> float:
        """When its last item was."""
        return max((self.stored_at[key] for key in self.ids_in_session.get(session.session_id, ())), default=default)

    def _stop(self, instance_id: UUID) -> None:
        instance = self.instances.get(instance_id)
        if instance is not None and not instance.gone:
            instance.stopped_at = trio.current_time()

    def _active_of(self, instance_id: UUID) -> list[SessionRecord]:
        return [s for s in self.sessions.values() if s.is_active and s.instance_id == instance_id]

    def _close_all_of(self, instance_id: UUID, unfinished: Iterable[StoredItem], ended: float) -> Collection[UUID]:
        ends = [(session, max(ended, self._last_stored(session, ended))) for session in self._active_of(instance_id)]
        self._append_what_is_valid(unfinished)
        for session, last in ends:
            self._close(session, last, EndReason.SHUTDOWN, 1012, instance_id)
        return [session.session_id for session, _ in ends]

    # --- credentials

    def _keys_exist(self) -> bool:
        return any(record.credential.scope in ("service", "user", "admin") for record in self.credentials.values())

    def _find_credential(self, secret_hash: bytes) -> Credential | None:
        record = next((each for each in self.credentials.values() if each.secret_hash == secret_hash), None)
        valid = record is not None and not record.revoked and record.expires_at > trio.current_time()
        return record.credential if record is not None and valid else None

    def _may_begin(self, credential_id: UUID) -> bool:
        record = self.credentials.get(credential_id)
        return record is not None and not record.revoked

    def _create_client_secret(self, secret: ClientSecret) -> int:
        check_text(secret.user_id, USER_CHARS)
        if secret.key_id is not None and not self._may_begin(secret.key_id):
            raise CredentialRevoked("the key was revoked")
        if secret.conversation_id and self.conversations.get(secret.conversation_id) != secret.user_id:
            raise InvalidRow("the user has no such conversation")
        credential = Credential(
            credential_id=secret.secret_id,
            key_id=secret.key_id,
            user_id=secret.user_id,
            scope=Scope.CLIENT,
            conversation_id=secret.conversation_id,
            session=secret.session,
        )
        expires_at = trio.current_time() + secret.seconds
        self.credentials[secret.secret_id] = CredentialRecord(
            credential=credential, secret_hash=secret.secret_hash, expires_at=expires_at
        )
        return int(expires_at)

    # --- conversations

    def _load_history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        if self.conversations.get(conversation_id) != user_id:
            return None
        return _last([item for item in self.items(conversation_id) if not item.deleted], limit)

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
            at = ids.index(cursor)
            items = items[:at] if older else items[at + 1 :]
        left = [item for item in items if not item.deleted]
        return left[::-1][:limit] if older else left[:limit]

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

    # --- sessions and what is said in them

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

    def _append(self, items: Sequence[StoredItem]) -> bool:
        fresh: dict[tuple[UUID, str], StoredItem] = {}
        fresh_ids: set[UUID] = set()
        for item in items:
            check_item(item)
            if not self._is_active(item.session_id):
                raise SessionClosed("the session's row is closed")
            if item.message_id in self.messages or item.message_id in fresh_ids:
                continue
            if item.conversation_id not in self.conversations:
                raise InvalidRow("no such conversation")
            key = item.conversation_id, item.item_id
            if key in self.message_ids or key in fresh:
                raise ItemExists(f"item {item.item_id} exists")
            fresh[key] = item
            fresh_ids.add(item.message_id)
        for key, item in fresh.items():
            self._insert(key, item)
        return True

    def _insert(self, key: tuple[UUID, str], item: StoredItem) -> None:
        message_id = self.message_ids[key] = item.message_id
        self.messages[message_id] = item
        self.stored_at[message_id] = trio.current_time()
        self.ids_in_session.setdefault(item.session_id, []).append(message_id)
        self.ids_in_conversation.setdefault(item.conversation_id, []).append(message_id)

    def _delete(self, deletion: ItemDeletion) -> bool:
        check_text(deletion.item_id)
        if not self._is_active(deletion.session_id):
            raise SessionClosed("the session's row is closed")
        wanted = self.sessions[deletion.session_id].conversation_id, deletion.item_id
        if wanted not in self.message_ids:
            raise ItemNotFound("no such item")
        key = self.message_ids[wanted]
        self.messages[key] = replace(self.messages[key], deleted=True)
        return True

    def _append_what_is_valid(self, items: Iterable[StoredItem]) -> None:
        """Unsaid words that the database would refuse do not stop an end."""
        for item in items:
            try:
                self._append([item])
            except StoreError:
                continue

    def _end(self, end: SessionEnd) -> bool:
        if not self._is_active(end.session_id):
            return False
        with contextlib.suppress(StoreError):  # an end is worth more than the unsaid words that came with it
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
        if session.instance_id in self.guards and closed_by != session.instance_id:
            self.guards[session.instance_id].notify(session.session_id)

    # --- memory

    def _recall(self, user_id: str, limit: int) -> Sequence[RememberedFact]:
        known = [(m.updated_at, m.order, key[1], m.content) for key, m in self.memories.items() if key[0] == user_id]
        return [RememberedFact(kind, content) for _, _, kind, content in _last(sorted(known), limit)]

    def _pending(self, session_id: UUID) -> SessionRecord | None:
        session = self.sessions.get(session_id)
        return session if session is not None and session.memory_status == "pending" else None

    def _claim(self, limit: int, lease_seconds: float) -> Sequence[MemoryClaim]:
        now = trio.current_time()
        due = [
            (session.memory_due_at, order, session)
            for order, session in enumerate(self.sessions.values())
            if session.memory_status == "pending" and session.memory_due_at is not None and session.memory_due_at <= now
        ]
        taken = [session for _, _, session in sorted(due, key=lambda entry: entry[:2])[:limit]]
        for session in taken:
            session.memory_due_at = now + lease_seconds
            session.memory_attempts += 1
        return [MemoryClaim(self._transcript(session), session.memory_attempts) for session in taken]

    def _transcript(self, session: SessionRecord) -> Transcript:
        items = _in_order(self.said_in(session.session_id))
        said = [item for item in items if item.kind == "message" and not item.deleted]
        messages = [Message(cast("Role", item.role), item.content, item.item_id) for item in said]
        return Transcript(str(session.session_id), session.user_id, messages)

    def _finish(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        for memory in memories:
            check_text(memory.kind, KIND_CHARS)
            check_text(memory.content, CONTENT_CHARS)
            check_text(memory.quote + memory.item_id)
        session = self._pending(session_id)
        if session is None:
            return False
        session.memory_status, session.memory_error, session.memory_due_at = "done", None, None
        session.memory_finalized_at = trio.current_time()
        seen: set[tuple[str, str, str]] = set()
        for memory in memories:
            key = (session.user_id, memory.kind, memory.content.lower())
            if key not in seen:
                seen.add(key)
                self._remember(key, memory, session_id)
        return True

    def _release(self, session_id: UUID) -> None:
        session = self._pending(session_id)
        if session is not None:
            session.memory_due_at = trio.current_time()
            session.memory_attempts = max(session.memory_attempts - 1, 0)

    def _note_failure(self, session_id: UUID, error: str, retry_after: float | None) -> None:
        check_text(error)
        session = self._pending(session_id)
        if session is not None:
            session.memory_error = error
            session.memory_status = "failed" if retry_after is None else "pending"
            session.memory_due_at = None if retry_after is None else trio.current_time() + retry_after

    def _remember(self, key: tuple[str, str, str], memory: Memory, session_id: UUID) -> None:
        self._memories_made += 1
        known = self.memories.get(key)
        self.memories[key] = MemoryRecord(
            order=known.order if known else self._memories_made,
            content=known.content if known else memory.content,
            quote=memory.quote,
            source_session_id=session_id,
            source_item_id=memory.item_id,
            updated_at=trio.current_time(),
        )


def _in_order(items: Iterable[StoredItem]) -> list[StoredItem]:
    """By position; those at the same position by their message ids."""
    return sorted(items, key=lambda item: (item.position, item.message_id))


def _last(rows: Sequence[T], limit: int) -> Sequence[T]:
    return rows[max(len(rows) - limit, 0) :]
