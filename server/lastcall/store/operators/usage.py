"""What the answers of the agent took: those of one session, and sums by day, user and key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias
from uuid import UUID

from ..reports import Rows, reports_of

UsageGroup: TypeAlias = Literal["day", "user", "key"]
GROUPS: tuple[UsageGroup, ...] = ("day", "user", "key")

ResponseCursor: TypeAlias = tuple[datetime, UUID]  # the start and id of a page's last response


@dataclass(frozen=True, slots=True)
class ResponseReport:
    """What one answer took. first_at: the agent's first piece. Tokens None: the model did not report them."""

    response_id: UUID
    started_at: datetime
    first_at: datetime | None
    ended_at: datetime
    outcome: str
    reason: str | None
    agent: str
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What the answers of one day, user or key took; None: it is not by that, or of no key.

    date: in UTC, on which they ended. sessions: those that had answers. failed: among the answers. Tokens None: no
    model reported them. counted: the answers whose tokens were reported. first_seconds, answer_seconds: means, until
    the first piece and the end.
    """

    date: date | None
    user_id: str | None
    key_id: UUID | None
    key_prefix: str | None
    key_subject: str | None
    sessions: int
    answers: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    counted: int
    first_seconds: float | None
    answer_seconds: float | None


async def responses_of(
    store: Rows, session_id: UUID, limit: int, after: ResponseCursor | None = None
) -> list[ResponseReport]:
    """Returns what the answers in a session took, in the order in which they began."""
    behind = after or (None, None)
    return reports_of(ResponseReport, await store.fetch("session_responses", session_id, *behind, limit))


async def read_usage(
    store: Rows, since: datetime, until: datetime, by: Collection[UsageGroup], limit: int, *, skip: int = 0
) -> Sequence[UsageSum]:
    """Sums up the answers that ended in a time, newest day first. skip: the rows of the pages before."""
    groups = ("day" in by, "user" in by, "key" in by)
    return reports_of(UsageSum, await store.fetch("usage", since, until, *groups, limit, skip))
