"""Bodies about sessions. Times are Unix seconds with fractions; null: not yet, or nobody."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class SessionRow(Struct, kw_only=True):
    """A session. state: orphaned: active, but without a living server. server, closed_by_server: host and pid.

    ended_at: when it ended; row_closed_at: when the row said so. key: the beginning of the key it was begun with.
    """

    id: str
    object: Literal["admin.session"] = "admin.session"
    conversation_id: str
    user: str
    state: Literal["live", "orphaned", "ended"]
    started_at: float
    last_event_at: float
    ended_at: float | None
    row_closed_at: float | None
    seconds: float | None
    end_reason: str | None
    close_code: int | None
    memory_status: Literal["none", "pending", "done", "failed"]
    memory_attempts: int
    memory_due_at: float | None
    memory_error: str | None
    memory_done_at: float | None
    server: str | None
    closed_by_server: str | None
    key: str | None


class SessionPage(Struct, kw_only=True):
    """Newest first. next: for `after`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[SessionRow]
    next: str | None


class SessionMemory(Struct, kw_only=True):
    """A memory that was made of a session. quote: the words that it comes from."""

    id: str
    kind: str
    content: str
    quote: str | None
    item_id: str | None
    created_at: float


class Closing(Struct, kw_only=True):
    """Who closed a session, and what its user is told."""

    name: str
    reason: str | None


class SessionDetail(Struct, kw_only=True):
    """One session. closing: null where no operator closed it."""

    object: Literal["admin.session.detail"] = "admin.session.detail"
    session: SessionRow
    closing: Closing | None
    memories: list[SessionMemory]


class SessionItem(Struct, kw_only=True):
    """An item as stored. deleted_at: it is no longer part of the conversation."""

    id: str
    kind: str
    role: str
    content: str
    name: str | None
    call_id: str | None
    status: str
    stored_at: float
    deleted_at: float | None


class SessionItemPage(Struct, kw_only=True):
    """Oldest first. next: for `after`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[SessionItem]
    next: str | None


class ClosedSession(Struct, kw_only=True):
    """closed: false where it had ended before."""

    id: str
    object: Literal["admin.session.closed"] = "admin.session.closed"
    closed: bool


class SessionEnding(Struct, kw_only=True):
    """A user's own session: how it ended. closed_by: null where no operator closed it."""

    id: str
    object: Literal["session.ending"] = "session.ending"
    conversation_id: str
    started_at: float
    ended_at: float | None
    end_reason: str | None
    closed_by: Closing | None
