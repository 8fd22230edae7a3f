"""A `Store` in memory, on Trio's clock, that keeps the promises of `PostgresStore` and `schema.sql`.

tests/integration/store/ runs the same tests on both. Like the real store, it commits a session's writes in the order in
which they were submitted, retries after `StoreUnavailable`, and completes a write whose caller has stopped waiting.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import trio
from lastcall.store.conversations.seam import ConversationSummary, ItemKey
from lastcall.store.credentials import ClientSecret, Credential, SignIn
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.lease import Changed
from lastcall.store.operators.census import UnmatchedSession
from lastcall.store.people.meanings import MeaningResult
from lastcall.store.people.memories import StoredMemory
from lastcall.store.records import (
    FinishedMemory,
    Instance,
    ItemDeletion,
    MemoryClaim,
    PageItem,
    PastTurn,
    Recollection,
    SearchResult,
    SessionEnd,
    SessionStart,
    StoredHistory,
    StoredItem,
    StoredRow,
    Suspect,
)

from .fake_conversations import FakeConversations
from .fake_credentials import FakeCredentials
from .fake_memories import FakeMemories

T = TypeVar("T")

LEAVING = ("close_instance_sessions", "stop_instance")
ANSWER_SECONDS = 7.0  # the real store's CALL_SECONDS
RETRY_SECONDS = 0.1


@dataclass(eq=False, slots=True)
class Write:
    """A queued write. session_id: None where it concerns all sessions of an instance."""

    name: str
    effect: Callable[[], Any]
    session_id: UUID | None = None
    outcome: Any = None
    abandoned: bool = False
    settled: trio.Event = field(default_factory=trio.Event)


class FakeLeaseConnection:
    """A `LeaseConnection` on a `FakeStore`. Set `lost` to make it fail like a broken connection."""

    def __init__(self, store: FakeStore, instance_id: UUID) -> None:
        self._store = store
        self._instance_id = instance_id
        self._closed: list[UUID] = []
        self._news = trio.Event()
        self.changed: Changed = lambda _session_id, _message_ids: None
        self.lost = False
        store.instances[instance_id].guarded = True

    async def renew(self) -> bool:
        return await self._store._ask("renew", self._renew)

    def _renew(self) -> bool:
        if self.lost:
            raise StoreUnavailable("the connection is gone")
        return self._store._renew(self._instance_id)

    def notify_of_changes(self, session_id: UUID, message_ids: Sequence[UUID] | None) -> None:
        self.changed(session_id, message_ids)

    def notify(self, session_id: UUID) -> None:
        self._closed.append(session_id)
        self._news.set()

    def hear_changes_with(self, changed: Changed) -> None:
        self.changed = changed

    def hear_webhooks_with(self, changed: Callable[[], object]) -> None:
        """A fake store has none."""

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        return await self._store.closed_among(session_ids, stored)

    def closed_by_others(self) -> Sequence[UUID]:
        closed, self._closed, self._news = self._closed, [], trio.Event()
        return closed

    async def news(self) -> None:
        await self._news.wait()


class FakeStore(FakeConversations, FakeCredentials, FakeMemories):
    """Implements `lastcall.store.store.Store`. Effects are synchronous, with a checkpoint before and after each.

    fail_before, fail_after: called with an operation's name; may raise `StoreUnavailable` before or after its effect.
    delay: called with an operation's name; the seconds that it takes before its effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fail_before: Callable[[str], None] = lambda _: None
        self.fail_after: Callable[[str], None] = lambda _: None
        self.delay: Callable[[str], float] = lambda _: 0.0
        self._queue: deque[Write] = deque()
        self._committing = False

    # --- the store

    async def prove_commit(self, instance_id: UUID) -> None:
        await self._ask("prove_commit", lambda: None)

    async def register_instance(self, instance: Instance) -> None:
        await self._ask("register_instance", lambda: self._register(instance))

    @contextlib.asynccontextmanager
    async def open_lease_connection(self, instance_id: UUID) -> AsyncIterator[FakeLeaseConnection]:
        def take() -> FakeLeaseConnection:
            guard = self.guards[instance_id] = FakeLeaseConnection(self, instance_id)
            return guard

        guard = await self._ask("open_lease_connection", take)
        try:
            yield guard
        finally:
            if self.guards.get(instance_id) is guard:
                del self.guards[instance_id]

    async def renew_lease(self, instance_id: UUID) -> bool:
        return await self._ask("renew_lease", lambda: self._renew(instance_id))

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        return await self._ask("closed_among", lambda: self._closed_among(session_ids, stored))

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        return await self._ask("active_sessions", lambda: [s.session_id for s in self._active_of(instance_id)])

    async def report_census(self, instance_id: UUID, sockets: int, unmatched: Sequence[UnmatchedSession]) -> int:
        return await self._ask("report_census", lambda: len(self._active_of(instance_id)))

    async def count_hours(self, hours_max: int) -> int:
        return await self._ask("count_hours", lambda: 0)  # here nobody asks for charts

    async def fetch(self, query: str, *args: object) -> list[Any]:
        raise StoreError(f"{query}: reports need a database")

    async def suspects(self, instance_id: UUID | None) -> Sequence[Suspect]:
        return await self._ask("suspects", lambda: self._suspects(instance_id))

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        return await self._ask("reap", lambda: self._reap(suspect, judge))

    async def stop_instance(self, instance_id: UUID) -> None:
        await self._submit(Write("stop_instance", lambda: self._stop(instance_id)), float("inf"))

    async def begin_session(self, start: SessionStart, *, within: float) -> Recollection | None:
        def begin() -> Recollection | None:
            self._begin(start)
            return None if start.memories_max is None else self._recall(start.user_id, start.memories_max)

        recalled: Recollection | None = await self._submit(Write("begin_session", begin, start.session_id), within)
        return recalled

    async def append_items(self, items: Sequence[StoredRow], *, within: float) -> None:
        rows = tuple(items)
        await self._submit(Write("append_items", lambda: self._append(rows), rows[0].session_id), within)

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        await self._submit(Write("delete_item", lambda: self._delete(deletion), deletion.session_id), within)

    async def end_session(self, end: SessionEnd) -> bool:
        write = Write("end_session", lambda: self._end(end), end.session_id)
        ended: bool = await self._submit(write, float("inf"))
        return ended

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredRow]) -> Collection[UUID]:
        ended = trio.current_time()

        def close() -> Collection[UUID]:
            return self._close_all_of(instance_id, unfinished, ended)

        closed: Collection[UUID] = await self._submit(Write("close_instance_sessions", close), float("inf"))
        return closed

    async def keys_exist(self) -> bool:
        return await self._ask("keys_exist", self._keys_exist)

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        return await self._ask("find_credential", lambda: self._find_credential(secret_hash))

    async def create_client_secret(self, secret: ClientSecret) -> int:
        return await self._ask("create_client_secret", lambda: self._create_client_secret(secret))

    async def trade_secret(
        self, secret_hash: bytes, cookie_id: UUID, cookie_hash: bytes, *, link_seconds: float
    ) -> SignIn | None:
        return await self._ask(
            "trade_secret", lambda: self._trade_secret(secret_hash, cookie_id, cookie_hash, link_seconds)
        )

    async def sign_out(self, cookie_hash: bytes) -> bool:
        return await self._ask("sign_out", lambda: self._sign_out(cookie_hash))

    async def finish_revocations(self) -> int:
        return await self._ask("finish_revocations", lambda: 0)  # here a revocation overlooks nothing

    async def recall(self, user_id: str, limit: int) -> Recollection:
        return await self._ask("recall", lambda: self._recall(user_id, limit))

    async def load_history(
        self, conversation_id: UUID, user_id: str, limit: int, *, bytes_max: int
    ) -> StoredHistory | None:
        return await self._ask("load_history", lambda: self._load_history(conversation_id, user_id, limit, bytes_max))

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[PageItem] | None:
        def load() -> Sequence[PageItem] | None:
            return self._page_items(conversation_id, user_id, limit, older=older, cursor=cursor)

        return await self._ask("page_items", load)

    async def share_conversation(self, session_id: UUID) -> bool:
        return await self._ask("share_conversation", lambda: self._share(session_id))

    async def shared_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        return await self._ask("shared_among", lambda: [key for key in session_ids if self._is_shared(key)])

    async def changed_items(
        self, conversation_id: UUID, user_id: str, message_ids: Sequence[UUID]
    ) -> Sequence[StoredItem]:
        return await self._ask("changed_items", lambda: self._changed_items(conversation_id, user_id, message_ids))

    async def item_keys(
        self, conversation_id: UUID, user_id: str, after: tuple[int, UUID], limit: int
    ) -> Sequence[ItemKey]:
        return await self._ask("item_keys", lambda: self._item_keys(conversation_id, user_id, after, limit))

    async def deleted_among(self, user_id: str, message_ids: Sequence[UUID]) -> Sequence[UUID]:
        return await self._ask("deleted_among", lambda: self._deleted_among(user_id, message_ids))

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None, search: str | None = None
    ) -> Sequence[ConversationSummary] | None:
        return await self._ask("list_conversations", lambda: self._list_conversations(user_id, limit, after, search))

    async def rename_conversation(self, conversation_id: UUID, user_id: str, title: str | None) -> bool:
        return await self._ask("rename_conversation", lambda: self._rename(conversation_id, user_id, title))

    async def delete_conversation(self, conversation_id: UUID, user_id: str) -> bool:
        return await self._ask("delete_conversation", lambda: self._delete_conversation(conversation_id, user_id))

    async def claim_memory(
        self, limit: int, lease_seconds: float, *, session_ids: Sequence[UUID] | None = None
    ) -> Sequence[MemoryClaim]:
        return await self._ask("claim_memory", lambda: self._claim(limit, lease_seconds, session_ids))

    async def finish_memory(
        self, finished: Sequence[FinishedMemory], *, lifetime_seconds: float | None = None
    ) -> Collection[UUID]:
        return await self._ask("finish_memory", lambda: self._finish_all(finished))

    async def renew_memory(self, claims: Sequence[MemoryClaim], lease_seconds: float) -> None:
        await self._ask("renew_memory", lambda: self._renew_claims(claims, lease_seconds))

    async def expire_memories(self, limit: int) -> int:
        return await self._ask("expire_memories", lambda: 0)

    async def known_memories(self, user_id: str, limit: int, *, memory_id: int | None = None) -> Sequence[StoredMemory]:
        return await self._ask("known_memories", lambda: self._known(user_id, limit, memory_id))

    async def edit_memory(self, user_id: str, memory_id: int, content: str, words: Sequence[str]) -> bool:
        return await self._ask("edit_memory", lambda: self._edit(user_id, memory_id, content))

    async def forget_memory(self, user_id: str, memory_id: int) -> bool:
        return await self._ask("forget_memory", lambda: self._forget_one(user_id, memory_id))

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        """Finds nothing: only PostgreSQL has an index, and so none of its users has a past that is searched."""
        return await self._ask("search_turns", lambda: SearchResult({}, []))

    async def search_meanings(
        self, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        return await self._ask("search_meanings", lambda: MeaningResult({}, 0, 0.0, 0.0, 0.0))

    async def read_turns(self, user_id: str, turns: Sequence[tuple[int, int]], chars_max: int) -> Sequence[PastTurn]:
        return await self._ask("read_turns", list[PastTurn])

    async def release_memory(self, session_ids: Sequence[UUID]) -> None:
        await self._ask("release_memory", lambda: self._release(session_ids))

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        await self._ask("fail_memory", lambda: self._note_failure(session_id, error, retry_after))

    # --- from an operation to its effect

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
        """Queues a write, synchronously; a system task commits it, also after its caller has stopped waiting."""
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
        """Like the real store's batches: the writes of an instance that leaves come behind all others."""
        return next((each for each in self._queue if each.name not in LEAVING), self._queue[0])

    async def _commit(self, write: Write) -> bool:
        """Attempts a write once. False: it has to be retried."""
        try:
            write.outcome = await self._attempt(write.name, write.effect)
        except StoreUnavailable:
            return False
        except StoreError as error:
            write.outcome = error
        write.settled.set()
        await trio.lowlevel.checkpoint()
        return True
