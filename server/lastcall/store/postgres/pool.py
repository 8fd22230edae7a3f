"""The store in PostgreSQL: reads on a pool of connections, writes through the group-commit writer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from operator import itemgetter
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import asyncpg
import structlog
import trio
import trio_asyncio

from ...agents.agent import Memory, Message, Transcript
from ..commits import COMMITS_MAX, CommitWriter
from ..errors import CredentialRevoked, InvalidRow, ItemNotFound, StoreError, StoreUnavailable
from ..queries import QUERIES
from ..records import (
    EVIDENCE_SECONDS,
    ClientSecret,
    ConversationSummary,
    Credential,
    Instance,
    ItemDeletion,
    MemoryClaim,
    RememberedFact,
    SessionEnd,
    SessionStart,
    StoredItem,
    Suspect,
)
from .batch import (
    BatchStatement,
    BulkClose,
    Closed,
    InstanceStop,
    Outcome,
    Write,
    by_session,
    commit_nothing,
    session_of,
)
from .calls import CALL_SECONDS, call
from .clock import DatabaseClock
from .connections import Connections
from .lease import GAP_SECONDS, PostgresLeaseConnection, open_lease_connection

P = ParamSpec("P")
T = TypeVar("T")

CONNECTIONS = 6
CONNECTIONS_FOR_WRITES = COMMITS_MAX + 1  # that no crowd of readers can take: commits, and what an instance does
COMMAND_SECONDS = 5.0
CLOCK_EXACT_SECONDS = 0.02
CLOCK_ASKS_MAX = 3
REAP_ROWS_MAX = 5_000  # in one statement: a quarter of a second
OLDEST = (-(1 << 63), UUID(int=0))  # as position and message id: before every item, and behind every one
NEWEST = ((1 << 63) - 1, UUID(int=(1 << 128) - 1))

_log = structlog.get_logger(__name__)


class PostgresStore:
    """`lastcall.store.store.Store` over `CONNECTIONS` connections; see that protocol for the promises."""

    def __init__(self, url: str, connections: Connections, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self._url = url
        self._connections = connections
        self._loop = loop
        self._clock = DatabaseClock()
        self._readers = trio.CapacityLimiter(CONNECTIONS - CONNECTIONS_FOR_WRITES)
        self._writer: CommitWriter[Write, Closed] = CommitWriter(self._commit, session_of)
        self.run_writer = self._writer.run
        self.close_writer = self._writer.close

    async def _call(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await call(self._loop, operation, *args, **kwargs)

    async def warm_up(self) -> None:
        """Opens all connections, one after the other, and has each prepared for its first commit. Raises `StoreError`.

        Left to the first sessions, that was a burst in the very moment in which a server becomes ready, and a
        neighbour's ends of sessions had to wait for it.
        """
        await self._call(self._connections.open_all, commit_nothing)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """The rows of one named query."""
        return await self.select(QUERIES[query], *args)

    async def _first(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Like `select`, past all readers."""
        return await self._call(self._fetch, sql, *args)

    async def _fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        async with self._connections.one() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args, timeout=COMMAND_SECONDS)
            return rows

    async def select(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """The rows of any statement: for operators' tools and tests."""
        with trio.move_on_after(CALL_SECONDS) as waiting:
            async with self._readers:
                waiting.deadline = math.inf
                return await self._first(sql, *args)
        raise StoreUnavailable(f"no connection was free within {CALL_SECONDS:g} s")

    async def ping(self) -> None:
        await self.fetch("ping")

    async def register_instance(self, instance: Instance) -> None:
        await self._first(
            QUERIES["register_instance"],
            instance.instance_id,
            instance.hostname,
            instance.pid,
            instance.version,
            instance.lease_seconds,
            instance.host_id,
            instance.process_started,
        )

    def open_lease_connection(self, instance_id: UUID) -> AbstractAsyncContextManager[PostgresLeaseConnection]:
        return open_lease_connection(self._url, self._loop, instance_id)

    async def suspects(self, instance_id: UUID) -> Sequence[Suspect]:
        rows = await self._first(QUERIES["suspect_instances"], instance_id, GAP_SECONDS)
        names = [name for name in Suspect.__slots__ if name != "heartbeat"]
        return [Suspect(**{name: row[name] for name in names}, heartbeat=row["heartbeat_at"]) for row in rows]

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        rows = await self._first(
            QUERIES["reap_instance"], suspect.instance_id, suspect.heartbeat, judge, REAP_ROWS_MAX, EVIDENCE_SECONDS
        )
        return len(rows)

    async def stop_instance(self, instance_id: UUID) -> None:
        await self._submit_after((), InstanceStop(instance_id))

    async def begin_session(self, start: SessionStart, *, within: float) -> None:
        await self._writer.submit(start, within=within)

    async def append_items(self, items: Sequence[StoredItem], *, within: float) -> None:
        await self._writer.submit(tuple(items), within=within)

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        await self._writer.submit(deletion, within=within)

    async def end_session(self, end: SessionEnd) -> bool:
        return bool(await self._submit_after(end.unfinished, end))

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        return [row["session_id"] for row in await self._first(QUERIES["active_sessions"], instance_id)]

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredItem]) -> Closed:
        return await self._submit_after(unfinished, BulkClose(instance_id, trio.current_time()))

    async def _submit_after(self, unfinished: Sequence[StoredItem], write: Write) -> Closed:
        """An end, after the words that were left unsaid. It is worth more than they: where they fail, it stands."""
        unsaid = by_session(unfinished)
        *stored, outcome = await self._writer.submit_surely(*(tuple(items) for items in unsaid), write)
        for items, failure in zip(unsaid, stored, strict=True):
            if isinstance(failure, InvalidRow):
                _log.warning("unfinished_items_refused", session_id=str(items[0].session_id), error=str(failure))
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def keys_exist(self) -> bool:
        [row] = await self.fetch("keys_exist")
        return bool(row["found"])

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        rows = await self.fetch("find_credential", secret_hash)
        return Credential(**rows[0]) if rows else None

    async def create_client_secret(self, secret: ClientSecret) -> int:
        names = ("secret_id", "key_id", "user_id", "conversation_id", "session", "secret_hash", "seconds")
        [row] = await self.fetch("create_client_secret", *(getattr(secret, name) for name in names))
        if not row["allowed"]:
            raise CredentialRevoked("the key was revoked")
        if row["expires_at"] is None:
            raise InvalidRow("the user has no such conversation")
        return int(row["expires_at"])

    async def recall(self, user_id: str, limit: int) -> Sequence[RememberedFact]:
        return [RememberedFact(row["kind"], row["content"]) for row in await self.fetch("recall", user_id, limit)]

    async def load_history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        if not await self.fetch("find_conversation", conversation_id, user_id):
            return None
        return [_stored_item(row) for row in await self.fetch("load_history", conversation_id, limit)]

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[StoredItem] | None:
        if not await self.fetch("find_conversation", conversation_id, user_id):
            return None
        start = NEWEST if older else OLDEST
        if cursor is not None:
            found = await self.fetch("find_item", conversation_id, cursor)
            if not found:
                raise ItemNotFound(cursor)
            start = tuple(found[0])
        rows = await self.select(
            QUERIES["items_before"] if older else QUERIES["items_after"], conversation_id, *start, limit
        )
        return [_stored_item(row) for row in rows]

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None
    ) -> Sequence[ConversationSummary] | None:
        if after is not None and not await self.fetch("find_conversation", after, user_id):
            return None
        rows = await self.fetch("list_conversations", user_id, after, limit)
        return [ConversationSummary(**row) for row in rows]

    async def claim_memory(self, limit: int, lease_seconds: float) -> Sequence[MemoryClaim]:
        rows = await self.fetch("claim_memory", limit, lease_seconds)
        return [_memory_claim(list(group)) for _, group in itertools.groupby(rows, key=itemgetter("session_id"))]

    async def finish_memory(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        columns = [[getattr(m, name) for m in memories] for name in ("kind", "content", "quote", "item_id")]
        return bool(await self.fetch("finish_memory", session_id, *columns))

    async def release_memory(self, session_id: UUID) -> None:
        await self.fetch("release_memory", session_id)

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        await self.fetch("fail_memory", session_id, error, retry_after)

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Commits a batch of the group-commit writer in one transaction, and says per row what became of it."""
        return await self._call(self._commit_batch, BatchStatement(writes))

    async def _commit_batch(self, batch: BatchStatement) -> Sequence[Outcome]:
        async with self._connections.one() as connection:
            if self._clock.at(0.0) is None:
                await self._ask_clock(connection)
            now = trio.current_time()
            if not batch.leaving:
                return await self._run_batch(batch, connection, now)
            async with connection.transaction():
                return await self._run_batch(batch, connection, now)

    async def _ask_clock(self, connection: Any) -> None:
        """Asks again where an answer took long: on a busy machine, the first may be a tenth of a second off."""
        for _ in range(CLOCK_ASKS_MAX):
            asked = trio.current_time()
            at = await connection.fetchval(QUERIES["clock"])
            answered = trio.current_time()
            self._clock.observe(asked, answered, at)
            if self._clock.error(answered) <= CLOCK_EXACT_SECONDS:
                break

    async def _run_batch(self, batch: BatchStatement, connection: Any, now: float) -> Sequence[Outcome]:
        moment = self._clock.at(now)
        assert moment is not None
        try:
            return await batch.run(connection, now, moment)
        finally:
            if batch.at is not None:
                self._clock.observe(now, trio.current_time(), batch.at)


def _memory_claim(rows: Sequence[asyncpg.Record]) -> MemoryClaim:
    """rows: of one session, one for each thing that was said."""
    said = [Message(row["role"], row["content"], row["item_id"]) for row in rows if row["role"] is not None]
    return MemoryClaim(Transcript(str(rows[0]["session_id"]), rows[0]["user_id"], said), rows[0]["memory_attempts"])


def _stored_item(row: asyncpg.Record) -> StoredItem:
    names = ("message_id", "session_id", "conversation_id", "item_id", "position", "role", "content", "status", "kind",
             "call_id", "name")  # fmt: skip
    return StoredItem(**{name: row[name] for name in names})
