"""Statements that truly overlap: one transaction is open while others use the same rows on connections of their own.

After each of some setups, every ordered pair of statements: X in an open transaction, then Y, which returns, skips the
row, or waits; then X commits, or rolls back. If X is a batch of several statements, Y also comes between them. Whether
Y waits is asked of PostgreSQL, never guessed by the clock. The result must be that of some order of the two
(`serial.py`); a statement that skipped the row is sent again, and in the end everything is settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from .database import Source, database
from .model import BATCHES, NAMES, possible
from .overlap_lane import Overlap, OverlapLane, Overlaps
from .state import State

LANES = 3
FAILURES_MAX = 20
READING = ("judge:B", "suspect:B", "look:hand", "silence")  # they take no lock, and wait for none
SETUPS = (
    "",
    "silence suspect:B",
    "begin:A",
    "begin:A append-user:A",
    "begin:A append-reply:A silence judge:B look:hand",
    "begin:A silence judge:B look:hand renew:A",
    "begin:A append-user:A stop:A judge:B",
    "begin:A append-user:A silence judge:B reap:A-by-B",
    "begin:A append-user:A end:A",
    "begin:A append-user:A end:A claim:A",
    "begin:A append-user:A end:A claim:A silence claim:B",
    "begin:A append-user:A end:A claim:B claim:A give-up:B",
    "visit:A claim:A finish:A",
)
TRIPLE_SETUPS = (
    "begin:A append-user:A",
    "begin:A append-user:A silence judge:B",
    "begin:A append-user:A end:A claim:A silence claim:B",
)
TRIPLE_NAMES = (
    "begin-append:A", "append-user:A", "end:A", "leave:A", "renew:A", "reap:A-by-B", "repair:hand", "claim:A",
    "finish:A", "finish:B",
)  # fmt: skip


def overlaps(setup: str, at: State, names: Sequence[str] = NAMES) -> Iterator[Overlap]:
    """All pairs of a setup."""
    there = [name for name in names if possible(name, at) and name not in READING]
    for first in there:
        for second in there:
            yield Overlap(setup, (first, second), commit=False)
            for paused in (None, *range(1, len(BATCHES.get(first, ("",))))):
                yield Overlap(setup, (first, second), paused)


def triples(setup: str, at: State) -> Iterator[Overlap]:
    there = [name for name in TRIPLE_NAMES if possible(name, at)]
    for first in there:
        for second in there:
            for third in there:
                yield Overlap(setup, (first, second, third))


class OverlapExplorer:
    """Plays all overlaps of all setups, divided among lanes.

    Args:
        until: When to stop, on the monotonic clock, in seconds.
        with_triples: Also three statements at a time, after some setups.
        failures_max: After so many failures, it stops.
    """

    def __init__(
        self,
        *,
        until: float = float("inf"),
        setups: Sequence[str] = SETUPS,
        names: Sequence[str] = NAMES,
        with_triples: bool = False,
        failures_max: int = FAILURES_MAX,
        found: Overlaps | None = None,
    ) -> None:
        self.found = found or Overlaps()
        self._until = until
        self._setups = setups
        self._names = names
        self._with_triples = with_triples
        self._failures_max = failures_max

    async def run(self, lanes: Sequence[OverlapLane]) -> None:
        setups = iter(self._setups)
        await asyncio.gather(*(self._work(lane, setups) for lane in lanes))

    async def _work(self, lane: OverlapLane, setups: Iterator[str]) -> None:
        for setup in setups:
            self.found.failures += await lane.set_up(setup)
            self.found.setups += 1
            for overlap in overlaps(setup, lane.setup, self._names):
                if self._over():
                    return
                await lane.play(overlap, self.found)
                self.found.pairs += 1
            if self._with_triples and setup in TRIPLE_SETUPS:
                await self._play_triples(lane, setup)

    async def _play_triples(self, lane: OverlapLane, setup: str) -> None:
        for overlap in triples(setup, lane.setup):
            if self._over():
                return
            await lane.play(overlap, self.found)
            self.found.triples += 1

    def _over(self) -> bool:
        over = time.monotonic() > self._until or len(self.found.failures) >= self._failures_max
        self.found.complete &= not over
        return over


async def explore_overlaps(url: str, source: Source, *, lanes: int = LANES, **options: Any) -> Overlaps:
    """Plays all overlaps, in databases of their own. options: of `OverlapExplorer`."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(database(url, source)) for _ in range(lanes)]
        explorer = OverlapExplorer(**options)
        await explorer.run([await OverlapLane.open(each) for each in made])
        explorer.found.seconds = time.monotonic() - began
        return explorer.found
