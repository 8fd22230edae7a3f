"""Plays one overlap on a database of its own, and holds the result against every order of its statements."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from ..promises import Promise
from .checks import Broken, settled
from .database import TABLES, Database, clock, observe
from .model import EVIDENCE, possible
from .orders import Failure, differences, following
from .serial import Ending, Sent, endings
from .state import TICK, Known, Snapshot, State, learned
from .statements import Sql, create_servers, send

CONNECTIONS = 4  # one that looks, and up to three statements at once
POLLS_MAX = 10_000  # looks at whether a statement waits or has returned
IN_TRANSACTION = ("begin", "begin-append", "visit", "end", "end-late", "leave", "stop", "renew")
SETTLING = ("judge:B", "reap:A-by-B", "end:A", "silence", "claim:A", "finish:A")

KEPT = TABLES.split(", ")
KEEP = "".join(f"DROP TABLE IF EXISTS kept.{each}; CREATE TABLE kept.{each} AS TABLE {each};" for each in KEPT)
RESTORE = "".join(
    (
        "BEGIN; SET LOCAL session_replication_role = replica;",
        *(f"DELETE FROM {each};" for each in KEPT),
        *(f"INSERT INTO {each} OVERRIDING SYSTEM VALUE SELECT * FROM kept.{each};" for each in KEPT),
        "COMMIT",
    )
)


class Overlap(NamedTuple):
    """Statements that overlap, after a setup. paused: before which of its parts the first one waits for the others."""

    setup: str
    names: tuple[str, ...]
    paused: int | None = None
    commit: bool = True

    def __str__(self) -> str:
        first = self.names[0] if self.paused is None else f"{self.names[0]}@{self.paused}"
        names = " & ".join((first, *self.names[1:]))
        return f"{self.setup} / {names} / {'commit' if self.commit else 'rollback'}"


@dataclass
class Overlaps:
    """All results. early: ends of a dead owner's sessions that were dated early, within their bound."""

    setups: int = 0
    pairs: int = 0
    triples: int = 0
    early: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = True


class OverlapLane:
    """A database in which one overlap after the other is played, on connections of their own."""

    def __init__(self, sqls: Sequence[Sql], tell: Callable[[str], None]) -> None:
        self._own, *self._actors = sqls
        self._tell = tell
        self._others: str | None = None
        self.setup = State(Snapshot(), Known(), 0)
        self._pids: list[int] = []

    @classmethod
    async def open(cls, made: Database, tell: Callable[[str], None] = lambda _: None) -> OverlapLane:
        """tell: called with a line about every step."""
        lane = cls([await made.connect() for _ in range(CONNECTIONS)], tell)
        lane._pids = [actor.raw.get_server_pid() for actor in lane._actors]
        await lane._own.raw.execute("CREATE SCHEMA kept")
        return lane

    async def set_up(self, setup: str) -> list[Failure]:
        """Plays a setup's order, and keeps the tables for `play` to restore."""

        async def set_clock(now: int) -> None:
            await self._own.raw.execute(clock(now))

        await self._own.raw.execute(f"TRUNCATE {TABLES}")
        await create_servers(self._own, set_clock)
        snapshot, self._others = await observe(self._own, None)
        self.setup, failures = await self._play(State(snapshot, Known(), 0), setup.split())
        await self._own.raw.execute(KEEP)
        return [Failure(setup, failure.broken) for failure in failures]

    async def _play(self, state: State, names: Sequence[str]) -> tuple[State, list[Failure]]:
        """Sends one statement after the other, and checks each against the model; impossible ones are skipped."""
        failures: list[Failure] = []
        for name in names:
            if not possible(name, state):
                self._tell(f"{'':14}  {name:15} is not possible here: skipped")
                continue
            now = following(name, state.now)
            await self._own.raw.execute(clock(now))
            answer = await send(self._own, name, state, now)
            snapshot, _ = await observe(self._own, self._others)
            after = State(snapshot, learned(state.known, name, answer), now)
            wrong = differences(state, name, answer, after)
            self._tell(f"{now / 1e6:>12.6f} s  {name:15} {answer:20} {snapshot}")
            if wrong:
                failures.append(Failure(name, wrong))
            state = after
        return state, failures

    async def play(self, overlap: Overlap, found: Overlaps) -> None:
        """Plays one overlap after the setup; failures go to `found`."""
        await self._own.raw.execute(RESTORE)
        sent = [Sent(name, self.setup.now + TICK * (1 + index)) for index, name in enumerate(overlap.names)]
        answers, waited = await self._overlap(overlap, sent)
        snapshot, _ = await observe(self._own, self._others)
        for each, answer in zip(sent, answers, strict=True):
            self._tell(f"{each.now / 1e6:>12.6f} s  {each.name:15} {answer}")
        self._tell(f"{'':14}  {waited} waited, and then {snapshot}")
        wrong = [
            Broken(Promise.BOUNDED, f"{each.name}: {answer}")
            for each, answer in zip(sent, answers, strict=True)
            if "error" in answer
        ]
        ending = _matching(self.setup, overlap, sent, answers, snapshot, waited=bool(waited))
        if ending is None:
            wrong.append(Broken(Promise.SERIALIZABLE, f"no order of them gives {answers} and {snapshot}"))
        else:
            found.outcomes["skipped" if ending.skipped else "waited" if waited else "went through"] += 1
            found.early += ending.snapshot != snapshot
            if ending.skipped:  # else the state is that of some order, and `orders.py` has continued from it
                wrong += await self._settle(overlap, sent, answers, snapshot)
        if wrong:
            found.failures.append(Failure(str(overlap), wrong))

    async def _settle(
        self, overlap: Overlap, sent: Sequence[Sent], answers: Sequence[str], snapshot: Snapshot
    ) -> list[Broken]:
        """Plays what follows, which must leave everything settled."""
        known = self.setup.known
        for index, (each, answer) in enumerate(zip(sent, answers, strict=True)):
            if index or overlap.commit:
                known = learned(known, each.name, answer)
        again = [each.name for each, answer in zip(sent, answers, strict=True) if "held" in answer]
        state, failures = await self._play(State(snapshot, known, sent[-1].now), [*again, *SETTLING])
        return [
            *(
                each._replace(how=f"afterwards, {failure.order}: {each.how}")
                for failure in failures
                for each in failure.broken
            ),
            *settled(state.snapshot),
        ]

    async def _overlap(self, overlap: Overlap, sent: Sequence[Sent]) -> tuple[list[str], int]:
        """Returns the answers, and how many statements waited for the first."""
        reached, go_on = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.ensure_future(self._first(sent[0], overlap, reached, go_on))]
        await reached.wait()
        waited = 0
        for actor, each in zip(self._actors[1:], sent[1:], strict=False):
            tasks.append(asyncio.ensure_future(self._other(actor, each)))
            waited += await self._waits(tasks[-1], actor)
        go_on.set()
        return [await task for task in tasks], waited

    async def _first(self, sent: Sent, overlap: Overlap, reached: asyncio.Event, go_on: asyncio.Event) -> str:
        """Sends X, which holds its locks until `go_on`."""
        actor = self._actors[0]
        count = 0

        async def between() -> None:
            nonlocal count
            count += 1
            if count == overlap.paused:
                reached.set()
                await go_on.wait()

        try:
            await actor.raw.execute(f"{clock(sent.now)}; BEGIN")
            actor.pause(between)
            answer = await send(actor, sent.name, self.setup, sent.now)
            actor.pause(None)
        finally:
            reached.set()
        await go_on.wait()
        await actor.raw.execute("COMMIT" if overlap.commit else "ROLLBACK")
        return answer

    async def _other(self, actor: Sql, sent: Sent) -> str:
        batched = sent.verb in IN_TRANSACTION
        await actor.raw.execute(f"{clock(sent.now)}; BEGIN" if batched else clock(sent.now))
        answer = await send(actor, sent.name, self.setup, sent.now)
        if batched:
            await actor.raw.execute("COMMIT")
        return answer

    async def _waits(self, task: asyncio.Future[str], actor: Sql) -> bool:
        """Returns once the statement has returned, or waits for another; whether it waits."""
        pid = self._pids[self._actors.index(actor)]
        for _ in range(POLLS_MAX):
            blocked = await self._own.raw.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid)
            if task.done():
                return False
            if blocked:
                return True
        return False


def _matching(
    setup: State, overlap: Overlap, sent: Sequence[Sent], answers: Sequence[str], snapshot: Snapshot, *, waited: bool
) -> Ending | None:
    """The ending that explains the result; preferably one in which no statement skipped the row."""
    ways_of = partial(endings, setup, sent, whole=overlap.paused is None, waited=waited)
    ways = ways_of(undone=False)
    if not overlap.commit:
        # X must have left nothing behind; its answer was true as long as its transaction lasted.
        said = {each.answers[0] for each in ways}
        if answers[0] not in said:
            return None
        ways = ways_of(undone=True)
        answers = ["", *answers[1:]]
    found = [each for each in ways if each.answers == tuple(answers) and _alike(each.snapshot, snapshot)]
    return min(found, key=lambda each: (each.snapshot != snapshot, each.skipped), default=None)


def _alike(expected: Snapshot, snapshot: Snapshot) -> bool:
    """Whether both are the same, except that an owner's death may be dated a little early.

    A statement that closes a dead owner's row reads the newest item in a snapshot as old as itself: it misses an item
    that was committed while it waited. `EVIDENCE` bounds the difference.
    """
    was, end = expected.end, snapshot.end
    if was.reason == "owner_died" and was.at is not None and end.at is not None and end.duration is not None:
        early = was.at - end.at
        if 0 <= early <= EVIDENCE:
            snapshot = replace(snapshot, end=end._replace(at=was.at, duration=end.duration + early))
    return expected == snapshot
