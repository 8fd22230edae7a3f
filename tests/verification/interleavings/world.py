"""One session of server A as the database shows it, and what the servers and people around it keep in mind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

TICK = 1_000  # microseconds from one statement to the next: so no two happen at the same time
SILENCE = 100_000_000  # microseconds in which A does nothing: longer than its lease, a claim and every back-off
START_AGE = 300  # microseconds from a session's start to the statement that stores it
END_AGE = 2_500  # microseconds from a session's end to the statement that stores it: others came between
LATE_AGE = 3_600_000_000  # an end that is dated before the start
RETRY_AFTER = 2_000_000
CLAIM = 60_000_000
LEASE = 10_000_000
ATTEMPTS_MAX = 3  # claims of one session: servers stop sending them


class Item(NamedTuple):
    """An item of the transcript; `at`: when it was stored."""

    item_id: str
    role: str
    at: int


class End(NamedTuple):
    """What a row says about its session's end; all None while there is none."""

    at: int | None = None
    written: int | None = None
    duration: int | None = None
    reason: str | None = None
    code: int | None = None
    by: str | None = None


NO_END = End()


class Memory(NamedTuple):
    """The memory columns of a row."""

    status: str = "none"
    attempts: int = 0
    due: int | None = None
    error: str | None = None
    done: int | None = None


NO_MEMORY = Memory()


@dataclass(frozen=True, slots=True)
class World:
    """The database. Times: microseconds since the beginning. `start`: None where there is no row.

    effects: the user's memories. others: whether everybody else's rows are as they were.
    """

    heartbeat: int = 0
    stopped: int | None = None
    reaped: int | None = None
    start: int | None = None
    active: bool = False
    end: End = NO_END
    memory: Memory = NO_MEMORY
    items: tuple[Item, ...] = ()
    effects: tuple[str, ...] = ()
    others: bool = True

    @property
    def living(self) -> bool:
        return self.stopped is None and self.reaped is None

    @property
    def spoke(self) -> bool:
        return any(item.role == "user" for item in self.items)

    @property
    def newest(self) -> int | None:
        return max((item.at for item in self.items), default=None)


class Known(NamedTuple):
    """What is known outside the database.

    verdict: the heartbeat by which A was last found dead; looked: the one at which a person last saw it orphaned.
    claims: who works at the session's memory, or believes so.
    """

    verdict: int | None = None
    looked: int | None = None
    claims: frozenset[str] = frozenset()


class State(NamedTuple):
    world: World
    known: Known
    now: int


def learned(known: Known, name: str, answer: str) -> Known:
    """What is known after an answer."""
    verb, _, who = name.partition(":")
    if verb in ("judge", "suspect") and answer != "none":
        return known._replace(verdict=int(answer.split()[1]))
    if verb == "look" and answer != "none":
        return known._replace(looked=int(answer.split()[1]))
    if verb == "claim" and answer != "none":
        return known._replace(claims=known.claims | {who})
    if verb in ("finish", "fail", "give-up", "release"):
        return known._replace(claims=known.claims - {who})
    return known


def essence(state: State) -> tuple[object, ...]:
    """All that can make a difference to what is still to come: two states of one essence have the same futures.

    Statements compare times only with each other and with the lengths above. Which of them still matter is decided here
    by reading the statements; `Explorer.compare` tests it by going on from states that were taken for one.
    """
    world, known, _ = state
    return (
        world.stopped is None,
        world.reaped is None,
        known.verdict is not None,
        known.verdict == world.heartbeat and world.reaped is None,
        known.looked is not None,
        (world.living or world.active) and state.now - world.heartbeat > LEASE,
        known.claims,
        world.start is None,
        world.active,
        world.items != (),
        world.spoke,
        _lease(state) if world.end == NO_END else (),
        _memory(state),
    )


def _lease(state: State) -> tuple[object, ...]:
    """Of a row that may still be closed on behalf of its owner: by what, and dated when."""
    world, known, _ = state
    if world.start is None:
        return ()
    newest = world.newest if world.newest is not None else world.start
    order = (world.heartbeat < world.start, world.heartbeat < newest, world.heartbeat + SILENCE < newest)
    return (known.looked == world.heartbeat, *order)


def _memory(state: State) -> tuple[object, ...]:
    memory = state.world.memory
    return memory.status, memory.attempts, memory.due is not None and memory.due <= state.now
