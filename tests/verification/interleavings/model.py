"""What each statement must do and answer, by the promises, in plain Python that knows no SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lastcall.store.records import EVIDENCE_SECONDS

from .world import (
    ATTEMPTS_MAX,
    CLAIM,
    END_AGE,
    LATE_AGE,
    LEASE,
    NO_MEMORY,
    RETRY_AFTER,
    START_AGE,
    End,
    Item,
    Memory,
    State,
    World,
)

EVIDENCE = round(EVIDENCE_SECONDS * 1e6)
Result = tuple[World, str]
Rule = Callable[[State], Result]


def close(world: World, at: int, now: int, reason: str, code: int | None = None, by: str | None = None) -> World:
    """The one way in which a row closes. Its end is held between its start and now."""
    assert world.start is not None
    at = max(world.start, min(at, now))
    memory = Memory("pending", due=now) if world.spoke else NO_MEMORY
    return replace(world, active=False, end=End(at, max(at, now), at - world.start, reason, code, by), memory=memory)


def begin(state: State) -> Result:
    world, _, now = state
    if not world.living:
        return world, "gone"
    if world.start is None:
        world = replace(world, start=now - START_AGE, active=True)
    return world, "begun"


def append(state: State, prefix: str, role: str) -> Result:
    world, _, now = state
    if not world.active:
        return world, "closed"
    return replace(world, items=(*world.items, Item(f"{prefix}-{now}", role, now))), "stored"


def append_again(state: State) -> Result:
    return state.world, "stored" if state.world.active else "closed"


def end(state: State) -> Result:
    world, _, now = state
    if not world.active:
        return world, "not ended"
    return close(world, now - END_AGE, now, "client_closed", 1000, "A"), "ended"


def end_unsaid(state: State) -> Result:
    world, _, now = state
    if not world.active:
        return world, "not ended"
    return close(world, now - LATE_AGE, now, "client_vanished", None, "A"), "ended"


def in_turn(state: State, names: Sequence[str]) -> Result:
    """Statements of one batch."""
    world, words = state.world, []
    for name in names:
        world, word = RULES[name](state._replace(world=world))
        words.append(word)
    return world, ", ".join(words)


def leave(state: State) -> Result:
    world, _, now = state
    if not world.active:
        return world, "closed 0"
    return close(world, max(now - END_AGE, world.newest or 0), now, "shutdown", 1012, "A"), "closed 1"


def renew(state: State) -> Result:
    world, _, now = state
    return (replace(world, heartbeat=now), "renewed") if world.living else (world, "lost")


def stop(state: State) -> Result:
    world, _, now = state
    return (replace(world, stopped=now) if world.living else world), "done"


def silence(state: State) -> Result:
    return state.world, "done"


def judge(state: State) -> Result:
    return suspect(state) if state.world.active else (state.world, "none")


def suspect(state: State) -> Result:
    """B's verdict because of another session of A's, which is not on this stage."""
    world, _, now = state
    dead = not world.living or now - world.heartbeat >= LEASE
    return world, f"dead {world.heartbeat}" if dead else "none"


def reap(state: State, by: str) -> Result:
    world, known, now = state
    if known.verdict != world.heartbeat:
        return world, "closed 0"
    world = replace(world, reaped=world.reaped if world.reaped is not None else now)
    if not world.active:
        return world, "closed 0"
    return close(world, last_known_alive(world), now, "owner_died", None, by), "closed 1"


def last_known_alive(world: World) -> int:
    """At the last heartbeat, or with an item that was stored soon after it."""
    return max(world.heartbeat, min(world.heartbeat + EVIDENCE, world.newest or world.heartbeat))


def look(state: State) -> Result:
    return judge(state)


def sweep(state: State) -> Result:
    world, known, now = state
    _, seen = judge(state)
    if seen == "none" or known.looked != world.heartbeat:
        return world, "closed 0"
    return close(world, last_known_alive(world), now, "owner_died"), "closed 1"


def close_by_hand(state: State) -> Result:
    world, _, now = state
    if not world.active:
        return world, "closed 0"
    return close(world, now, now, "by_hand"), "closed 1"


def plain(state: State) -> Result:
    """`SET is_active = false` without asking whether it is."""
    world, _, now = state
    if world.start is None:
        return world, "UPDATE 0"
    return (close(world, now, now, "by_hand") if world.active else world), "UPDATE 1"


def redate(state: State) -> Result:
    world, _, now = state
    if world.start is None:
        return world, "UPDATE 0"
    return (close(world, now, now, "redated"), "UPDATE 1") if world.active else (world, "refused")


def recode(state: State) -> Result:
    """Another end, of which only the close code shows it."""
    world, _, now = state
    if world.start is None:
        return world, "UPDATE 0"
    return (close(world, now, now, "by_hand", 1), "UPDATE 1") if world.active else (world, "refused")


def reopen(state: State) -> Result:
    world = state.world
    if world.start is None:
        return world, "UPDATE 0"
    return world, "UPDATE 1" if world.active else "refused"


def claim(state: State) -> Result:
    world, _, now = state
    memory = world.memory
    if memory.status != "pending" or memory.due is None or memory.due > now:
        return world, "none"
    memory = memory._replace(attempts=memory.attempts + 1, due=now + CLAIM)
    return replace(world, memory=memory), f"claimed {memory.attempts}"


def finish(state: State, by: str) -> Result:
    world, _, now = state
    if world.memory.status != "pending":
        return world, "not done"
    memory = world.memory._replace(status="done", due=None, error=None, done=now)
    return replace(world, memory=memory, effects=(*world.effects, f"told {by} at {now}")), "done"


def settle(state: State, **changes: object) -> Result:
    """A change of pending memory; `due` counts from now."""
    world, _, now = state
    if world.memory.status != "pending":
        return world, "done"
    due = changes.pop("due")
    memory = world.memory._replace(due=None if due is None else now + int(str(due)), **changes)  # type: ignore[arg-type]
    return replace(world, memory=memory), "done"


def release(state: State) -> Result:
    return settle(state, due=0, attempts=max(state.world.memory.attempts - 1, 0))


def retry(state: State) -> Result:
    world, _, now = state
    if world.memory.status != "failed":
        return world, "retried 0"
    return replace(world, memory=world.memory._replace(status="pending", attempts=0, due=now)), "retried 1"


# What the group-commit writer may send as one batch: the statements that it comes to.
BATCHES = {
    "begin-append:A": ("begin:A", "append-user:A"),
    "visit:A": ("begin:A", "append-user:A", "end:A"),
    "end-late:A": ("unsaid:A", "end-unsaid:A"),
}
RULES: dict[str, Rule] = {
    "begin:A": begin,
    "append-user:A": partial(append, prefix="user", role="user"),
    "append-reply:A": partial(append, prefix="reply", role="assistant"),
    "append-again:A": append_again,
    **{name: partial(in_turn, names=names) for name, names in BATCHES.items()},
    "unsaid:A": partial(append, prefix="unsaid", role="assistant"),
    "end-unsaid:A": end_unsaid,
    "end:A": end,
    "leave:A": leave,
    "stop:A": stop,
    "renew:A": renew,
    "silence": silence,
    "judge:B": judge,
    "suspect:B": suspect,
    "reap:A-by-B": partial(reap, by="B"),
    "reap:A-by-C": partial(reap, by="C"),
    "look:hand": look,
    "sweep:hand": sweep,
    "close:hand": close_by_hand,
    "repair:hand": close_by_hand,
    "plain:hand": plain,
    "redate:hand": redate,
    "recode:hand": recode,
    "reopen:hand": reopen,
    "claim:A": claim,
    "claim:B": claim,
    "finish:A": partial(finish, by="A"),
    "finish:B": partial(finish, by="B"),
    "fail:B": partial(settle, due=RETRY_AFTER, error="it failed"),
    "give-up:B": partial(settle, due=None, error="it failed", status="failed"),
    "release:B": release,
    "retry:hand": retry,
}


NAMES = tuple(name for name in RULES if name not in ("unsaid:A", "end-unsaid:A"))


def possible(name: str, state: State) -> bool:
    """Whether anybody would send the statement: a reap needs a verdict, a memory's end its claim."""
    world, known, _ = state
    verb, _, who = name.partition(":")
    if verb == "append-again":
        return bool(world.items)
    if verb in ("finish", "fail", "give-up", "release"):
        return who in known.claims
    if verb == "claim" and world.memory.status == "pending":
        return world.memory.attempts < ATTEMPTS_MAX
    return not ((verb == "reap" and known.verdict is None) or (verb == "sweep" and known.looked is None))


def expected(name: str, state: State) -> Result:
    return RULES[name](state)
