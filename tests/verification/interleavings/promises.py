"""The promises themselves, of one statement: what must hold between before and after, whatever the model says."""

from __future__ import annotations

from collections.abc import Iterator

from .world import LEASE, NO_END, NO_MEMORY, State, World

APPENDS = {"append-user": "user", "append-reply": "reply", "begin-append": "user", "visit": "user"}
# What a statement says when it closed the row.
CLOSING_WORDS = ("ended", "closed 1")
TELLING = ("end", "end-late", "visit", "leave", "reap", "sweep", "close", "repair")


def broken(before: State, name: str, answer: str, after: World, now: int) -> list[str]:
    """Every promise that the statement broke, one line each."""
    return [*_shape(after, now), *_steps(before, name, answer, after, now)]


def _shape(world: World, now: int) -> Iterator[str]:
    """What must hold of a row at any time."""
    if world.start is not None:
        yield from _end(world, world.start, now)
    if world.active and world.memory != NO_MEMORY:
        yield "I4: memory of a session that goes on"
    if len(world.effects) != (world.memory.status == "done"):
        yield f"I4: memory is {world.memory.status}, applied {len(world.effects)} times"
    if not world.others:
        yield "I6: somebody else's row changed"


def _end(world: World, start: int, now: int) -> Iterator[str]:
    at, written, duration, reason, *_ = world.end
    if world.active != (world.end == NO_END) or world.active != (None in (at, written, duration, reason)):
        yield f"I3: active is {world.active}, and its end {world.end}"
    if at is None or written is None:
        return
    if not start <= at <= written <= now:
        yield f"I3: start {start}, end {at}, written {written}, now {now} are out of order"
    if duration != at - start:
        yield f"I3: lasted {duration}, from {start} to {at}"


def _steps(before: State, name: str, answer: str, after: World, now: int) -> Iterator[str]:
    world = before.world
    verb = name.partition(":")[0]
    closed = world.end == NO_END and after.end != NO_END
    if world.end not in (NO_END, after.end):
        yield f"I3: the end {world.end} was rewritten: {after.end}"
    if not world.living and world.start is None and after.start is not None:
        yield "I6: a dead instance began a session"
    yield from _items(world, verb, answer, after, now)
    yield from _memory(world, verb, answer, after)
    if verb in TELLING and closed != any(word in CLOSING_WORDS for word in answer.split(", ")):
        yield f"answers: {answer!r}, but the row was {'closed' if closed else 'not closed'}"
    if after.reaped is not None and world.reaped is None:
        yield from _death(before, now)
    if verb in ("reap", "sweep") and closed and world.living and now - world.heartbeat < LEASE:
        yield "I6: closed as its owner's death, and the owner lives"
    if after.reaped is not None and after.active and not (world.reaped is not None and world.active):
        yield "I1: its owner was declared dead, and the row is active"
    if verb == "renew" and (answer == "renewed") != (world.living and after.heartbeat == now):
        yield f"answers: {answer!r}, of an instance that is {'living' if world.living else 'gone'}"


def _death(before: State, now: int) -> Iterator[str]:
    world, known, _ = before
    if known.verdict != world.heartbeat:
        yield "I6: declared dead, though its lease was renewed since the judgement"
    elif world.stopped is None and now - world.heartbeat < LEASE:
        yield "I6: declared dead within its lease"


def _items(world: World, verb: str, answer: str, after: World, now: int) -> Iterator[str]:
    was, there = set(world.items), {item.item_id for item in after.items}
    if not was <= set(after.items):
        yield "I5: a stored item is gone"
    if len(there) != len(after.items):
        yield "I5: an item is stored twice"
    if not world.active and world.start is not None and was != set(after.items):
        yield "I2: an item was stored after the row closed"
    if verb in APPENDS and ("stored" in answer) != (f"{APPENDS[verb]}-{now}" in there):
        yield f"answers: {answer!r}, but the item is {'there' if f'{APPENDS[verb]}-{now}' in there else 'not there'}"


def _memory(world: World, verb: str, answer: str, after: World) -> Iterator[str]:
    was, status = world.memory.status, after.memory.status
    if after.end != NO_END and world.end == NO_END and (status == "pending") != after.spoke:
        yield f"I4: closed with memory {status}, and the user {'spoke' if after.spoke else 'never spoke'}"
    allowed = {"pending": ("pending", "done", "failed"), "failed": ("failed", "pending"), "done": ("done",)}
    if world.end != NO_END and status not in allowed.get(was, (was,)):
        yield f"I4: memory went from {was} to {status}"
    if not set(world.effects) <= set(after.effects):
        yield "I4: an effect was taken back"
    if verb == "finish" and (answer == "done") != (len(after.effects) > len(world.effects)):
        yield f"answers: {answer!r}, with {len(after.effects) - len(world.effects)} effects"


def settled(world: World) -> list[str]:
    """What is still open when nobody has anything left to do."""
    if world.active:
        return ["I1: the row is active for ever"]
    return ["I4: the memory is pending for ever"] if world.memory.status == "pending" else []
