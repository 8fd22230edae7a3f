"""The fake's statements on memories."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast
from uuid import UUID

import trio
from lastcall.agents.agent import Memory, Message, Role, Transcript
from lastcall.memory.facts.slots import is_one_valued
from lastcall.store.people.memories import StoredMemory
from lastcall.store.records import RECENT_SECONDS, FinishedMemory, MemoryClaim, Recollection, RememberedFact

from .fake_rows import CONTENT_CHARS, KIND_CHARS, MemoryRecord, SessionRecord, check_text
from .fake_tables import FakeTables, in_order, newest


class FakeMemories(FakeTables):
    """Memories of users, and the work that makes them from closed sessions."""

    def _recall(self, user_id: str, limit: int) -> Recollection:
        known = [(m.updated_at, m.order, key[1], m.content) for key, m in self.memories.items() if key[0] == user_id]
        facts = [RememberedFact(kind, content) for _, _, kind, content in newest(sorted(known), limit)]
        recent = trio.current_time() - RECENT_SECONDS
        pending = any(
            session.user_id == user_id and session.memory_status == "pending" and session.memory_error is None
            for session in self.sessions.values()
            if session.memory_due_at is not None and session.memory_due_at > recent
        )
        return Recollection(facts, pending)

    def _pending(self, session_id: UUID) -> SessionRecord | None:
        session = self.sessions.get(session_id)
        return session if session is not None and session.memory_status == "pending" else None

    def _claim(self, limit: int, lease_seconds: float, session_ids: Sequence[UUID] | None) -> Sequence[MemoryClaim]:
        now = trio.current_time()
        due = [
            (session.memory_due_at, order, session)
            for order, session in enumerate(self.sessions.values())
            if session.memory_status == "pending" and session.memory_due_at is not None and session.memory_due_at <= now
            if session_ids is None or session.session_id in session_ids
        ]
        taken = [session for _, _, session in sorted(due, key=lambda entry: entry[:2])[:limit]]
        for session in taken:
            session.memory_due_at = now + lease_seconds
            session.memory_attempts += 1
        return [MemoryClaim(self._transcript(session), session.memory_attempts) for session in taken]

    def _transcript(self, session: SessionRecord) -> Transcript:
        items = in_order(self.said_in(session.session_id))
        said = [item for item in items if item.kind == "message" and not item.deleted]
        messages = [Message(cast("Role", item.role), item.content, item.item_id) for item in said]
        return Transcript(str(session.session_id), session.user_id, messages)

    def _finish_all(self, finished: Sequence[FinishedMemory]) -> Collection[UUID]:
        """All or none: what is refused is refused before anything is kept."""
        for each in finished:
            for memory in each.memories:
                check_text(memory.kind, KIND_CHARS)
                check_text(memory.content, CONTENT_CHARS)
                check_text(memory.quote + memory.item_id)
        return [each.session_id for each in finished if self._finish(each.session_id, each.memories)]

    def _finish(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        session = self._pending(session_id)
        if session is None:
            return False
        session.memory_status, session.memory_error, session.memory_due_at = "done", None, None
        session.memory_finalized_at = trio.current_time()
        seen: set[tuple[str, str, str]] = set()
        for memory in memories:
            if self._is_deleted(session_id, memory.item_id):
                continue
            if memory.op == "forget":
                self._forget(session.user_id, memory)
                continue
            self._supersede(session.user_id, memory)
            key = (session.user_id, memory.kind, memory.content.lower())
            if key not in seen:
                seen.add(key)
                self._remember(key, memory, session_id)
        return True

    def _renew_claims(self, claims: Sequence[MemoryClaim], lease_seconds: float) -> None:
        for claim in claims:
            session = self._pending(UUID(claim.transcript.session_id))
            if session is not None and session.memory_attempts == claim.attempts:
                session.memory_due_at = trio.current_time() + lease_seconds

    def _is_deleted(self, session_id: UUID, item_id: str) -> bool:
        """Whether the item was deleted, and not created anew under its id."""
        deleted = [item.deleted for item in self.said_in(session_id) if item.item_id == item_id]
        return bool(deleted) and all(deleted)

    def _supersede(self, user_id: str, memory: Memory) -> None:
        """Of slots with one value; endings by their words are the real store's."""
        if memory.op == "add" and is_one_valued(memory.slot):
            for key in [key for key, known in self.memories.items() if key[0] == user_id and known.slot == memory.slot]:
                if key[1:] != (memory.kind, memory.content.lower()):
                    del self.memories[key]

    def _forget(self, user_id: str, memory: Memory) -> None:
        for key in [key for key in self.memories if key[0] == user_id]:
            if memory.slot == "*" or self.memories[key].slot in memory.closes:
                del self.memories[key]

    def _known(self, user_id: str, limit: int, memory_id: int | None) -> Sequence[StoredMemory]:
        mine = [(m.updated_at, m.order, key) for key, m in self.memories.items() if key[0] == user_id]
        return [
            StoredMemory(
                memory_id=order,
                kind=key[1],
                content=(record := self.memories[key]).content,
                quote=record.quote,
                slot=record.slot,
                said_at=at,
                edited_at=None,
                expires_at=None,
                conversation_id=self.sessions[record.source_session_id].conversation_id,
                source_session_id=record.source_session_id,
                source_item_id=record.source_item_id,
            )
            for at, order, key in sorted(mine, reverse=True)[:limit]
            if memory_id in (None, order)
        ]

    def _edit(self, user_id: str, memory_id: int, content: str) -> bool:
        for key, record in list(self.memories.items()):
            if key[0] == user_id and record.order == memory_id:
                del self.memories[key]
                record.content, record.updated_at = content, trio.current_time()
                self.memories[key[0], key[1], content.lower()] = record
                return True
        return False

    def _forget_one(self, user_id: str, memory_id: int) -> bool:
        mine = [key for key, record in self.memories.items() if key[0] == user_id and record.order == memory_id]
        for key in mine:
            del self.memories[key]
        return bool(mine)

    def _release(self, session_ids: Sequence[UUID]) -> None:
        for session in filter(None, map(self._pending, session_ids)):
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
            slot=memory.slot,
        )
