"""The model: what each statement must do and answer, by the promises, in plain Python without SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lastcall.store.records import EVIDENCE_SECONDS

from .state import (
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
    Snapshot,
    State,
)

EVIDENCE = round(EVIDENCE_SECONDS * 1e6)
Result = tuple[Snapshot, str]
Rule = Callable[[State], Result]


def close(
    snapshot: Snapshot, at: int, now: int, reason: str, code: int | None = None, by: str | None = None
) -> Snapshot:
    """The one way in which a row closes. Its end is clamped between its start and now."""
    assert snapshot.start is not None
    at = max(snapshot.start, min(at, now))
    memory = Memory("pending", due=now) if snapshot.spoke else NO_MEMORY
    return replace(
        snapshot, active=False, end=End(at, max(at, now), at - snapshot.start, reason, code, by), memory=memory
    )


def begin(state: State) -> Result:
    snapshot, _, now = state
    if not snapshot.living:
        return snapshot, "gone"
    if snapshot.start is None:
        snapshot = replace(snapshot, start=now - START_AGE, active=True)
    return snapshot, "begun"


def append(state: State, prefix: str, role: str) -> Result:
    snapshot, _, now = state
    if not snapshot.active:
        return snapshot, "closed"
    return replace(snapshot, items=(*snapshot.items, Item(f"{prefix}-{now}", role, now))), "stored"


def append_again(state: State) -> Result:
    return state.snapshot, "stored" if state.snapshot.active else "closed"


def end(state: State) -> Result:
    snapshot, _, now = state
    if not snapshot.active:
        return snapshot, "not ended"
    return close(snapshot, now - END_AGE, now, "client_closed", 1000, "A"), "ended"


def end_unsaid(state: State) -> Result:
    snapshot, _, now = state
    if not snapshot.active:
        return snapshot, "not ended"
    return close(snapshot, now - LATE_AGE, now, "client_vanished", None, "A"), "ended"


def in_turn(state: State, names: Sequence[str]) -> Result:
    """The statements of one batch."""
    snapshot, words = state.snapshot, []
    for name in names:
        snapshot, word = RULES[name](state._replace(snapshot=snapshot))
        words.append(word)
    return snapshot, ", ".join(words)


def leave(state: State) -> Result:
    snapshot, _, now = state
    if not snapshot.active:
        return snapshot, "closed 0"
    return close(snapshot, max(now - END_AGE, snapshot.newest or 0), now, "shutdown", 1012, "A"), "closed 1"


def renew(state: State) -> Result:
    snapshot, _, now = state
    return (replace(snapshot, heartbeat=now), "renewed") if snapshot.living else (snapshot, "lost")


def stop(state: State) -> Result:
    snapshot, _, now = state
    return (replace(snapshot, stopped=now) if snapshot.living else snapshot), "done"


def silence(state: State) -> Result:
    return state.snapshot, "done"


def judge(state: State) -> Result:
    """Whoever owns no active session is looked at once it seems silent."""
    snapshot, _, now = state
    silent = snapshot.living and now - snapshot.heartbeat > LEASE
    return suspect(state) if snapshot.active or silent else (snapshot, "none")


def suspect(state: State) -> Result:
    """B's verdict because of another session of A's, which has no row here."""
    snapshot, _, now = state
    dead = not snapshot.living or now - snapshot.heartbeat >= LEASE
    return snapshot, f"dead {snapshot.heartbeat}" if dead else "none"


def reap(state: State, by: str) -> Result:
    return _reap(state, state.known.verdict, by)


def _reap(state: State, verdict: int | None, by: str | None) -> Result:
    snapshot, _, now = state
    if verdict != snapshot.heartbeat:
        return snapshot, "closed 0"
    snapshot = replace(snapshot, reaped=snapshot.reaped if snapshot.reaped is not None else now)
    if not snapshot.active:
        return snapshot, "closed 0"
    return close(snapshot, last_known_alive(snapshot), now, "owner_died", None, by), "closed 1"


def last_known_alive(snapshot: Snapshot) -> int:
    """The last heartbeat, or an item that was stored soon after it."""
    return max(snapshot.heartbeat, min(snapshot.heartbeat + EVIDENCE, snapshot.newest or snapshot.heartbeat))


def look(state: State) -> Result:
    return judge(state)


def sweep(state: State) -> Result:
    """The same for a person, by the same rule."""
    return _reap(state, state.known.looked, None)


def close_by_hand(state: State) -> Result:
    snapshot, _, now = state
    if not snapshot.active:
        return snapshot, "closed 0"
    return close(snapshot, now, now, "by_hand"), "closed 1"


def plain(state: State) -> Result:
    """`SET is_active = false` without asking whether it is."""
    snapshot, _, now = state
    if snapshot.start is None:
        return snapshot, "UPDATE 0"
    return (close(snapshot, now, now, "by_hand") if snapshot.active else snapshot), "UPDATE 1"


def redate(state: State) -> Result:
    snapshot, _, now = state
    if snapshot.start is None:
        return snapshot, "UPDATE 0"
    return (close(snapshot, now, now, "redated"), "UPDATE 1") if snapshot.active else (snapshot, "refused")


def recode(state: State) -> Result:
    """Another end, which differs only by its close code."""
    snapshot, _, now = state
    if snapshot.start is None:
        return snapshot, "UPDATE 0"
    return (close(snapshot, now, now, "by_hand", 1), "UPDATE 1") if snapshot.active else (snapshot, "refused")


def reopen(state: State) -> Result:
    snapshot = state.snapshot
    if snapshot.start is None:
        return snapshot, "UPDATE 0"
    return snapshot, "UPDATE 1" if snapshot.active else "refused"


def claim(state: State) -> Result:
    snapshot, _, now = state
    memory = snapshot.memory
    if memory.status != "pending" or memory.due is None or memory.due > now:
        return snapshot, "none"
    memory = memory._replace(attempts=memory.attempts + 1, due=now + CLAIM)
    return replace(snapshot, memory=memory), f"claimed {memory.attempts}"


def finish(state: State, by: str) -> Result:
    snapshot, _, now = state
    if snapshot.memory.status != "pending":
        return snapshot, "not done"
    memory = snapshot.memory._replace(status="done", due=None, error=None, done=now)
    return replace(snapshot, memory=memory, effects=(*snapshot.effects, f"told {by} at {now}")), "done"


def settle(state: State, **changes: object) -> Result:
    """A change of pending memory; `due` counts from now."""
    snapshot, _, now = state
    if snapshot.memory.status != "pending":
        return snapshot, "done"
    due = changes.pop("due")
    memory = snapshot.memory._replace(due=None if due is None else now + int(str(due)), **changes)  # type: ignore[arg-type]
    return replace(snapshot, memory=memory), "done"


def release(state: State) -> Result:
    return settle(state, due=0, attempts=max(state.snapshot.memory.attempts - 1, 0))


def retry(state: State) -> Result:
    snapshot, _, now = state
    if snapshot.memory.status != "failed":
        return snapshot, "retried 0"
    return replace(snapshot, memory=snapshot.memory._replace(status="pending", attempts=0, due=now)), "retried 1"


# What the group-commit writer may send as one batch, and its statements.
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
    """Whether anybody would send the statement: a reap needs a verdict, finishing a memory needs its claim."""
    snapshot, known, _ = state
    verb, _, who = name.partition(":")
    if verb == "append-again":
        return bool(snapshot.items)
    if verb in ("finish", "fail", "give-up", "release"):
        return who in known.claims
    if verb == "claim" and snapshot.memory.status == "pending":
        return snapshot.memory.attempts < ATTEMPTS_MAX
    return not ((verb == "reap" and known.verdict is None) or (verb == "sweep" and known.looked is None))


def expected(name: str, state: State) -> Result:
    return RULES[name](state)
