"""The store without a database: what `PostgresStore` and `schema.sql` promise, in dictionaries, on Trio's clock.

`test_store.py` holds both stores to the same tests. Like the real one, it commits a session's writes in the order in
which they were submitted, tries again after `StoreUnavailable`, and lets a write land whose caller has stopped waiting.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast
from uuid import UUID

import trio

from server.agent import Memory, Message, Role, Transcript
from server.identity import Scope
from server.store import (
    EVIDENCE_SECONDS,
    ClientSecret,
    ConversationSummary,
    Credential,
    CredentialRevoked,
    EndReason,
    Instance,
    InstanceGone,
    InvalidRow,
    ItemDeletion,
    ItemExists,
    ItemNotFound,
    MemoryClaim,
    RememberedFact,
    SessionClosed,
    SessionEnd,
    SessionStart,
    StoredItem,
    StoreError,
    StoreUnavailable,
    Suspect,
)

from .memory_rows import (
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

T = TypeVar("T")

LEAVING = ("close_instance_sessions", "stop_instance")
ANSWER_SECONDS = 7.0  # as long as the real store waits for a database that does not answer
RETRY_SECONDS = 0.1
REAP_ROWS_MAX = 5_000  # by one call
GAP_SECONDS = 1.5  # without a heartbeat: the database was out of reach


@dataclass(eq=False, slots=True)
class Write:
    """A queued write. session_id: whose it is; None for what concerns all."""

    name: str
    effect: Callable[[], Any]
    session_id: UUID | None = None
    outcome: Any = None
    abandoned: bool = False
    settled: trio.Event = field(default_factory=trio.Event)


class MemoryGuard:
    """`server.store.Guard` on a `MemoryStore`. `lost` makes it fail like a connection that is gone."""

    def __init__(self, store: MemoryStore, instance_id: UUID) -> None:
        self._store = store
        self._instance_id = instance_id
        self._closed: list[UUID] = []
        self._news = trio.Event()
        self.lost = False
        store.instances[instance_id].guarded = True

    async def renew(self) -> bool:
        return await self._store._ask("renew", self._renew)

    def _renew(self) -> bool:
        if self.lost:
            raise StoreUnavailable("the connection is gone")
        record, now = self._store.instances[self._instance_id], trio.current_time()
        if record.gone:
            return False
        if now - record.heartbeat_at > GAP_SECONDS:
            record.steady_since = now
        record.heartbeat_at = now
        return True

    def notify(self, session_id: UUID) -> None:
        self._closed.append(session_id)
        self._news.set()

    async def closed_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        def look() -> Sequence[UUID]:
            sessions = self._store.sessions
            return [key for key in session_ids if key in sessions and not sessions[key].is_active]

        return await self._store._ask("closed_among", look)

    def closed_by_others(self) -> Sequence[UUID]:
        closed, self._closed, self._news = self._closed, [], trio.Event()
        return closed

    async def news(self) -> None:
        await self._news.wait()


class MemoryStore:
    """`server.store.Store` in memory. Every effect is synchronous, with a checkpoint before and after it.

    fail_before, fail_after: called with an operation's name; may raise `StoreUnavailable` before or after its effect.
    delay: seconds that an operation takes before its effect, by name.
    """

    def __init__(self) -> None:
        self.instances: dict[UUID, InstanceRecord] = {}
        self.guards: dict[UUID, MemoryGuard] = {}
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
        self.fail_before: Callable[[str], None] = lambda _: None
        self.fail_after: Callable[[str], None] = lambda _: None
        self.delay: Callable[[str], float] = lambda _: 0.0
        self._queue: deque[Write] = deque()
        self._committing = False
        self._began = 0.0
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

    # --- the store

    async def ping(self) -> None:
        await self._ask("ping", lambda: None)

    async def register_instance(self, instance: Instance) -> None:
        def register() -> None:
            now = trio.current_time()
            record = InstanceRecord(instance=instance, heartbeat_at=now, steady_since=now)
            self.instances.setdefault(instance.instance_id, record)

        await self._ask("register_instance", register)

    @contextlib.asynccontextmanager
    async def open_guard(self, instance_id: UUID) -> AsyncIterator[MemoryGuard]:
        def take() -> MemoryGuard:
            if instance_id in self.guards:
                raise StoreUnavailable("the lock of an earlier connection is still held")
            guard = self.guards[instance_id] = MemoryGuard(self, instance_id)
            self.instances[instance_id].steady_since = trio.current_time()
            return guard

        guard = await self._ask("open_guard", take)
        try:
            yield guard
        finally:
            del self.guards[instance_id]

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        def look() -> Collection[UUID]:
            return [key for key, row in self.sessions.items() if row.is_active and row.instance_id == instance_id]

        return await self._ask("active_sessions", look)

    async def suspects(self, instance_id: UUID) -> Sequence[Suspect]:
        def look() -> Sequence[Suspect]:
            now, me = trio.current_time(), self.instances[instance_id]
            if me.gone:
                return []
            steady_seconds = 0.0 if now - me.heartbeat_at > GAP_SECONDS else now - me.steady_since
            owners = {s.instance_id for s in self.sessions.values() if s.is_active and s.instance_id is not None}
            others = [(key, self.instances[key]) for key in sorted(owners) if key != instance_id]
            return [self._suspect(key, record, steady_seconds) for key, record in others]

        return await self._ask("suspects", look)

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

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        def reap() -> int:
            record = self.instances[suspect.instance_id]
            if record.heartbeat_at != suspect.heartbeat:
                return 0
            if record.reaped_at is None:
                record.reaped_at = trio.current_time()
            mine = [s for s in self.sessions.values() if s.is_active and s.instance_id == suspect.instance_id]
            for session in mine[:REAP_ROWS_MAX]:
                ended = max(record.heartbeat_at, self._evidence(session, record.heartbeat_at))
                self._close(session, ended, EndReason.OWNER_DIED, None, judge)
            return len(mine[:REAP_ROWS_MAX])

        return await self._ask("reap", reap)

    def _evidence(self, session: SessionRecord, heartbeat_at: float) -> float:
        """When a session stored its last item, as far as its owner can have lived to see it."""
        stored = [self.stored_at[key] for key in self.ids_in_session.get(session.session_id, ())]
        return min(max(stored, default=heartbeat_at), heartbeat_at + EVIDENCE_SECONDS)

    async def stop_instance(self, instance_id: UUID) -> None:
        def stop() -> None:
            instance = self.instances.get(instance_id)
            if instance is not None and not instance.gone:
                instance.stopped_at = trio.current_time()

        await self._submit(Write("stop_instance", stop), float("inf"))

    async def begin_session(self, start: SessionStart, *, within: float) -> None:
        await self._submit(Write("begin_session", lambda: self._begin(start), start.session_id), within)

    async def append_items(self, items: Sequence[StoredItem], *, within: float) -> None:
        rows = tuple(items)
        await self._submit(Write("append_items", lambda: self._append(rows), rows[0].session_id), within)

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        await self._submit(Write("delete_item", lambda: self._delete(deletion), deletion.session_id), within)

    async def end_session(self, end: SessionEnd) -> bool:
        write = Write("end_session", lambda: self._end(end), end.session_id)
        ended: bool = await self._submit(write, float("inf"))
        return ended

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredItem]) -> Collection[UUID]:
        def close() -> Collection[UUID]:
            active = [s for s in self.sessions.values() if s.is_active and s.instance_id == instance_id]
            self._append_what_is_valid(unfinished)
            for session in active:
                self._close(session, self._began, EndReason.SHUTDOWN, 1012, instance_id)
            return [session.session_id for session in active]

        closed: Collection[UUID] = await self._submit(Write("close_instance_sessions", close), float("inf"))
        return closed

    async def keys_exist(self) -> bool:
        scopes = ("service", "user", "admin")
        return await self._ask(
            "keys_exist", lambda: any(record.credential.scope in scopes for record in self.credentials.values())
        )

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        def find() -> Credential | None:
            found = (record for record in self.credentials.values() if record.secret_hash == secret_hash)
            record = next(found, None)
            valid = record is not None and not record.revoked and record.expires_at > trio.current_time()
            return record.credential if record is not None and valid else None

        return await self._ask("find_credential", find)

    async def create_client_secret(self, secret: ClientSecret) -> int:
        return await self._ask("create_client_secret", lambda: self._create_client_secret(secret))

    async def recall(self, user_id: str, limit: int) -> Sequence[RememberedFact]:
        def recall() -> Sequence[RememberedFact]:
            known = [
                (m.updated_at, m.order, key[1], m.content) for key, m in self.memories.items() if key[0] == user_id
            ]
            return [RememberedFact(kind, content) for _, _, kind, content in _last(sorted(known), limit)]

        return await self._ask("recall", recall)

    async def load_history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        def load() -> Sequence[StoredItem] | None:
            if self.conversations.get(conversation_id) != user_id:
                return None
            return _last([item for item in self.items(conversation_id) if not item.deleted], limit)

        return await self._ask("load_history", load)

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[StoredItem] | None:
        def load() -> Sequence[StoredItem] | None:
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

        return await self._ask("page_items", load)

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None
    ) -> Sequence[ConversationSummary] | None:
        def load() -> Sequence[ConversationSummary] | None:
            theirs = [key for key, owner in self.conversations.items() if owner == user_id][::-1]
            if after is not None and after not in theirs:
                return None
            first = 0 if after is None else theirs.index(after) + 1
            return [self._summary(key) for key in theirs[first : first + limit]]

        return await self._ask("list_conversations", load)

    def _summary(self, conversation_id: UUID) -> ConversationSummary:
        created_at = self.created_at[conversation_id]
        items = self.items(conversation_id)
        last_active_at = self.stored_at[items[-1].message_id] if items else created_at
        return ConversationSummary(conversation_id, created_at, None, last_active_at)

    async def claim_memory(self, limit: int, lease_seconds: float) -> Sequence[MemoryClaim]:
        return await self._ask("claim_memory", lambda: self._claim(limit, lease_seconds))

    async def finish_memory(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        return await self._ask("finish_memory", lambda: self._finish(session_id, memories))

    async def release_memory(self, session_id: UUID) -> None:
        def release() -> None:
            session = self._pending(session_id)
            if session is not None:
                session.memory_due_at = trio.current_time()
                session.memory_attempts = max(session.memory_attempts - 1, 0)

        await self._ask("release_memory", release)

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        def fail() -> None:
            check_text(error)
            session = self._pending(session_id)
            if session is not None:
                session.memory_error = error
                session.memory_status = "failed" if retry_after is None else "pending"
                session.memory_due_at = None if retry_after is None else trio.current_time() + retry_after

        await self._ask("fail_memory", fail)

    # --- how an operation gets to its effect

    async def _ask(self, name: str, effect: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(ANSWER_SECONDS):
            result = await self._attempt(name, effect)
            await trio.lowlevel.checkpoint()
            return result
        raise StoreUnavailable(f"{name}: no answer within {ANSWER_SECONDS:g} s")

    async def _attempt(self, name: str, effect: Callable[[], T]) -> T:
        await trio.sleep(self.delay(name))
        self.fail_before(name)
        result = effect()
        self.fail_after(name)
        return result

    async def _submit(self, write: Write, within: float) -> Any:
        """Queues a write, synchronously; a caller that goes away leaves it to the system task that commits."""
        self._queue.append(write)
        if not self._committing:
            self._committing = True
            trio.lowlevel.spawn_system_task(self._commit_queued)
        with trio.move_on_after(within):
            await write.settled.wait()
        if not write.settled.is_set():
            write.abandoned = True
            raise StoreUnavailable(f"{write.name}: no commit within {within:g} s")
        if isinstance(write.outcome, StoreError):
            raise write.outcome
        return write.outcome

    async def _commit_queued(self) -> None:
        while self._queue:
            write = self._next_write()
            self._queue.remove(write)
            if not write.abandoned and not await self._commit(write):
                self._queue.appendleft(write)
                await trio.sleep(RETRY_SECONDS)
        self._committing = False

    def _next_write(self) -> Write:
        """As in the real store's batches: what an instance leaves with comes last, each time anew."""
        return next((each for each in self._queue if each.name not in LEAVING), self._queue[0])

    async def _commit(self, write: Write) -> bool:
        """One attempt; False: to be tried again."""
        self._began = trio.current_time()  # what is `now()` in the real store's transaction
        try:
            write.outcome = await self._attempt(write.name, write.effect)
        except StoreUnavailable:
            return False
        except StoreError as error:
            write.outcome = error
        write.settled.set()
        await trio.lowlevel.checkpoint()
        return True

    # --- effects: synchronous, idempotent, whole or not at all

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
