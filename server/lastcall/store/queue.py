"""The queue of rows to commit, from which several commits take batches at the same time.

Rows with the same key (of one session) are committed in the order in which they came, so they are never in two batches
at once. A row without a key concerns all keys: it is committed after all rows before it, with no other batch in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import trio

from .errors import StoreError, StoreUnavailable

Row = TypeVar("Row")
Result = TypeVar("Result")

BATCH_ROWS_MAX = 512
QUEUE_ROWS_MAX = 65_536

Outcome: TypeAlias = Result | StoreError


@dataclass(eq=False, slots=True)
class PendingWrite(Generic[Row, Result]):
    """A row and its outcome.

    key: None where it concerns all keys. abandoned: nobody waits for it any more. trouble: why it is not committed yet.
    """

    row: Row
    key: Hashable
    outcome: Outcome[Result] | None = None
    abandoned: bool = False
    trouble: str | None = None
    _caller: trio.lowlevel.Task | None = None

    def settle(self, outcome: Outcome[Result]) -> None:
        """Sets the outcome and wakes the caller."""
        self.outcome = outcome
        self._wake()

    def give_up(self) -> None:
        """Wakes the caller without an outcome. Whether the row is committed is then unknown."""
        self.abandoned = True
        self._wake()

    async def wait(self) -> None:
        """Waits, as the row's only caller, until it is settled or given up."""
        if self.outcome is not None or self.abandoned:
            await trio.lowlevel.checkpoint()
            return
        self._caller = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave)  # an Event for each row takes twice as long

    def _wake(self) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            trio.lowlevel.reschedule(caller)

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._caller = None
        return trio.lowlevel.Abort.SUCCEEDED


@dataclass(eq=False, slots=True)
class WriteBatch(Generic[Row, Result]):
    """Rows that are being committed, and their keys, for which further rows have to wait."""

    entries: list[PendingWrite[Row, Result]] = field(default_factory=list)
    keys: set[Hashable] = field(default_factory=set)


class CommitQueue(Generic[Row, Result]):
    """Holds at most `QUEUE_ROWS_MAX` rows."""

    def __init__(self) -> None:
        self._waiting: deque[PendingWrite[Row, Result]] = deque()
        self._out: list[WriteBatch[Row, Result]] = []
        self._takers = trio.lowlevel.ParkingLot()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, entry: PendingWrite[Row, Result]) -> None:
        """Appends a row, synchronously. Raises `StoreUnavailable` where the queue is full or closed."""
        if self._closed or len(self._waiting) >= QUEUE_ROWS_MAX:
            raise StoreUnavailable("the commit queue is full or closed")
        self._waiting.append(entry)
        if self._takers:
            self._takers.unpark()

    def close(self) -> None:
        """Accepts no more rows."""
        self._closed = True
        self._takers.unpark_all()

    async def batch(self) -> WriteBatch[Row, Result] | None:
        """Waits for rows that may be committed and takes them; pass them to `done`. None: closed and empty."""
        batch: WriteBatch[Row, Result] = WriteBatch()
        while True:
            self.fill(batch)
            if batch.entries:
                self._out.append(batch)
                return batch
            if self._closed and not self._waiting:
                return None
            await self._takers.park()

    def fill(self, batch: WriteBatch[Row, Result]) -> None:
        """Adds rows that have arrived since, up to `BATCH_ROWS_MAX`."""
        others = [other.keys for other in self._out if other is not batch]
        passed: list[PendingWrite[Row, Result]] = []
        while self._waiting and len(batch.entries) < BATCH_ROWS_MAX and not any(None in keys for keys in others):
            key = self._waiting[0].key
            if key is None and others:
                break
            entry = self._waiting.popleft()
            if any(key in keys for keys in others):
                passed.append(entry)
            else:
                batch.entries.append(entry)
                batch.keys.add(key)
        self._waiting.extendleft(reversed(passed))

    def done(self, batch: WriteBatch[Row, Result]) -> None:
        """Releases the keys of a batch whose rows are all settled or queued again."""
        self._out.remove(batch)
        if self._waiting or self._closed:  # else there is nothing to wake another one for
            self._takers.unpark_all()
