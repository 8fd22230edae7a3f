"""Reports for operators: plain rows, which are shown as tables, JSON and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from .records import EVIDENCE_SECONDS, Suspect

Row = TypeVar("Row")
State = Literal["active", "ended", "orphaned"]

_STATES: dict[State, list[str]] = {"active": ["live", "orphaned"], "ended": ["ended"], "orphaned": ["orphaned"]}
_HOUR_SECONDS = 3600.0

CLOSE_ROWS_MAX = 5_000  # in one statement
SECOND_LOOK_SECONDS = 2.0  # living instances renew their leases within one second, also after an outage


class Rows(Protocol):
    """The part of `Store` that reports need."""

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """Returns the rows of a named query; columns as `row["name"]`."""
        ...


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session. state: live, orphaned or ended. lasted_seconds: its duration, so far while it is active.

    original_id: where it was imported, its id there.
    """

    session_id: UUID
    conversation_id: UUID
    user_id: str
    state: str
    session_start: datetime
    session_end: datetime | None
    duration_seconds: float | None
    lasted_seconds: float
    end_reason: str | None
    close_code: int | None
    memory_status: str
    hostname: str | None
    pid: int | None
    original_id: str | None


@dataclass(frozen=True, slots=True)
class DayReport:
    """The sessions that began on one day, in UTC, and the answers that ended on it.

    avg_duration: seconds, of sessions that have ended. Tokens None: no model reported any.
    """

    date: date
    total_sessions: int
    avg_duration: float | None
    still_active: int
    memory_pending: int
    memory_failed: int
    answers: int
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """An active session without a living owner. instance_id None: it never had one."""

    session_id: UUID
    conversation_id: UUID
    user_id: str
    instance_id: UUID | None
    hostname: str | None
    pid: int | None
    session_start: datetime
    owner_last_seen: datetime | None
    hours_active: float


@dataclass(frozen=True, slots=True)
class OrphansReport:
    """Orphaned sessions, oldest first. overdue: number of sessions active for over `hours`, orphaned or not."""

    orphans: Sequence[OrphanReport]
    overdue: int
    hours: float
    alert_above: int
    alert: bool


@dataclass(frozen=True, slots=True)
class ClosedReport:
    """An orphan that was closed."""

    session_id: UUID
    user_id: str
    session_start: datetime
    session_end: datetime
    duration_seconds: float
    end_reason: str


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """A memory of a user. quote: the words that it comes from. valid_from: when they were said."""

    memory_id: int
    user_id: str
    kind: str
    content: str
    quote: str | None
    valid_from: datetime
    source_session_id: UUID | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BacklogReport:
    """The number of ended sessions whose memory is pending, and of those where it has failed."""

    pending: int = 0
    failed: int = 0
    attempts_max: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class MemoriesReport:
    """Memories, and the backlog of all users."""

    memories: Sequence[MemoryReport]
    backlog: BacklogReport


async def list_sessions(
    store: Rows,
    *,
    user: str | None = None,
    state: State | None = None,
    reason: str | None = None,
    since_seconds: float | None = None,
    limit: int,
) -> list[SessionReport]:
    """Returns the sessions that match all filters, newest first. None: no filter."""
    states = None if state is None else _STATES[state]
    return reports_of(SessionReport, await store.fetch("list_sessions", user, states, reason, since_seconds, limit))


async def daily_stats(store: Rows, since: datetime, until: datetime) -> list[DayReport]:
    """Returns a report per day with sessions or answers, newest first. since, until: midnights in UTC."""
    return reports_of(DayReport, await store.fetch("daily_stats", since, until))


async def find_orphans(store: Rows, *, hours: float, alert_above: int, limit: int) -> OrphansReport:
    """Finds orphaned sessions, the oldest `limit`, and counts those that are active for over `hours`."""
    silent = await _silent_owners(store)
    orphans = [
        each
        for each in reports_of(OrphanReport, await store.fetch("list_orphans", limit))
        if each.instance_id is None or (each.instance_id, each.owner_last_seen) in silent
    ]
    (count,) = await store.fetch("count_overdue", hours * _HOUR_SECONDS)
    overdue = count["orphaned_count"]
    return OrphansReport(orphans, overdue, hours, alert_above, overdue > alert_above)


async def orphans_owners(store: Rows) -> set[UUID]:
    """Returns the owners of orphaned sessions."""
    return {row["instance_id"] for row in await store.fetch("orphans_owners")}


async def close_sessions_of(store: Rows, dead: Suspect) -> list[ClosedReport]:
    """Declares an instance dead and closes its sessions, dated at the last moment when it is known to have been alive.

    Not if it has renewed its lease since it was found dead. Rows that are locked are left.
    """
    closed: list[ClosedReport] = []
    verdict = (dead.instance_id, dead.heartbeat, None, CLOSE_ROWS_MAX, EVIDENCE_SECONDS)
    while rows := await store.fetch("reap_instance", *verdict):
        closed += reports_of(ClosedReport, rows)
    return closed


async def close_ownerless(store: Rows) -> list[ClosedReport]:
    """Closes all active sessions that no server ever owned, as of their last item."""
    return reports_of(ClosedReport, await store.fetch("close_ownerless"))


async def _silent_owners(store: Rows) -> set[tuple[UUID, datetime]]:
    """Returns the owners of orphans and when they were last seen, as of `SECOND_LOOK_SECONDS` ago.

    An owner that has been seen since then is alive. A single query would take living servers for dead right after an
    outage of the database, when all leases seem to have run out.
    """
    import trio  # not at the top: `--help` does not need it

    owners = {(row["instance_id"], row["owner_last_seen"]) for row in await store.fetch("orphans_owners")}
    if owners:
        await trio.sleep(SECOND_LOOK_SECONDS)
    return owners


async def list_memories(store: Rows, *, user: str | None, limit: int) -> MemoriesReport:
    """Returns memories by user, newest first, and the backlog of all users."""
    memories = reports_of(MemoryReport, await store.fetch("list_memories", user, limit))
    return MemoriesReport(memories, _backlog(await store.fetch("memory_backlog")))


def _backlog(records: Sequence[Any]) -> BacklogReport:
    count = {record["memory_status"]: record["sessions"] for record in records}
    errors = [record["last_error"] for record in records if record["last_error"]]
    attempts = max((record["attempts_max"] for record in records), default=0)
    return BacklogReport(count.get("pending", 0), count.get("failed", 0), attempts, errors[0] if errors else None)


def reports_of(kind: type[Row], records: Sequence[Any]) -> list[Row]:
    """The rows of a statement as reports, by the names of their columns."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # all of them are dataclasses
    return [kind(**{name: _plain(record[name]) for name in names}) for record in records]


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
