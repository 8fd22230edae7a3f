"""The group-commit writer: rows that arrive while commits are in flight form the next batch. Independent of SQL.

There is no timer: an idle writer commits a row at once, and batches grow only under load.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeAlias, TypeVar

import structlog
import trio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from ..runtime.timer import Timer
from .errors import InvalidRow, StoreError, StoreUnavailable
from .queue import CommitQueue, Outcome, PendingWrite, WriteBatch

Row = TypeVar("Row")
Result = TypeVar("Result")

COMMITS_MAX = 2  # in flight; with one, an end waited for another batch half of the time until it was committed
RETRY_WAIT_SECONDS_MIN = 0.02
RETRY_WAIT_SECONDS_MAX = 0.5
LOG_SECONDS = 5.0  # between log lines about commits that fail

Commit: TypeAlias = Callable[[Sequence[Row]], Awaitable[Sequence[Outcome[Result]]]]
_Settled: TypeAlias = Sequence[tuple[PendingWrite[Row, Result], Outcome[Result]]]
_CommitLive: TypeAlias = Callable[
    [list[PendingWrite[Row, Result]], WriteBatch[Row, Result] | None], Awaitable[_Settled[Row, Result]]
]

_log = structlog.get_logger(__name__)


class CommitWriter(Generic[Row, Result]):
    """Commits rows in batches; rows with the same key are committed in the order in which they came.

    commit: stores a batch, all or nothing, and returns an outcome per row; a row whose outcome is `StoreUnavailable`
        was left out and is queued again. It must be idempotent. It raises `StoreUnavailable` for a transient failure
        (the batch is retried) and `InvalidRow` for a bad row (the batch is halved until that row stands alone). It is
        called for up to `COMMITS_MAX` batches at once.
    key: of a row; None where the row concerns all keys.
    """

    def __init__(self, commit: Commit[Row, Result], key: Callable[[Row], Hashable]) -> None:
        self._commit = commit
        self._key = key
        self._queue = CommitQueue[Row, Result]()
        self._timer = Timer()  # of all callers: a cancel scope for each took longer than its share of the commit
        self._give_up_at = float("inf")
        self._next_log_at = float("-inf")
        self._under_way: set[trio.CancelScope] = set()

    @property
    def waiting(self) -> int:
        """The number of rows that wait for a commit."""
        return len(self._queue)

    async def submit(self, row: Row, *, within: float) -> Result:
        """Queues a row, synchronously, and returns once its batch is committed.

        Cancelling the caller does not stop the write. After `within` seconds it raises `StoreUnavailable` and drops the
        row, unless a commit in flight has it already: whether it was committed is then unknown.
        """
        entry = self._enqueue(row)
        alarm = self._timer.at(trio.current_time() + within, entry.give_up)
        try:
            await entry.wait()
        finally:
            alarm.cancel()
        if entry.outcome is None:
            raise StoreUnavailable(f"no commit within {within:g} s: {entry.trouble or 'no answer yet'}")
        if isinstance(entry.outcome, StoreError):
            raise entry.outcome
        return entry.outcome

    async def submit_surely(self, *rows: Row) -> Sequence[Outcome[Result]]:
        """Like `submit`, but retries until the rows are committed or the writer is closed.

        Returns an outcome per row, errors included: a bad row does not affect the others.
        """
        entries = [self._enqueue(row) for row in rows]
        for entry in entries:
            await entry.wait()
        return [entry.outcome for entry in entries if entry.outcome is not None]

    def _enqueue(self, row: Row) -> PendingWrite[Row, Result]:
        entry: PendingWrite[Row, Result] = PendingWrite(row, self._key(row))  # `PendingWrite[…](…)` takes far longer
        self._queue.put(entry)
        return entry

    def close(self, budget_seconds: float) -> None:
        """Accepts no more rows; `run` commits those that are queued, for at most `budget_seconds` from now."""
        self._give_up_at = trio.current_time() + budget_seconds
        for scope in self._under_way:
            scope.deadline = self._give_up_at
        self._queue.close()

    async def run(self) -> None:
        """Commits until the writer is closed and its queue is empty.

        Shielded, since cleanup code submits ends of sessions and waits for this very task. It ends because its queue is
        closed, never because it is cancelled.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as services:
                services.start_soon(self._timer.run)
                async with trio.open_nursery() as self._tasks:
                    for _ in range(COMMITS_MAX):
                        self._tasks.start_soon(self._commit_batches)
                services.cancel_scope.cancel()

    async def _commit_batches(self) -> None:
        """Commits one batch after another."""
        # One object for all batches: each is part of a reference cycle, which would be left to the garbage collector.
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=RETRY_WAIT_SECONDS_MIN, max=RETRY_WAIT_SECONDS_MAX),
            stop=self._is_no_use,
            sleep=trio.sleep,
            reraise=True,
        )
        while (batch := await self._queue.batch()) is not None:
            await self._settle_batch(attempts, batch.entries, batch)
            self._queue.done(batch)

    async def _settle_batch(
        self,
        attempts: AsyncRetrying,
        entries: list[PendingWrite[Row, Result]],
        grows: WriteBatch[Row, Result] | None = None,
    ) -> None:
        """grows: the batch to which each attempt adds the rows that have arrived since."""
        try:
            try:
                settled: _Settled[Row, Result] = await self._commit_live(entries, grows)
            except StoreUnavailable as error:
                # Only then: an attempt of tenacity's takes nearly as long as the commit itself.
                settled = await attempts(self._commit_after(error), entries, grows)
        except InvalidRow as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._settle_batch(attempts, entries[:middle])
                await self._settle_batch(attempts, entries[middle:])
            else:
                entries[0].settle(error)
        except Exception as error:  # noqa: BLE001 - no batch may end the writer
            failure = error if isinstance(error, StoreError) else StoreUnavailable(f"commit failed: {error!r}")
            for entry in entries:
                entry.settle(failure)
        else:
            self._settle(settled)

    def _settle(self, settled: _Settled[Row, Result]) -> None:
        held: list[tuple[PendingWrite[Row, Result], StoreUnavailable]] = []
        for entry, outcome in settled:
            if isinstance(outcome, StoreUnavailable):
                entry.trouble = str(outcome)
                held.append((entry, outcome))
            else:
                entry.settle(outcome)
        if held:
            self._tasks.start_soon(self._again, held)

    async def _again(self, held: Sequence[tuple[PendingWrite[Row, Result], StoreUnavailable]]) -> None:
        """Queues the rows again, in their order, that were left out of their batch."""
        await trio.sleep(RETRY_WAIT_SECONDS_MAX)
        for entry, outcome in held:
            try:
                self._queue.put(entry)
            except StoreUnavailable:
                entry.settle(outcome)

    def _is_no_use(self, attempt: RetryCallState) -> bool:
        entries: Sequence[PendingWrite[Row, Result]] = attempt.args[0]
        return trio.current_time() >= self._give_up_at or all(entry.abandoned for entry in entries)

    async def _commit_live(
        self, entries: list[PendingWrite[Row, Result]], grows: WriteBatch[Row, Result] | None
    ) -> _Settled[Row, Result]:
        """Commits the rows that are still waited for."""
        if grows is not None:
            self._queue.fill(grows)
        live = [entry for entry in entries if not entry.abandoned]
        try:
            outcomes = await self._commit_in_time([entry.row for entry in live]) if live else ()
        except StoreUnavailable as error:
            for entry in live:
                entry.trouble = str(error)
            self._log_trouble(error)
            raise
        return list(zip(live, outcomes, strict=True))

    def _log_trouble(self, error: StoreUnavailable) -> None:
        """Tells the database's reason now and then: of those who wait, some give up without hearing it."""
        if trio.current_time() >= self._next_log_at:
            self._next_log_at = trio.current_time() + LOG_SECONDS
            _log.warning("commit_failed", reason=str(error))

    def _commit_after(self, failure: StoreUnavailable) -> _CommitLive[Row, Result]:
        """`_commit_live` for an attempt that begins with a failure, so that what follows is a retry."""
        failures = [failure]

        async def commit(
            entries: list[PendingWrite[Row, Result]], grows: WriteBatch[Row, Result] | None
        ) -> _Settled[Row, Result]:
            if failures:
                raise failures.pop()
            return await self._commit_live(entries, grows)

        return commit

    async def _commit_in_time(self, rows: Sequence[Row]) -> Sequence[Outcome[Result]]:
        with trio.CancelScope(deadline=self._give_up_at) as scope:
            self._under_way.add(scope)
            try:
                return await self._commit(rows)
            finally:
                self._under_way.discard(scope)
        raise StoreUnavailable("the writer was closed before the commit returned")
