"""What an operator asks the database, as plain rows: the same ones become tables, JSON and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from .records import EVIDENCE_SECONDS

Row = TypeVar("Row")
State = Literal["active", "ended", "orphaned"]

_STATES: dict[State, list[str]] = {"active": ["live", "orphaned"], "ended": ["ended"], "orphaned": ["orphaned"]}
_HOUR_SECONDS = 3600.0

SECOND_LOOK_SECONDS = 2.0  # the living renew their leases within one, also after an outage


class Rows(Protocol):
    """Where named queries are asked: `PostgresStore`."""

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """Records: columns by name, as `record["name"]`."""
        ...


@dataclass(frozen=True, slots=True)
class SessionReport:
    """state: live, orphaned or ended. lasted_seconds: so far, while it is active."""

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


@dataclass(frozen=True, slots=True)
class DayReport:
    """The sessions that began on one day. avg_duration: in seconds, of those that ended."""

    date: date
    total_sessions: int
    avg_duration: float | None
    still_active: int
    memory_pending: int
    memory_failed: int


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """A session that is active although no living server owns it. instance_id None: no server ever did."""

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
    """orphans: the oldest ones. overdue: the sessions, orphaned or not, that are active for over `hours`."""

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
    user_id: str
    kind: str
    content: str
    source_session_id: UUID | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BacklogReport:
    """Ended sessions whose memory is not made yet, and those where it was given up."""

    pending: int = 0
    failed: int = 0
    attempts_max: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class MemoriesReport:
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
    """The sessions that fit, newest first. None: whatever it is."""
    states = None if state is None else _STATES[state]
    return _rows(SessionReport, await store.fetch("list_sessions", user, states, reason, since_seconds, limit))


async def daily_stats(store: Rows, days: int) -> list[DayReport]:
    """The last `days` days that had sessions, today included, newest first."""
    return _rows(DayReport, await store.fetch("daily_stats", days))


async def find_orphans(store: Rows, *, hours: float, alert_above: int, limit: int) -> OrphansReport:
    silent = await _silent_owners(store)
    orphans = [
        each
        for each in _rows(OrphanReport, await store.fetch("list_orphans", limit))
        if each.instance_id is None or (each.instance_id, each.owner_last_seen) in silent
    ]
    (count,) = await store.fetch("count_overdue", hours * _HOUR_SECONDS)
    overdue = count["orphaned_count"]
    return OrphansReport(orphans, overdue, hours, alert_above, overdue > alert_above)


async def close_orphans(store: Rows) -> list[ClosedReport]:
    """Closes them, dated at the last moment their owner is known to have lived."""
    silent = await _silent_owners(store)
    owners, last_seen = [owner for owner, _ in silent], [seen for _, seen in silent]
    return _rows(ClosedReport, await store.fetch("close_orphans", owners, last_seen, EVIDENCE_SECONDS))


async def _silent_owners(store: Rows) -> set[tuple[UUID, datetime]]:
    """The owners of orphans, with when they were last seen, some time ago: who is seen again since is alive.

    One look could come right after an outage of the database, when every living server's lease seems to have run out.
    """
    import trio  # not at the top: `--help` can do without

    owners = {(row["instance_id"], row["owner_last_seen"]) for row in await store.fetch("orphans_owners")}
    if owners:
        await trio.sleep(SECOND_LOOK_SECONDS)
    return owners


async def close_session(store: Rows, session_id: UUID) -> ClosedReport | bool | None:
    """Closes one active session. False: it has ended already; None: there is none."""
    closed = _rows(ClosedReport, await store.fetch("close_session", session_id))
    if closed:
        return closed[0]
    return False if await store.fetch("find_session", session_id) else None


async def retry_memories(store: Rows, user: str | None) -> int:
    """Makes failed memory pending again; how many sessions'."""
    return len(await store.fetch("retry_memories", user))


async def list_memories(store: Rows, *, user: str | None, limit: int) -> MemoriesReport:
    """Memories by user, newest first, and how much memory of all users is still to be made."""
    memories = _rows(MemoryReport, await store.fetch("list_memories", user, limit))
    return MemoriesReport(memories, _backlog(await store.fetch("memory_backlog")))


def _backlog(records: Sequence[Any]) -> BacklogReport:
    count = {record["memory_status"]: record["sessions"] for record in records}
    errors = [record["last_error"] for record in records if record["last_error"]]
    attempts = max((record["attempts_max"] for record in records), default=0)
    return BacklogReport(count.get("pending", 0), count.get("failed", 0), attempts, errors[0] if errors else None)


def _rows(kind: type[Row], records: Sequence[Any]) -> list[Row]:
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # all of them are dataclasses
    return [kind(**{name: _plain(record[name]) for name in names}) for record in records]


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
