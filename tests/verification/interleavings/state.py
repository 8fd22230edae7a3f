"""One session of server A as the database shows it, and what servers and people know about it."""

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
    """What a row says about its session's end; all None while it is open."""

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
class Snapshot:
    """The database. Times are microseconds since the beginning. start: None if there is no row.

    effects: the user's memories. others: whether all other rows are unchanged.
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

    verdict: A's heartbeat when another server last found it dead. looked: when a person last saw it orphaned.
    claims: servers that work on the session's memory, or believe so.
    """

    verdict: int | None = None
    looked: int | None = None
    claims: frozenset[str] = frozenset()


class State(NamedTuple):
    snapshot: Snapshot
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
    """Everything that can matter to the future: two states of one essence have the same futures.

    Statements compare times only with each other and with the lengths above. Which of these still matter was decided by
    reading the statements; `Explorer.compare` tests it by continuing from states that were merged.
    """
    snapshot, known, _ = state
    return (
        snapshot.stopped is None,
        snapshot.reaped is None,
        known.verdict is not None,
        known.verdict == snapshot.heartbeat and snapshot.reaped is None,
        known.looked is not None,
        known.looked == snapshot.heartbeat and snapshot.reaped is None,
        (snapshot.living or snapshot.active) and state.now - snapshot.heartbeat > LEASE,
        known.claims,
        snapshot.start is None,
        snapshot.active,
        snapshot.items != (),
        snapshot.spoke,
        _lease(state) if snapshot.end == NO_END else (),
        _memory(state),
    )


def _lease(state: State) -> tuple[object, ...]:
    """What matters to a row that may still be closed on behalf of its owner."""
    snapshot, known, _ = state
    if snapshot.start is None:
        return ()
    newest = snapshot.newest if snapshot.newest is not None else snapshot.start
    order = (snapshot.heartbeat < snapshot.start, snapshot.heartbeat < newest, snapshot.heartbeat + SILENCE < newest)
    return (known.looked == snapshot.heartbeat, *order)


def _memory(state: State) -> tuple[object, ...]:
    memory = state.snapshot.memory
    return memory.status, memory.attempts, memory.due is not None and memory.due <= state.now
