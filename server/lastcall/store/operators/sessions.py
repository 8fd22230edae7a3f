"""Sessions as the console shows them: pages, and one with what was said and remembered in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from ..people.reports import POSITION_BEFORE_ALL
from ..reports import Rows, reports_of

MEMORIES_MAX = 100  # of one session

Cursor = tuple[datetime, UUID]  # the start and id of a page's last session
MemoryWork = Literal["pending", "failed"]


@dataclass(frozen=True, slots=True)
class DetailsReport:
    """A session. state: live, orphaned or ended. prefix: of its key. closed_host, closed_pid: who closed the row."""

    session_id: UUID
    conversation_id: UUID
    user_id: str
    state: str
    session_start: datetime
    last_event_at: datetime
    session_end: datetime | None
    ended_at: datetime | None
    duration_seconds: float | None
    end_reason: str | None
    close_code: int | None
    memory_status: str
    memory_attempts: int
    memory_due_at: datetime | None
    memory_error: str | None
    memory_finalized_at: datetime | None
    hostname: str | None
    pid: int | None
    closed_host: str | None
    closed_pid: int | None
    prefix: str | None


@dataclass(frozen=True, slots=True)
class ItemReport:
    """An item that was stored in a session. deleted_at: it is no longer part of the conversation."""

    message_id: UUID
    item_id: str
    position: int
    kind: str
    role: str
    content: str
    call_id: str | None
    name: str | None
    status: str
    created_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class MadeMemoryReport:
    """A memory that was made of a session, and the words that it comes from."""

    memory_id: int
    kind: str
    content: str
    quote: str | None
    source_item_id: str | None
    created_at: datetime


async def page_of_sessions(
    store: Rows,
    limit: int,
    after: Cursor | None = None,
    *,
    active: bool = False,
    user: str | None = None,
    reason: str | None = None,
) -> list[DetailsReport]:
    """Returns sessions, newest first. active: only active ones, whatever `reason` is."""
    behind = after or (None, None)
    if active:
        rows = await store.fetch("page_of_active_sessions", *behind, user, limit)
    elif user is not None:
        rows = await store.fetch("page_of_users_sessions", *behind, user, reason, limit)
    else:
        rows = await store.fetch("page_of_sessions", *behind, reason, limit)
    return reports_of(DetailsReport, rows)


async def page_of_memory_work(
    store: Rows, limit: int, after: Cursor | None = None, *, status: MemoryWork
) -> list[DetailsReport]:
    """Returns ended sessions whose memory is pending or has failed, newest first."""
    behind = after or (None, None)
    if status == "failed":
        rows = await store.fetch("page_of_failed_memory", *behind, limit)
    else:
        rows = await store.fetch("page_of_pending_memory", *behind, limit)
    return reports_of(DetailsReport, rows)


async def memory_counts(store: Rows) -> tuple[int, int]:
    """Returns the number of ended sessions whose memory is pending, and of those where it has failed."""
    (row,) = await store.fetch("memory_counts")
    return row["pending"], row["failed"]


async def find_details(store: Rows, session_id: UUID) -> DetailsReport | None:
    found = reports_of(DetailsReport, await store.fetch("session_details", session_id))
    return found[0] if found else None


async def items_of(
    store: Rows, session_id: UUID, limit: int, after: tuple[int, UUID] = (POSITION_BEFORE_ALL, UUID(int=0))
) -> list[ItemReport]:
    """Returns what was stored in a session, in its order. after: position and message of a page's last item."""
    return reports_of(ItemReport, await store.fetch("session_items", session_id, *after, limit))


async def memories_of(store: Rows, session_id: UUID) -> list[MadeMemoryReport]:
    return reports_of(MadeMemoryReport, await store.fetch("session_memories", session_id, MEMORIES_MAX))
