"""The store in PostgreSQL: asyncpg under trio-asyncio. The only module that imports either.

Every operation is one asyncio coroutine, entered once: a context manager that crosses from Trio to asyncio leaks its
connection when the Trio side is cancelled. Every call is bounded from the Trio side as well, because asyncpg waits
without limit for the answer to its own cancel request when the server is frozen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import structlog
import trio
import trio_asyncio

from .agent import Memory, Message, Transcript
from .commits import CommitWriter, Outcome
from .queries import QUERIES, SCHEMA, SCHEMA_DIGEST
from .store import (
    InvalidRow,
    ItemExists,
    MemoryClaim,
    RememberedFact,
    SessionClosed,
    SessionEnd,
    SessionStart,
    StoredItem,
    StoreError,
    StoreUnavailable,
)

P = ParamSpec("P")
T = TypeVar("T")
Write = SessionStart | SessionEnd | tuple[StoredItem, ...]

VERSION_MIN = 140_000  # PostgreSQL 14, as server_version_num counts
CONNECTIONS = 6
CONNECTIONS_FOR_WRITES = 2  # that no crowd of readers can take: commits, the bulk close, the heartbeat
BEGIN_SECONDS = 0.5  # a transaction whose begin took longer has a `now()` that ages cannot be counted from
CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 4.0  # below COMMAND_SECONDS: the server gives up first, and says why
COMMAND_SECONDS = 5.0
CALL_SECONDS = 7.0  # above COMMAND_SECONDS: only for a server that does not answer at all
CLOSE_SECONDS = 2.0

_log = structlog.get_logger(__name__)

# Trying again will not help. Class 54 is a row that fits no index, such as a very long item id.
ROW_AT_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeError,
)


class DatabaseUnusable(Exception):
    """The database cannot be used at all; the message is one line for the user, with the fix in it."""


def _transient(error: BaseException) -> bool:
    """Whether the same idempotent statement may succeed later (SQLSTATE classes 08, 53 and the single codes below)."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        single = {"57P01", "57P02", "57P03", "57P05", "57014", "25006", "40001", "40P01", "55P03", "25P03", "25P04"}
        return code[:2] in ("08", "53") or code in single
    # InterfaceError: a connection or pool that was closed under us. OSError: refused, reset, timed out.
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError) and not isinstance(
        error, asyncpg.DataError
    )


def _store_error(error: Exception) -> StoreError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == "item_once_per_conversation":
        return ItemExists(detail)
    if isinstance(error, ROW_AT_FAULT):
        return InvalidRow(detail)
    if _transient(error):
        return StoreUnavailable(detail)
    return StoreError(detail)


class DatabaseAddress:
    """A database URL for people: where it is, without user and password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        # Not `hostname` and `port`: a URL may name several hosts, each with its port.
        hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[-1]
        self._text = f"{hosts}{parts.path or '/'}"

    def __str__(self) -> str:
        return self._text


class PostgresStore:
    """`server.store.Store` over a pool of `CONNECTIONS` connections; see that protocol for the promises."""

    def __init__(self, pool: asyncpg.Pool, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._readers = trio.CapacityLimiter(CONNECTIONS - CONNECTIONS_FOR_WRITES)
        self._ending: dict[UUID, SessionEnd] = {}
        self._writer: CommitWriter[Write] = CommitWriter(self._commit)
        self.run_writer = self._writer.run
        self.close_writer = self._writer.close

    async def _call(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs an asyncio operation to its end, or for `CALL_SECONDS`; failures come out as `StoreError`s."""
        try:
            return await _bounded(self._loop, CALL_SECONDS, operation, *args, **kwargs)
        except StoreError:
            raise
        except Exception as error:
            raise _store_error(error) from error

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """The rows of one named query."""
        return await self.select(QUERIES[query], *args)

    async def _first(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Like `select`, past all readers."""
        return await self._call(self._pool.fetch, sql, *args, timeout=COMMAND_SECONDS)

    async def select(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """The rows of any statement: for operators' tools and tests."""
        with trio.move_on_after(CALL_SECONDS) as waiting:
            async with self._readers:
                waiting.deadline = math.inf
                return await self._first(sql, *args)
        raise StoreUnavailable(f"no connection was free within {CALL_SECONDS:g} s")

    async def ping(self) -> None:
        await self.fetch("ping")

    async def register_instance(self, instance_id: UUID, hostname: str, pid: int, version: str) -> None:
        await self._first(QUERIES["register_instance"], instance_id, hostname, pid, version)

    async def renew_instance(self, instance_id: UUID) -> bool:
        return bool(await self._first(QUERIES["renew_instance"], instance_id))

    async def stop_instance(self, instance_id: UUID) -> None:
        await self._first(QUERIES["stop_instance"], instance_id)

    async def begin_session(self, start: SessionStart, *, within: float) -> None:
        await self._writer.submit(start, within=within)

    async def append_items(self, items: Sequence[StoredItem], *, within: float) -> None:
        await self._writer.submit(tuple(items), within=within)

    async def end_session(self, end: SessionEnd) -> bool:
        self._ending[end.session_id] = end
        try:
            return await self._end_session(end)
        finally:
            self._ending.pop(end.session_id, None)

    async def _end_session(self, end: SessionEnd) -> bool:
        try:
            return await self._writer.submit_surely(end)
        except InvalidRow:
            if not end.unfinished:
                raise
            # An end is worth more than the unsaid words that came with it.
            _log.exception("unfinished_items_refused", session_id=str(end.session_id))
            return await self._writer.submit_surely(replace(end, unfinished=()))

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredItem]) -> int:
        return await self._call(self._close_instance_sessions, instance_id, unfinished)

    async def recall(self, user_id: str, limit: int) -> Sequence[RememberedFact]:
        return [RememberedFact(row["kind"], row["content"]) for row in await self.fetch("recall", user_id, limit)]

    async def load_history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        if not await self.fetch("find_conversation", conversation_id, user_id):
            return None
        return [_stored_item(row) for row in await self.fetch("load_history", conversation_id, limit)]

    async def claim_memory(self, limit: int, lease_seconds: float) -> Sequence[MemoryClaim]:
        claimed = await self.fetch("claim_memory", limit, lease_seconds)
        if not claimed:
            return []
        messages: dict[UUID, list[Message]] = defaultdict(list)
        for row in await self.fetch("load_transcripts", [claim["session_id"] for claim in claimed]):
            messages[row["session_id"]].append(Message(row["role"], row["content"], row["item_id"]))
        return [
            MemoryClaim(
                Transcript(str(claim["session_id"]), claim["user_id"], messages[claim["session_id"]]),
                claim["memory_attempts"],
            )
            for claim in claimed
        ]

    async def finish_memory(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        columns = [[getattr(m, name) for m in memories] for name in ("kind", "content", "quote", "item_id")]
        return bool(await self.fetch("finish_memory", session_id, *columns))

    async def release_memory(self, session_id: UUID) -> None:
        await self.fetch("release_memory", session_id)

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        await self.fetch("fail_memory", session_id, error, retry_after)

    async def _close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredItem]) -> int:
        async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection, _transaction(connection) as now:
            if self._ending:
                # Ends that still wait for their commit, after an outage: their own dates and reasons, not these.
                ended = _Batch([replace(end, unfinished=()) for end in self._ending.values()])
                await ended.run(connection, now)
            # The end of all sessions is worth more than the unsaid words of one.
            if unfinished and not await _append_or_not(connection, unfinished):
                for items in _by_session(unfinished):
                    await _append_or_not(connection, items)
            return len(await connection.fetch(QUERIES["close_instance_sessions"], instance_id))

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Commits a batch of the group-commit writer in one transaction, and says per row what became of it."""
        return await self._call(self._commit_batch, _Batch(writes))

    async def _commit_batch(self, batch: _Batch) -> Sequence[Outcome]:
        async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
            if not (batch.starts or batch.ends):
                # One statement is its own transaction: two round trips fewer.
                return await batch.run(connection, 0.0)
            async with _transaction(connection) as now:
                return await batch.run(connection, now)


class _Batch:
    """Writes sorted by kind: starts, then items, then ends, since one batch may hold a whole session."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.now = 0.0
        self.starts = [write for write in writes if isinstance(write, SessionStart)]
        # The first end of a session is its end: one UPDATE with two would pick either, and answer both with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self.ends = list({end.session_id: end for end in reversed(ends)}.values())
        self.items = [item for write in writes for item in _items_of(write)]

    async def run(self, connection: Any, now: float) -> Sequence[Outcome]:
        """now: when the transaction began, on Trio's clock; ages count back from there."""
        self.now = now
        stored: dict[UUID, Outcome] = {}
        ended: dict[UUID, bool] = {}
        if self.starts:
            await connection.fetch(QUERIES["begin_sessions"], *self._start_columns())
        if self.items:
            rows = await connection.fetch(QUERIES["append_items"], *_item_columns(self.items))
            stored = {item.message_id: _item_outcome(row) for item, row in zip(self.items, rows, strict=True)}
        if self.ends:
            rows = await connection.fetch(QUERIES["end_sessions"], *self._end_columns())
            ended = {row["session_id"]: row["ended"] for row in rows}
        applied = {id(end) for end in self.ends if ended.get(end.session_id)}
        return [self._outcome(write, stored, ended, applied) for write in self.writes]

    @staticmethod
    def _outcome(write: Write, stored: dict[UUID, Outcome], ended: dict[UUID, bool], applied: set[int]) -> Outcome:
        if isinstance(write, SessionEnd):
            return id(write) in applied if ended.get(write.session_id, True) else _held()
        if isinstance(write, tuple):
            return next((stored[item.message_id] for item in write if stored[item.message_id] is not True), True)
        return True

    def _start_columns(self) -> tuple[list[Any], ...]:
        s = self.starts
        return (
            [start.session_id for start in s],
            [start.conversation_id for start in s],
            [start.user_id for start in s],
            [start.instance_id for start in s],
            [self.now - start.started for start in s],
        )

    def _end_columns(self) -> tuple[list[Any], ...]:
        e = self.ends
        return (
            [end.session_id for end in e],
            [end.instance_id for end in e],
            [self.now - end.ended for end in e],
            [end.reason.value for end in e],
            [end.close_code for end in e],
        )


async def _append_or_not(connection: Any, items: Sequence[StoredItem]) -> bool:
    """Stores items in a savepoint; False where the database refuses one of them, and then none is stored."""
    try:
        async with connection.transaction():
            await connection.fetch(QUERIES["append_items"], *_item_columns(items))
    except ROW_AT_FAULT as error:
        _log.warning(
            "unfinished_items_refused", session_id=str(items[0].session_id), items=len(items), error=str(error)
        )
        return False
    return True


def _by_session(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.session_id)]


def _items_of(write: Write) -> Sequence[StoredItem]:
    if isinstance(write, SessionEnd):
        return write.unfinished
    return write if isinstance(write, tuple) else ()


def _item_outcome(row: asyncpg.Record) -> Outcome:
    if row["stored"]:
        return True
    return _held() if row["was_active"] else SessionClosed("the session's row is closed")


def _held() -> StoreUnavailable:
    return StoreUnavailable("somebody else holds the session's row")


@contextlib.asynccontextmanager
async def _transaction(connection: Any) -> AsyncIterator[float]:
    """A transaction; yields when it began, on Trio's clock, as near to its `now()` as `BEGIN_SECONDS`.

    Also where one statement would do: a server that was frozen runs on waking what it was sent before. Its `now()`
    would be another one than the ages were counted from, and a start could land after its session's end. Without our
    COMMIT, which nobody sends any more, it does not count.
    """
    asked = trio.current_time()
    async with connection.transaction():
        began = trio.current_time()
        if began - asked > BEGIN_SECONDS:
            raise StoreUnavailable(f"the transaction took {began - asked:.1f} s to begin")
        yield began


def _item_columns(items: Sequence[StoredItem]) -> list[list[Any]]:
    names = ("message_id", "conversation_id", "session_id", "item_id", "position", "role", "content", "status")
    return [[getattr(item, name) for item in items] for name in names]


def _stored_item(row: asyncpg.Record) -> StoredItem:
    names = ("message_id", "session_id", "conversation_id", "item_id", "position", "role", "content", "status")
    return StoredItem(**{name: row[name] for name in names})


async def _bounded(
    loop: trio_asyncio.BaseTrioEventLoop,
    seconds: float,
    operation: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Awaits an asyncio operation from Trio for at most `seconds`, then leaves it behind, cancelled.

    A cancel scope alone is no bound: trio-asyncio waits for the asyncio task, and asyncpg's release of a connection
    waits for a frozen server. What is left behind ends by its own command timeout. Cancelled from outside, the
    operation is cancelled too, and not waited for.
    """
    done = trio.Event()

    async def begin() -> asyncio.Task[T]:
        async def run() -> T:
            return await operation(*args, **kwargs)

        task = asyncio.ensure_future(run())
        # Reading the exception keeps asyncio from reporting it as never retrieved.
        task.add_done_callback(lambda ended: (ended.cancelled() or ended.exception(), done.set()))
        return task

    with trio.CancelScope(shield=True):
        task: asyncio.Task[T] = await trio_asyncio.aio_as_trio(begin, loop=loop)()
    try:
        with trio.move_on_after(seconds):
            await done.wait()
    except trio.Cancelled:
        task.cancel()
        raise
    if done.is_set():
        return task.result()
    task.cancel()
    raise StoreUnavailable(f"the database did not answer within {seconds:g} s")


@contextlib.asynccontextmanager
async def open_store(url: str, *, close_seconds: float = CLOSE_SECONDS) -> AsyncIterator[PostgresStore]:
    """Connects, applies the schema where it is not this version's, and runs the writer until the block is left.

    Leaving it: what is queued is committed within `close_seconds`, then the pool is closed, or cut off. Raises
    `DatabaseUnusable`.
    """
    async with trio_asyncio.open_loop() as loop:
        # trio-asyncio's default handler raises into its nursery: one failed background future would end the server.
        loop.set_exception_handler(_log_only)
        pool = await trio_asyncio.aio_as_trio(_connect, loop=loop)(url)
        store = PostgresStore(pool, loop)
        try:
            async with trio.open_nursery() as services:
                services.start_soon(store.run_writer)
                try:
                    yield store
                finally:
                    store.close_writer(close_seconds)
        finally:
            with trio.move_on_after(close_seconds, shield=True):
                with contextlib.suppress(Exception):
                    await _bounded(loop, close_seconds, pool.close)
            # Always: leaving the loop with a query in flight would hang for ever.
            pool.terminate()


def _log_only(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.debug("asyncio_exception", message=context.get("message"), error=repr(context.get("exception")))


async def _connect(url: str) -> asyncpg.Pool:
    settings = {
        "application_name": "lastcall",
        "statement_timeout": f"{STATEMENT_SECONDS:g}s",
        "idle_in_transaction_session_timeout": "10s",
        "tcp_user_timeout": "10s",
        "jit": "off",
    }
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=CONNECTIONS,
            max_size=CONNECTIONS,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=settings,
            reset=_keep_as_is,
        )
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatabaseUnusable(f"cannot use the database: {reason} (check --database-url)") from error
    assert pool is not None
    try:
        await _prepare_database(pool)
    except BaseException:
        pool.terminate()
        raise
    return pool


async def _keep_as_is(connection: Any) -> None:
    """No connection's state is ever changed: the pool's reset query would be a round trip for nothing."""


async def _prepare_database(pool: asyncpg.Pool) -> None:
    version = int(await pool.fetchval("SHOW server_version_num"))
    if version < VERSION_MIN:
        raise DatabaseUnusable(f"PostgreSQL {version // 10_000} is too old: lastcall needs 14 or newer")
    known = await pool.fetchval("SELECT to_regclass('lastcall_schema') IS NOT NULL")
    if (
        known
        and await pool.fetchval("SELECT digest FROM lastcall_schema ORDER BY version DESC LIMIT 1") == SCHEMA_DIGEST
    ):
        return
    try:
        await pool.execute(SCHEMA)
        await pool.execute(
            "UPDATE lastcall_schema SET digest = $1 WHERE version = (SELECT max(version) FROM lastcall_schema)",
            SCHEMA_DIGEST,
        )
    except asyncpg.PostgresError as error:
        raise DatabaseUnusable(f"cannot apply schema.sql: {str(error).splitlines()[0]}") from error
