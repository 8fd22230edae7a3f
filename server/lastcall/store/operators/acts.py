"""What operators do. Each act and its line in the audit log are one statement: there is never one without the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from ..reports import ClosedReport, Rows, reports_of

REASON_CHARS_MAX = 200  # of what is told to the user of a session that is closed


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. name: the subject of the key, or the login of whoever runs the command. credential_id: the key."""

    name: str
    via: Literal["api", "command"]
    credential_id: UUID | None = None

    @property
    def columns(self) -> tuple[str, UUID | None, str]:
        """The first parameters of every act's statement."""
        return self.name, self.credential_id, self.via


@dataclass(frozen=True, slots=True)
class AuditReport:
    """A line of the audit log. target: the id of a session or key, or the keyed hash of a user's name."""

    audit_id: int
    done_at: datetime
    actor: str
    credential_id: UUID | None
    via: str
    action: str
    target: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClosingReport:
    """How a session ended. actor, reason: of the operator who closed it and what that one says; None: nobody did."""

    conversation_id: UUID
    session_start: datetime
    session_end: datetime | None
    end_reason: str | None
    actor: str | None
    reason: str | None


async def close_session(
    store: Rows, session_id: UUID, by: Actor, reason: str | None = None
) -> ClosedReport | bool | None:
    """Closes one active session; its server closes the socket. reason: is told to its user.

    False: it has ended already; None: there is no such session.
    """
    closed = reports_of(ClosedReport, await store.fetch("close_session", *by.columns, session_id, reason))
    if closed:
        return closed[0]
    return False if await store.fetch("find_session", session_id) else None


async def retry_memories(store: Rows, by: Actor, *, user: str | None = None, session_id: UUID | None = None) -> int:
    """Makes failed memory pending again, of all or only of one user or session; returns the number of sessions."""
    return len(await store.fetch("retry_memories", *by.columns, user, session_id))


async def forget_memory(store: Rows, memory_id: int, by: Actor, *, user: str | None = None) -> bool:
    """Erases a memory; it is not learned again from the same words. False: there is none, or it is not `user`'s."""
    return bool(await store.fetch("forget_memory_of_user", *by.columns, memory_id, user))


async def note_export(store: Rows, by: Actor, user: str) -> None:
    """Notes that what is stored of a user is handed out. Before the first record leaves."""
    await store.fetch("note_export", *by.columns, user)


async def closing_of(store: Rows, session_id: UUID, user: str) -> ClosingReport | None:
    """How a session of this user ended, and who closed it; None: the user has no such session."""
    found = reports_of(ClosingReport, await store.fetch("closing_of_session", session_id, user))
    return found[0] if found else None


async def audit_log(
    store: Rows,
    limit: int,
    *,
    before: int | None = None,
    action: str | None = None,
    target: str | None = None,
    user: str | None = None,
) -> Sequence[AuditReport]:
    """Returns the newest lines. before: only those before this one. user: only those about this user."""
    rows = await store.fetch("audit_page", before, action, target, user, limit)
    return [AuditReport(**{**dict(row), "details": json.loads(row["details"])}) for row in rows]
