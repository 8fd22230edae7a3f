"""What is not kept for ever: transcripts, sessions and the audit log, deleted in batches that nobody waits for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..reports import Rows

DAY_SECONDS = 86_400.0
SESSIONS_MAX = 100  # of one batch
MESSAGES_MAX = 500
LINES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Kept:
    """How many days each is kept; None: for ever. A session's row is needed by its transcript, and goes with it."""

    transcript_days: float | None = None
    session_days: float | None = None
    audit_days: float | None = None

    @property
    def forever(self) -> bool:
        """Whether nothing is ever deleted."""
        return self == Kept()


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many rows were deleted, or would be."""

    messages: int = 0
    sessions: int = 0
    audit_lines: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(
            self.messages + other.messages, self.sessions + other.sessions, self.audit_lines + other.audit_lines
        )


async def drop_old(
    store: Rows, kept: Kept, dropped: Callable[[Dropped], Awaitable[None]], *, patient: bool = False
) -> None:
    """Deletes what is older than it may become. Sessions that somebody is at are passed over, and found the next time.

    Args:
        store: Where it is.
        kept: What may become how old.
        dropped: Is called after each batch; may take its time.
        patient: Where another one deletes, it waits for each batch of that one; else it leaves the rest to it.
    """
    if kept.transcript_days is not None:
        await _drop_transcripts(store, kept.transcript_days, False, patient, dropped)
    if kept.session_days is not None:
        await _drop_transcripts(store, kept.session_days, True, patient, dropped)
    if kept.audit_days is not None:
        gone = LINES_MAX
        while gone == LINES_MAX:
            (row,) = await store.fetch("drop_audit", kept.audit_days * DAY_SECONDS, LINES_MAX)
            gone = row["dropped"]
            await dropped(Dropped(audit_lines=gone))


async def _drop_transcripts(
    store: Rows, days: float, with_sessions: bool, patient: bool, dropped: Callable[[Dropped], Awaitable[None]]
) -> None:
    behind: tuple[str | None, str | None] = None, None
    while True:
        (row,) = await store.fetch(
            "drop_transcripts", days * DAY_SECONDS, *behind, SESSIONS_MAX, MESSAGES_MAX, with_sessions, patient
        )
        if row["dropped"] is None:
            return
        batch = json.loads(row["dropped"])
        await dropped(Dropped(batch["messages"], batch["sessions"]))
        if batch["behind"] is None:
            return
        behind = batch["behind"], batch["behind_id"]


async def count_old(store: Rows, kept: Kept) -> Dropped:
    """What `drop_old` would delete."""
    days = kept.transcript_days, kept.session_days, kept.audit_days
    (row,) = await store.fetch("count_droppable", *(each and each * DAY_SECONDS for each in days))
    return Dropped(row["messages"], row["sessions"], row["audit_lines"])
