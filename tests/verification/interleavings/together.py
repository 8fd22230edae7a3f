"""Statements that truly overlap: one transaction is open, others come to the same rows on connections of their own.

From each of some scenes, every ordered pair of statements: X in an open transaction, then Y, which returns, passes the
row over, or waits; then X commits, or rolls back. Of X that is a batch of several statements, Y also comes between
them. Whether Y waits is asked of PostgreSQL, never guessed by the clock. What comes out must be what some order of the
two comes to (`serial.py`); who passed the row over does it again, and in the end everything is settled.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from .database import TABLES, Database, Source, clock, database, observe
from .model import BATCHES, EVIDENCE, NAMES, possible
from .orders import Failure, differences, following
from .promises import settled
from .serial import Ending, Sent, endings
from .statements import Sql, furnish, send
from .world import TICK, Known, State, World, learned

LANES = 3
FAILURES_MAX = 20
POLLS_MAX = 10_000  # looks at whether a statement waits or returned
READING = ("judge:B", "suspect:B", "look:hand", "silence")  # they meet nobody: they take no lock, and wait for none
BATCHED = (
    "begin",
    "begin-append",
    "visit",
    "end",
    "end-late",
    "leave",
    "stop",
    "renew",
)  # in a transaction of their own

SCENES = (
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
SETTLING = ("judge:B", "reap:A-by-B", "end:A", "silence", "claim:A", "finish:A")
TRIPLE_SCENES = (
    "begin:A append-user:A",
    "begin:A append-user:A silence judge:B",
    "begin:A append-user:A end:A claim:A silence claim:B",
)
TRIPLE_NAMES = (
    "begin-append:A", "append-user:A", "end:A", "leave:A", "renew:A", "reap:A-by-B", "repair:hand", "claim:A",
    "finish:A", "finish:B",
)  # fmt: skip

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


class Meeting(NamedTuple):
    """Statements that overlap. paused: before which of its own statements the first lets the others come."""

    scene: str
    names: tuple[str, ...]
    paused: int | None = None
    commit: bool = True

    def __str__(self) -> str:
        first = self.names[0] if self.paused is None else f"{self.names[0]}@{self.paused}"
        met = " & ".join((first, *self.names[1:]))
        return f"{self.scene} / {met} / {'commit' if self.commit else 'rollback'}"


@dataclass
class Meetings:
    """What was found. early: ends of a dead owner's sessions that were dated early, within their bound."""

    scenes: int = 0
    pairs: int = 0
    triples: int = 0
    early: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = True


def meetings(scene: str, at: State, names: Sequence[str] = NAMES) -> Iterator[Meeting]:
    """All pairs of a scene."""
    there = [name for name in names if possible(name, at) and name not in READING]
    for first in there:
        for second in there:
            yield Meeting(scene, (first, second), commit=False)
            for paused in (None, *range(1, len(BATCHES.get(first, ("",))))):
                yield Meeting(scene, (first, second), paused)


def triples(scene: str, at: State) -> Iterator[Meeting]:
    there = [name for name in TRIPLE_NAMES if possible(name, at)]
    for first in there:
        for second in there:
            for third in there:
                yield Meeting(scene, (first, second, third))


class Stage:
    """A database in which one meeting after the other takes place, and the connections of those who meet."""

    def __init__(self, sqls: Sequence[Sql], tell: Callable[[str], None]) -> None:
        self._own, *self._actors = sqls
        self._tell = tell
        self._others: str | None = None
        self.scene = State(World(), Known(), 0)
        self._pids: list[int] = []

    @classmethod
    async def set_up(cls, made: Database, tell: Callable[[str], None] = lambda _: None) -> Stage:
        """tell: is given a line about every step."""
        stage = cls([await made.connect() for _ in range(4)], tell)
        stage._pids = [actor.raw.get_server_pid() for actor in stage._actors]
        await stage._own.raw.execute("CREATE SCHEMA kept")
        return stage

    async def prepare(self, scene: str) -> list[Failure]:
        """Plays a scene's order, and keeps it."""

        async def set_clock(now: int) -> None:
            await self._own.raw.execute(clock(now))

        await self._own.raw.execute(f"TRUNCATE {TABLES}")
        await furnish(self._own, set_clock)
        world, self._others = await observe(self._own, None)
        self.scene, failures = await self._play(State(world, Known(), 0), scene.split())
        await self._own.raw.execute(KEEP)
        return [Failure(scene, failure.broken) for failure in failures]

    async def _play(self, state: State, names: Sequence[str]) -> tuple[State, list[Failure]]:
        """One statement after the other, each held to the model; those that are impossible are left out."""
        failures: list[Failure] = []
        for name in names:
            if not possible(name, state):
                self._tell(f"{'':14}  {name:15} is not possible here, and left out")
                continue
            now = following(name, state.now)
            await self._own.raw.execute(clock(now))
            answer = await send(self._own, name, state, now)
            world, _ = await observe(self._own, self._others)
            after = State(world, learned(state.known, name, answer), now)
            wrong = differences(state, name, answer, after)
            self._tell(f"{now / 1e6:>12.6f} s  {name:15} {answer:20} {world}")
            if wrong:
                failures.append(Failure(name, wrong))
            state = after
        return state, failures

    async def meet(self, meeting: Meeting, found: Meetings) -> None:
        """One meeting, from the scene, and what is wrong with what came out."""
        await self._own.raw.execute(RESTORE)
        sent = [Sent(name, self.scene.now + TICK * (1 + index)) for index, name in enumerate(meeting.names)]
        answers, waited = await self._overlap(meeting, sent)
        world, _ = await observe(self._own, self._others)
        for each, answer in zip(sent, answers, strict=True):
            self._tell(f"{each.now / 1e6:>12.6f} s  {each.name:15} {answer}")
        self._tell(f"{'':14}  {waited} waited, and then {world}")
        wrong = [f"{each.name}: {answer}" for each, answer in zip(sent, answers, strict=True) if "error" in answer]
        ending = _matching(self.scene, meeting, sent, answers, world, waited=bool(waited))
        if ending is None:
            wrong.append(f"no order of them comes to {answers} and {world}")
        else:
            found.outcomes["passed over" if ending.passed_over else "waited" if waited else "went through"] += 1
            found.early += ending.world != world
            if ending.passed_over:  # else all is as after some order, and `orders.py` has gone on from there
                wrong += await self._settle(meeting, sent, answers, world)
        if wrong:
            found.failures.append(Failure(str(meeting), wrong))

    async def _settle(self, meeting: Meeting, sent: Sequence[Sent], answers: Sequence[str], world: World) -> list[str]:
        """What is done next, and that it leaves everything settled."""
        known = self.scene.known
        for index, (each, answer) in enumerate(zip(sent, answers, strict=True)):
            if index or meeting.commit:
                known = learned(known, each.name, answer)
        again = [each.name for each, answer in zip(sent, answers, strict=True) if "held" in answer]
        state, failures = await self._play(State(world, known, sent[-1].now), [*again, *SETTLING])
        return [
            *(f"afterwards, {failure.order}: {each}" for failure in failures for each in failure.broken),
            *settled(state.world),
        ]

    async def _overlap(self, meeting: Meeting, sent: Sequence[Sent]) -> tuple[list[str], int]:
        """The answers, and how many waited for the first."""
        reached, go_on = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.ensure_future(self._first(sent[0], meeting, reached, go_on))]
        await reached.wait()
        waited = 0
        for actor, each in zip(self._actors[1:], sent[1:], strict=False):
            tasks.append(asyncio.ensure_future(self._other(actor, each)))
            waited += await self._waits(tasks[-1], actor)
        go_on.set()
        return [await task for task in tasks], waited

    async def _first(self, sent: Sent, meeting: Meeting, reached: asyncio.Event, go_on: asyncio.Event) -> str:
        """X: holds what it has locked until it is told to go on."""
        actor = self._actors[0]
        count = 0

        async def between() -> None:
            nonlocal count
            count += 1
            if count == meeting.paused:
                reached.set()
                await go_on.wait()

        try:
            await actor.raw.execute(f"{clock(sent.now)}; BEGIN")
            actor.pause(between)
            answer = await send(actor, sent.name, self.scene, sent.now)
            actor.pause(None)
        finally:
            reached.set()
        await go_on.wait()
        await actor.raw.execute("COMMIT" if meeting.commit else "ROLLBACK")
        return answer

    async def _other(self, actor: Sql, sent: Sent) -> str:
        batched = sent.verb in BATCHED
        await actor.raw.execute(f"{clock(sent.now)}; BEGIN" if batched else clock(sent.now))
        answer = await send(actor, sent.name, self.scene, sent.now)
        if batched:
            await actor.raw.execute("COMMIT")
        return answer

    async def _waits(self, task: asyncio.Future[str], actor: Sql) -> bool:
        """Returns when the statement has returned, or waits for somebody; whether it waits."""
        pid = self._pids[self._actors.index(actor)]
        for _ in range(POLLS_MAX):
            blocked = await self._own.raw.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid)
            if task.done():
                return False
            if blocked:
                return True
        return False


def _matching(
    scene: State, meeting: Meeting, sent: Sequence[Sent], answers: Sequence[str], world: World, *, waited: bool
) -> Ending | None:
    """The way that explains what came out, and best one in which nobody passed anything over."""
    ways_of = partial(endings, scene, sent, whole=meeting.paused is None, waited=waited)
    ways = ways_of(undone=False)
    if not meeting.commit:
        # Of what X did, nothing may be left; what it said was true as long as it lasted.
        said = {each.answers[0] for each in ways}
        if answers[0] not in said:
            return None
        ways = ways_of(undone=True)
        answers = ["", *answers[1:]]
    found = [each for each in ways if each.answers == tuple(answers) and _alike(each.world, world)]
    return min(found, key=lambda each: (each.world != world, each.passed_over), default=None)


def _alike(expected: World, world: World) -> bool:
    """Whether one is the other, but for an owner's death that may be dated a little early.

    Who closes a dead owner's row reads its newest item in a snapshot that is as old as the statement: an item that was
    committed while the statement waited is not in it. What that can make out is bounded by `EVIDENCE`.
    """
    was, end = expected.end, world.end
    if was.reason == "owner_died" and was.at is not None and end.at is not None and end.duration is not None:
        early = was.at - end.at
        if 0 <= early <= EVIDENCE:
            world = replace(world, end=end._replace(at=was.at, duration=end.duration + early))
    return expected == world


class Company:
    """All meetings of all scenes, shared out among stages."""

    def __init__(
        self,
        *,
        until: float = float("inf"),
        scenes: Sequence[str] = SCENES,
        names: Sequence[str] = NAMES,
        with_triples: bool = False,
        failures_max: int = FAILURES_MAX,
        found: Meetings | None = None,
    ) -> None:
        self.found = found or Meetings()
        self._until = until
        self._scenes = scenes
        self._names = names
        self._with_triples = with_triples
        self._failures_max = failures_max

    async def run(self, stages: Sequence[Stage]) -> None:
        scenes = iter(self._scenes)
        await asyncio.gather(*(self._work(stage, scenes) for stage in stages))

    async def _work(self, stage: Stage, scenes: Iterator[str]) -> None:
        for scene in scenes:
            self.found.failures += await stage.prepare(scene)
            self.found.scenes += 1
            for meeting in meetings(scene, stage.scene, self._names):
                if self._over():
                    return
                await stage.meet(meeting, self.found)
                self.found.pairs += 1
            if self._with_triples and scene in TRIPLE_SCENES:
                await self._meet_three(stage, scene)

    async def _meet_three(self, stage: Stage, scene: str) -> None:
        for meeting in triples(scene, stage.scene):
            if self._over():
                return
            await stage.meet(meeting, self.found)
            self.found.triples += 1

    def _over(self) -> bool:
        over = time.monotonic() > self._until or len(self.found.failures) >= self._failures_max
        self.found.complete &= not over
        return over


async def meet_all(url: str, source: Source, *, lanes: int = LANES, **options: Any) -> Meetings:
    """All meetings, in databases of their own. options: of `Company`."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(database(url, source)) for _ in range(lanes)]
        company = Company(**options)
        await company.run([await Stage.set_up(each) for each in made])
        company.found.seconds = time.monotonic() - began
        return company.found
