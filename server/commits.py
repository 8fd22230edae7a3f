"""The group-commit writer: rows that arrive while one commit is in flight form the next batch. It knows no SQL.

There is no timer: an idle writer commits a row at once, and batches grow only under load.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import trio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from .store import InvalidRow, StoreError, StoreUnavailable

Row = TypeVar("Row")
Result = TypeVar("Result")

BATCH_ROWS_MAX = 512
QUEUE_ROWS_MAX = 65_536
RETRY_WAIT_SECONDS_MIN = 0.02
RETRY_WAIT_SECONDS_MAX = 0.5

Outcome: TypeAlias = Result | StoreError


@dataclass(eq=False, slots=True)
class _Entry(Generic[Row, Result]):
    row: Row
    settled: trio.Event = field(default_factory=trio.Event)
    outcome: Outcome[Result] | None = None
    abandoned: bool = False

    def settle(self, outcome: Outcome[Result]) -> None:
        self.outcome = outcome
        self.settled.set()


_Settled: TypeAlias = Sequence[tuple[_Entry[Row, Result], Outcome[Result]]]


class CommitWriter(Generic[Row, Result]):
    """Commits rows in batches, in the order in which they were submitted. `Result`: what a row's committing comes to.

    commit: stores a batch whole or not at all and returns an outcome per row; a row whose outcome is
        `StoreUnavailable` was left out, and is queued again. It must be idempotent. It raises
        `StoreUnavailable` for a failure that passes (the batch is tried again) and `InvalidRow` where a row is at
        fault (the batch is halved until that row stands alone).
    """

    def __init__(self, commit: Callable[[Sequence[Row]], Awaitable[Sequence[Outcome[Result]]]]) -> None:
        self._commit = commit
        self._send, self._receive = trio.open_memory_channel[_Entry[Row, Result]](QUEUE_ROWS_MAX)
        self._give_up_at = float("inf")
        self._under_way = trio.CancelScope()  # of the commit under way
        # One for all batches, which are committed one after the other: it is part of a reference cycle.
        self._attempts = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=RETRY_WAIT_SECONDS_MIN, max=RETRY_WAIT_SECONDS_MAX),
            stop=self._is_no_use,
            sleep=trio.sleep,
            reraise=True,
        )

    async def submit(self, row: Row, *, within: float) -> Result:
        """Queues a row, synchronously, and returns once its batch is committed.

        A caller that is cancelled meanwhile does not stop the write; one whose `within` seconds pass gets
        `StoreUnavailable`, and the row is dropped unless a commit holds it already: the outcome is then unknown.
        """
        entry = self._enqueue(row)
        with trio.move_on_after(within):
            await entry.settled.wait()
        if entry.outcome is None:
            entry.abandoned = True
            raise StoreUnavailable(f"no commit within {within:g} s")
        if isinstance(entry.outcome, StoreError):
            raise entry.outcome
        return entry.outcome

    async def submit_surely(self, *rows: Row) -> Sequence[Outcome[Result]]:
        """Like `submit`, for rows that must land: tried until they are committed or the writer is closed.

        Returns the outcome of each, failures too: one row's fault is not the others'.
        """
        entries = [self._enqueue(row) for row in rows]
        for entry in entries:
            await entry.settled.wait()
        return [entry.outcome for entry in entries if entry.outcome is not None]

    def _enqueue(self, row: Row) -> _Entry[Row, Result]:
        entry = _Entry[Row, Result](row)
        try:
            self._send.send_nowait(entry)
        except (trio.WouldBlock, trio.ClosedResourceError) as error:
            raise StoreUnavailable("the commit queue is full or closed") from error
        return entry

    def close(self, budget_seconds: float) -> None:
        """No more rows; what is queued is committed by `run`, which gives up `budget_seconds` from now."""
        self._give_up_at = self._under_way.deadline = trio.current_time() + budget_seconds
        self._send.close()

    async def run(self) -> None:
        """Commits until closed and empty.

        Shielded: ends of sessions are submitted from cleanup code, which waits for this very task. It ends because
        its channel closes, never because it is cancelled.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._later:
                async for first in self._receive:
                    await self._settle_batch([first], grows=True)

    async def _again(self, held: Sequence[tuple[_Entry[Row, Result], StoreUnavailable]]) -> None:
        """Queues rows again, in their order, that could not be committed now, while the rest of their batch was."""
        await trio.sleep(RETRY_WAIT_SECONDS_MAX)
        for entry, outcome in held:
            try:
                self._send.send_nowait(entry)
            except (trio.WouldBlock, trio.ClosedResourceError):
                entry.settle(outcome)

    def _take_waiting(self, entries: list[_Entry[Row, Result]]) -> None:
        while len(entries) < BATCH_ROWS_MAX:
            try:
                entries.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break

    async def _settle_batch(self, entries: list[_Entry[Row, Result]], *, grows: bool = False) -> None:
        """grows: each attempt takes along what has come since the one before."""
        try:
            settled: _Settled[Row, Result] = await self._attempts(self._commit_live, entries, grows)
        except InvalidRow as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._settle_batch(entries[:middle])
                await self._settle_batch(entries[middle:])
            else:
                entries[0].settle(error)
        except Exception as error:  # noqa: BLE001 - the writer outlives any one batch
            failure = error if isinstance(error, StoreError) else StoreUnavailable(f"commit failed: {error!r}")
            for entry in entries:
                entry.settle(failure)
        else:
            self._settle(settled)

    def _settle(self, settled: _Settled[Row, Result]) -> None:
        held: list[tuple[_Entry[Row, Result], StoreUnavailable]] = []
        for entry, outcome in settled:
            if isinstance(outcome, StoreUnavailable):
                held.append((entry, outcome))
            else:
                entry.settle(outcome)
        if held:
            self._later.start_soon(self._again, held)

    def _is_no_use(self, attempt: RetryCallState) -> bool:
        entries: Sequence[_Entry[Row, Result]] = attempt.args[0]
        return trio.current_time() >= self._give_up_at or all(entry.abandoned for entry in entries)

    async def _commit_live(self, entries: list[_Entry[Row, Result]], grows: bool) -> _Settled[Row, Result]:
        """Commits those rows that somebody still waits for."""
        if grows:
            self._take_waiting(entries)
        live = [entry for entry in entries if not entry.abandoned]
        outcomes = await self._commit_in_time([entry.row for entry in live]) if live else ()
        return list(zip(live, outcomes, strict=True))

    async def _commit_in_time(self, rows: Sequence[Row]) -> Sequence[Outcome[Result]]:
        with trio.CancelScope(deadline=self._give_up_at) as self._under_way:
            return await self._commit(rows)
        raise StoreUnavailable("the writer was closed before the commit returned")
