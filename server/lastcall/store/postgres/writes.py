"""Writes to sessions, through the group-commit writer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import structlog
import trio

from ...metrics import Metrics
from ..clock import DatabaseClock
from ..commits import CommitWriter
from ..errors import CommitRefused, InvalidRow, StoreError, StoreUnavailable
from ..queries import QUERIES
from ..records import ItemDeletion, Recollection, SessionEnd, SessionStart, StoredRow
from .batch import (
    BatchStatement,
    BulkClose,
    Closed,
    InstanceStop,
    Outcome,
    Result,
    Write,
    by_session,
    prepare_commit,
    session_of,
)
from .calls import CALL_SECONDS, bounded_call, refused, timed
from .connections import Connections, Queries
from .loop import AsyncioLoop
from .memories import recollection
from .network import Connector

CLOCK_EXACT_SECONDS = 0.02
CLOCK_QUERIES_MAX = 3
STORED_SECONDS = 2.0  # for which a start and an item are proof enough: a busy server makes no others
FAILED_SECONDS = 5.0  # that a failed commit counts where no other has been tried since

_log = structlog.get_logger(__name__)


class SessionWrites(Queries):
    """The part of `Store` that writes sessions, their items and their ends."""

    def __init__(self, connector: Connector, connections: Connections, loop: AsyncioLoop, metrics: Metrics) -> None:
        super().__init__(connector, connections, loop, metrics)
        self._clock = DatabaseClock()
        self._failed: tuple[float, StoreUnavailable] | None = None  # when the last commit did, unless one came since
        self._stored: dict[type[object], float] = {}  # when a write of each kind was last committed
        self._writer: CommitWriter[Write, Result] = CommitWriter(self._commit, session_of)
        metrics.queue_rows.set_function(lambda: self._writer.waiting)
        self.run_writer = self._writer.run
        self.close_writer = self._writer.close

    async def warm_up(self) -> None:
        """Opens all connections, one after the other, and prepares each for its first commit. Raises `StoreError`.

        Left to the first sessions it would be a burst at the very moment when a server becomes ready, and ends of
        sessions on other servers would wait for it.
        """
        await bounded_call(self._loop, CALL_SECONDS, self._connections.open_all, prepare_commit)

    async def prove_commit(self, instance_id: UUID) -> None:
        moment = trio.current_time() - STORED_SECONDS
        try:
            # A disk may be too full for a long item, and still take the short one of the proof.
            if self._failed is not None and trio.current_time() - self._failed[0] < FAILED_SECONDS:
                raise self._failed[1]
            if min(self._stored.get(kind, -math.inf) for kind in (SessionStart, tuple)) <= moment:
                await self.fetch("prove_commit", instance_id, urgent=True)
        except StoreError as error:
            if refused(error):
                raise CommitRefused(str(error)) from error
            raise

    async def begin_session(self, start: SessionStart, *, within: float) -> Recollection | None:
        result = await self._writer.submit(start, within=within)
        return recollection(result) if isinstance(result, msgspec.Raw) else None

    async def append_items(self, items: Sequence[StoredRow], *, within: float) -> None:
        await self._writer.submit(tuple(items), within=within)

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        await self._writer.submit(deletion, within=within)

    async def end_session(self, end: SessionEnd) -> bool:
        return bool(await self._submit_end(end, end.unfinished))

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredRow]) -> Closed:
        return await self._submit_end(BulkClose(instance_id, trio.current_time()), unfinished)

    async def stop_instance(self, instance_id: UUID) -> None:
        await self._submit_end(InstanceStop(instance_id), ())

    async def _submit_end(self, end: Write, unfinished: Sequence[StoredRow]) -> Closed:
        """Submits an end behind the items that were unfinished by then; where these fail, the end still counts."""
        groups = by_session(unfinished)
        *stored, outcome = await self._writer.submit_surely(*(tuple(items) for items in groups), end)
        for items, failure in zip(groups, stored, strict=True):
            if isinstance(failure, InvalidRow):
                _log.warning("unfinished_items_refused", session_id=str(items[0].session_id), error=str(failure))
        if isinstance(outcome, StoreError):
            raise outcome
        assert isinstance(outcome, frozenset)
        return outcome

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Commits a batch of the writer in one transaction; returns an outcome per write."""
        commit = partial(self._commit_batch, BatchStatement(writes))
        try:
            with timed(self._metrics, "commit"):
                outcomes = await bounded_call(self._loop, CALL_SECONDS, self._connections.run, commit)
        except StoreUnavailable as error:
            self._failed = (trio.current_time(), error)
            raise
        self._failed = None
        now = trio.current_time()
        stored = (write for write, outcome in zip(writes, outcomes, strict=True) if not isinstance(outcome, StoreError))
        self._stored |= dict.fromkeys(map(type, stored), now)
        return outcomes

    async def _commit_batch(self, batch: BatchStatement, connection: Any) -> Sequence[Outcome]:
        if self._clock.doubtful:
            await self._read_clock(connection)
        now = trio.current_time()
        if not batch.needs_transaction:
            return await self._run_batch(batch, connection, now)
        async with connection.transaction():
            return await self._run_batch(batch, connection, now)

    async def _read_clock(self, connection: Any) -> None:
        """Reads it again where the answer was slow: on a busy machine the first may be a tenth of a second off."""
        for _ in range(CLOCK_QUERIES_MAX):
            asked = trio.current_time()
            at = await connection.fetchval(QUERIES["clock"])
            answered = trio.current_time()
            self._clock.observe(asked, answered, at)
            if self._clock.error(answered) <= CLOCK_EXACT_SECONDS:
                break
        self._clock.doubtful = False

    async def _run_batch(self, batch: BatchStatement, connection: Any, now: float) -> Sequence[Outcome]:
        moment = self._clock.at(now)
        assert moment is not None
        try:
            return await batch.run(connection, now, moment)
        finally:
            if batch.at is not None:
                self._clock.observe(now, trio.current_time(), batch.at)
