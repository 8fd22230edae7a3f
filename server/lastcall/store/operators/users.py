"""Users, and how much is stored of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..reports import Rows, reports_of

NAMES_MAX = 5_000  # that one question looks at


@dataclass(frozen=True, slots=True)
class UserReport:
    """A user. sessions: with those that have ended. conversations: without deleted ones."""

    user_id: str
    sessions: int
    active: int
    conversations: int
    memories: int
    last_start: datetime | None


async def page_of_users(
    store: Rows, limit: int, *, after: str | None = None, begins_with: str | None = None
) -> list[UserReport]:
    """Returns users by name, behind `after`; looks at no more than `NAMES_MAX` names."""
    return reports_of(UserReport, await store.fetch("page_of_users", after, begins_with, limit, NAMES_MAX))
