"""The group-commit writer: rows that arrive while one commit is in flight form the next batch. It knows no SQL.

There is no timer: an idle writer commits a row at once, and batches grow only under load.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from .store import InvalidRow, StoreError, StoreUnavailable

Row = TypeVar("Row")

BATCH_ROWS_MAX = 512
QUEUE_ROWS_MAX = 65_536
RETRY_WAIT_SECONDS_MIN = 0.02
RETRY_WAIT_SECONDS_MAX = 0.5

Outcome = bool | StoreError


@dataclass(eq=False, slots=True)
class _Entry(Generic[Row]):
    row: Row
    settled: trio.Event = field(default_factory=trio.Event)
    outcome: Outcome = False
    abandoned: bool = False

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.settled.set()


class CommitWriter(Generic[Row]):
    """Commits rows in batches, in the order in which they were submitted.

    commit: stores a batch whole or not at all and returns an outcome per row; a row whose outcome is
        `StoreUnavailable` was left out, and is queued again. It must be idempotent. It raises
        `StoreUnavailable` for a failure that passes (the batch is tried again) and `InvalidRow` where a row is at
        fault (the batch is halved until that row stands alone).
    """

    def __init__(self, commit: Callable[[Sequence[Row]], Awaitable[Sequence[Outcome]]]) -> None:
        self._commit = commit
        self._send, self._receive = trio.open_memory_channel[_Entry[Row]](QUEUE_ROWS_MAX)
        self._give_up_at = float("inf")
        self._under_way = trio.CancelScope()  # of the commit under way

    async def submit(self, row: Row, *, within: float) -> bool:
        """Queues a row, synchronously, and returns once its batch is committed.

        A caller that is cancelled meanwhile does not stop the write; one whose `within` seconds pass gets
        `StoreUnavailable`, and the row is dropped unless a commit holds it already: the outcome is then unknown.
        """
        entry = self._enqueue(row)
        with trio.move_on_after(within):
            await entry.settled.wait()
        if not entry.settled.is_set():
            entry.abandoned = True
            raise StoreUnavailable(f"no commit within {within:g} s")
        return _unwrap(entry.outcome)

    async def submit_surely(self, row: Row) -> bool:
        """Like `submit`, for rows that must land: tried until they are committed or the writer is closed."""
        entry = self._enqueue(row)
        await entry.settled.wait()
        return _unwrap(entry.outcome)

    def _enqueue(self, row: Row) -> _Entry[Row]:
        entry = _Entry(row)
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
                    await self._settle_batch([first, *self._waiting()])

    async def _again(self, entry: _Entry[Row], outcome: StoreUnavailable) -> None:
        """Queues a row again that could not be committed now, while the rest of its batch was."""
        await trio.sleep(RETRY_WAIT_SECONDS_MAX)
        try:
            self._send.send_nowait(entry)
        except (trio.WouldBlock, trio.ClosedResourceError):
            entry.settle(outcome)

    def _waiting(self) -> list[_Entry[Row]]:
        entries: list[_Entry[Row]] = []
        while len(entries) < BATCH_ROWS_MAX - 1:
            try:
                entries.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return entries

    async def _settle_batch(self, entries: Sequence[_Entry[Row]]) -> None:
        try:
            outcomes = await self._commit_with_retry(entries)
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
            for entry, outcome in zip(entries, outcomes, strict=True):
                if isinstance(outcome, StoreUnavailable):
                    self._later.start_soon(self._again, entry, outcome)
                else:
                    entry.settle(outcome)

    async def _commit_with_retry(self, entries: Sequence[_Entry[Row]]) -> Sequence[Outcome]:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=RETRY_WAIT_SECONDS_MIN, max=RETRY_WAIT_SECONDS_MAX),
            stop=lambda _: trio.current_time() >= self._give_up_at or all(entry.abandoned for entry in entries),
            sleep=trio.sleep,
            reraise=True,
        )
        return await attempts(self._commit_live, entries)

    async def _commit_live(self, entries: Sequence[_Entry[Row]]) -> Sequence[Outcome]:
        live = [entry for entry in entries if not entry.abandoned]
        outcomes = (
            dict(zip(live, await self._commit_in_time([entry.row for entry in live]), strict=True)) if live else {}
        )
        return [outcomes.get(entry, False) for entry in entries]

    async def _commit_in_time(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        with trio.CancelScope(deadline=self._give_up_at) as self._under_way:
            return await self._commit(rows)
        raise StoreUnavailable("the writer was closed before the commit returned")


def _unwrap(outcome: Outcome) -> bool:
    if isinstance(outcome, StoreError):
        raise outcome
    return outcome
