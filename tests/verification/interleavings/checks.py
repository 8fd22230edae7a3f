"""Checks one statement against the promises: what must hold between before and after, whatever the model says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..promises import Promise
from .state import LEASE, NO_END, NO_MEMORY, Snapshot, State

APPENDS = {"append-user": "user", "append-reply": "reply", "begin-append": "user", "visit": "user"}
CLOSED = ("ended", "closed 1")  # answers of a statement that closed the row
TELLING = ("end", "end-late", "visit", "leave", "reap", "sweep", "close", "repair")


class Broken(NamedTuple):
    """A promise, and how it was broken."""

    promise: Promise
    how: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.how}"


def broken(before: State, name: str, answer: str, after: Snapshot, now: int) -> list[Broken]:
    """Every promise that the statement broke."""
    return [*_shape(after, now), *_steps(before, name, answer, after, now)]


def _shape(snapshot: Snapshot, now: int) -> Iterator[Broken]:
    """What must hold of a row at any time."""
    if snapshot.start is not None:
        yield from _end(snapshot, snapshot.start, now)
    if snapshot.active and snapshot.memory != NO_MEMORY:
        yield Broken(Promise.MEMORY_ONCE, "an active session has memory work")
    if len(snapshot.effects) != (snapshot.memory.status == "done"):
        yield Broken(Promise.MEMORY_ONCE, f"memory is {snapshot.memory.status}, applied {len(snapshot.effects)} times")
    if not snapshot.others:
        yield Broken(Promise.NONE_SWEPT, "somebody else's row changed")


def _end(snapshot: Snapshot, start: int, now: int) -> Iterator[Broken]:
    at, written, duration, reason, *_ = snapshot.end
    if snapshot.active != (snapshot.end == NO_END) or snapshot.active != (None in (at, written, duration, reason)):
        yield Broken(Promise.ONE_END, f"active is {snapshot.active}, and the end is {snapshot.end}")
    if at is None or written is None:
        return
    if not start <= at <= written <= now:
        yield Broken(Promise.ONE_END, f"start {start}, end {at}, written {written}, now {now} are out of order")
    if duration != at - start:
        yield Broken(Promise.ONE_END, f"the duration is {duration}, from {start} to {at}")


def _steps(before: State, name: str, answer: str, after: Snapshot, now: int) -> Iterator[Broken]:
    snapshot = before.snapshot
    verb = name.partition(":")[0]
    closed = snapshot.end == NO_END and after.end != NO_END
    if snapshot.end not in (NO_END, after.end):
        yield Broken(Promise.ONE_END, f"the end {snapshot.end} was rewritten: {after.end}")
    if verb in TELLING and closed != any(word in CLOSED for word in answer.split(", ")):
        yield Broken(Promise.ONE_END, f"answered {answer!r}, but the row was {'closed' if closed else 'not closed'}")
    yield from _items(snapshot, verb, answer, after, now)
    yield from _memory(snapshot, verb, answer, after)
    yield from _lease(before, verb, answer, after, now)
    if verb in ("reap", "sweep") and closed and snapshot.living and now - snapshot.heartbeat < LEASE:
        yield Broken(Promise.NONE_SWEPT, "closed on behalf of its owner, which lives")
    if after.reaped is not None and after.active and not (snapshot.reaped is not None and snapshot.active):
        yield Broken(Promise.NO_ORPHAN, "its owner was declared dead, and the row is active")


def _lease(before: State, verb: str, answer: str, after: Snapshot, now: int) -> Iterator[Broken]:
    snapshot = before.snapshot
    if not snapshot.living and snapshot.start is None and after.start is not None:
        yield Broken(Promise.NO_ORPHAN, "a dead instance began a session")
    if after.reaped is not None and snapshot.reaped is None:
        yield from _death(before, before.known.looked if verb == "sweep" else before.known.verdict, now)
    if verb == "renew" and (answer == "renewed") != (snapshot.living and after.heartbeat == now):
        state = "living" if snapshot.living else "gone"
        yield Broken(Promise.NO_GHOST, f"answered {answer!r}, of an instance that is {state}")


def _death(before: State, verdict: int | None, now: int) -> Iterator[Broken]:
    snapshot = before.snapshot
    if verdict != snapshot.heartbeat:
        yield Broken(Promise.NONE_SWEPT, "declared dead, though its lease was renewed since the judgement")
    elif snapshot.stopped is None and now - snapshot.heartbeat < LEASE:
        yield Broken(Promise.NONE_SWEPT, "declared dead within its lease")


def _items(snapshot: Snapshot, verb: str, answer: str, after: Snapshot, now: int) -> Iterator[Broken]:
    was, there = set(snapshot.items), {item.item_id for item in after.items}
    if not was <= set(after.items):
        yield Broken(Promise.NOTHING_LOST, "a stored item is gone")
    if len(there) != len(after.items):
        yield Broken(Promise.NOTHING_LOST, "an item is stored twice")
    if not snapshot.active and snapshot.start is not None and was != set(after.items):
        yield Broken(Promise.NO_GHOST, "an item was stored after the row closed")
    if verb in APPENDS:
        stored = f"{APPENDS[verb]}-{now}" in there
        if ("stored" in answer) != stored:
            yield Broken(
                Promise.NOTHING_LOST, f"answered {answer!r}, but the item is {'there' if stored else 'not there'}"
            )


def _memory(snapshot: Snapshot, verb: str, answer: str, after: Snapshot) -> Iterator[Broken]:
    was, status = snapshot.memory.status, after.memory.status
    if after.end != NO_END and snapshot.end == NO_END and (status == "pending") != after.spoke:
        spoke = "spoke" if after.spoke else "never spoke"
        yield Broken(Promise.MEMORY_ONCE, f"closed with memory {status}, and the user {spoke}")
    allowed = {"pending": ("pending", "done", "failed"), "failed": ("failed", "pending"), "done": ("done",)}
    if snapshot.end != NO_END and status not in allowed.get(was, (was,)):
        yield Broken(Promise.MEMORY_ONCE, f"memory went from {was} to {status}")
    if not set(snapshot.effects) <= set(after.effects):
        yield Broken(Promise.MEMORY_ONCE, "an effect was taken back")
    if verb == "finish" and (answer == "done") != (len(after.effects) > len(snapshot.effects)):
        effects = len(after.effects) - len(snapshot.effects)
        yield Broken(Promise.MEMORY_ONCE, f"answered {answer!r}, with {effects} effects")


def settled(snapshot: Snapshot) -> list[Broken]:
    """What is still open when nobody has anything left to do."""
    if snapshot.active:
        return [Broken(Promise.NO_ORPHAN, "the row is active for ever")]
    if snapshot.memory.status == "pending":
        return [Broken(Promise.MEMORY_ONCE, "the memory is pending for ever")]
    return []
