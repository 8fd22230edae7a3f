"""Bodies about sessions and what answers took. Times are Unix seconds with fractions; null: not yet, or nobody."""

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


class ResponseRow(Struct, kw_only=True):
    """What an answer took. first_at: null: there was no piece of it. Tokens null: the model did not report them.

    reason: null where the outcome is completed.
    """

    id: str
    object: Literal["admin.response"] = "admin.response"
    started_at: float
    first_at: float | None
    ended_at: float
    outcome: Literal["completed", "incomplete", "cancelled", "failed"]
    reason: str | None
    agent: str
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None


class ResponsePage(Struct, kw_only=True):
    """Oldest first. next: for `after`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[ResponseRow]
    next: str | None


class UsageRow(Struct, kw_only=True):
    """What the answers of one day, user or key took; each is null where the sums are not by it.

    key_id null: also without a key. sessions: with answers. Tokens null: no model reported them; counted: the answers
    whose tokens were reported. first_seconds, answer_seconds: means, until the first piece and the end.
    """

    object: Literal["admin.usage"] = "admin.usage"
    date: str | None
    user: str | None
    key_id: str | None
    key: str | None
    subject: str | None
    sessions: int
    answers: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    counted: int
    first_seconds: float | None
    answer_seconds: float | None


class UsagePage(Struct, kw_only=True):
    """Newest day first, then by user and key. next: for `after`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[UsageRow]
    next: int | None


class AnswerChart(Struct, kw_only=True):
    """Answers by buckets of `width_seconds`, of those that are not empty. first, took: p50, p95 and p99 in seconds.

    tokens: input, output, and how many of the input were cached.
    """

    object: Literal["admin.usage.chart"] = "admin.usage.chart"
    width_seconds: int
    times: list[int]
    outcomes: dict[str, list[int]]
    tokens: dict[str, list[int]]
    first: dict[str, list[float | None]]
    took: dict[str, list[float | None]]
