"""The rows that wait for a commit, taken in batches by several commits at once, in an order that means the same.

Rows of one key (a session's) are committed in the order in which they came, so they are never in two batches at once.
A row without a key concerns all of them: it is committed after what came before it, and with nothing beside it.
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
    """A row and what became of it. key: None where it concerns all others. abandoned: nobody waits for it any more."""

    row: Row
    key: Hashable
    settled: trio.Event = field(default_factory=trio.Event)
    outcome: Outcome[Result] | None = None
    abandoned: bool = False

    def settle(self, outcome: Outcome[Result]) -> None:
        self.outcome = outcome
        self.settled.set()


@dataclass(eq=False, slots=True)
class WriteBatch(Generic[Row, Result]):
    """Rows that are being committed, and their keys: others with the same wait."""

    entries: list[PendingWrite[Row, Result]] = field(default_factory=list)
    keys: set[Hashable] = field(default_factory=set)


class CommitQueue(Generic[Row, Result]):
    """At most `QUEUE_ROWS_MAX` rows."""

    def __init__(self) -> None:
        self._waiting: deque[PendingWrite[Row, Result]] = deque()
        self._out: list[WriteBatch[Row, Result]] = []
        self._takers = trio.lowlevel.ParkingLot()
        self._closed = False

    def put(self, entry: PendingWrite[Row, Result]) -> None:
        """Synchronously. Raises `StoreUnavailable` where there is no room, or no commit will come."""
        if self._closed or len(self._waiting) >= QUEUE_ROWS_MAX:
            raise StoreUnavailable("the commit queue is full or closed")
        self._waiting.append(entry)
        self._takers.unpark()

    def close(self) -> None:
        """No more rows."""
        self._closed = True
        self._takers.unpark_all()

    async def batch(self) -> WriteBatch[Row, Result] | None:
        """The next rows that may be committed, once there are any; to be given to `done`. None: closed and empty."""
        batch = WriteBatch[Row, Result]()
        while True:
            self.fill(batch)
            if batch.entries:
                self._out.append(batch)
                return batch
            if self._closed and not self._waiting:
                return None
            await self._takers.park()

    def fill(self, batch: WriteBatch[Row, Result]) -> None:
        """Adds rows that have come since, up to `BATCH_ROWS_MAX`."""
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
        """All its rows are settled, or back in the queue: those that had to wait for it may be taken."""
        self._out.remove(batch)
        self._takers.unpark_all()
