"""What each server counts of its own, and what that says about all: whether rows and sockets agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from ..reports import Rows

UNMATCHED_MAX = 100  # sessions that a server lists, and orphans
SERVERS_MAX = 200
SERVERS_KEPT_SECONDS = 86_400.0  # for which a server that has ended is still shown
# A server counts every two seconds: after that long without a new census, what it said is no longer known to be so.
CENSUS_STALE_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class UnmatchedSession:
    """A session that has had only a row or only a socket for a while."""

    session_id: UUID
    lacks: Literal["row", "socket"]


class CensusStore(Protocol):
    """The part of `Store` by which a server says what it counted."""

    async def report_census(self, instance_id: UUID, sockets: int, unmatched: Sequence[UnmatchedSession]) -> int:
        """Stores an instance's number of sockets and its unmatched sessions; returns its number of active rows."""
        ...

    async def count_hours(self, hours_max: int) -> int:
        """Counts the sessions of up to `hours_max` past hours, for charts; returns how many hours it counted."""
        ...


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A server. Ages in seconds, by the database's clock. census_age, rows, sockets None: it has not counted yet."""

    instance_id: UUID
    hostname: str
    pid: int
    version: str
    lease_seconds: float
    started_at: datetime
    stopped_at: datetime | None
    reaped_at: datetime | None
    heartbeat_age: float
    census_age: float | None
    row_count: int | None
    sockets: int | None
    unmatched: Sequence[UnmatchedSession]

    @property
    def runs(self) -> bool:
        """Whether it has neither stopped nor been declared dead."""
        return self.stopped_at is None and self.reaped_at is None

    @property
    def is_silent(self) -> bool:
        """Whether its counts are not known to be so any more."""
        return self.census_age is None or not -CENSUS_STALE_SECONDS <= self.census_age <= CENSUS_STALE_SECONDS


@dataclass(frozen=True, slots=True)
class UnmatchedReport:
    """An unmatched session and its server."""

    session_id: UUID
    lacks: Literal["row", "socket"]
    hostname: str | None
    pid: int | None


@dataclass(frozen=True, slots=True)
class TruthReport:
    """Whether active rows and sockets agree, over all servers.

    state: `red` where sessions are unmatched; `unknown` where a server that should run has not counted of late.
    rows, sockets: as last counted, with the orphaned rows. They may differ for the moment in which a session begins or
        ends: what differs for longer is in `unmatched`, of which there may be more than are listed.
    silent: the servers that make it unknown.
    """

    state: Literal["green", "red", "unknown"]
    rows: int
    sockets: int
    orphaned: int
    unmatched: Sequence[UnmatchedReport]
    silent: Sequence[str]
    servers: Sequence[ServerReport]


async def read_truth(store: Rows) -> TruthReport:
    """Compares rows and sockets over all servers."""
    servers = await list_servers(store)
    orphans = await store.fetch("list_orphaned", UNMATCHED_MAX)
    orphaned = orphans[0]["orphaned"] if orphans else 0
    running = [each for each in servers if each.runs]
    unmatched = [
        UnmatchedReport(each.session_id, each.lacks, server.hostname, server.pid)
        for server in running
        for each in server.unmatched
    ] + [UnmatchedReport(each["session_id"], "socket", each["hostname"], each["pid"]) for each in orphans]
    silent = [f"{each.hostname}/{each.pid}" for each in running if each.is_silent]
    return TruthReport(
        state="red" if unmatched else "unknown" if silent or not running else "green",
        rows=sum(each.row_count or 0 for each in running) + orphaned,
        sockets=sum(each.sockets or 0 for each in running),
        orphaned=orphaned,
        unmatched=unmatched,
        silent=silent,
        servers=servers,
    )


async def count_orphaned(store: Rows) -> int:
    """The number of active rows without a living server."""
    orphans = await store.fetch("list_orphaned", 1)
    return orphans[0]["orphaned"] if orphans else 0


async def list_servers(store: Rows) -> list[ServerReport]:
    """Those that run, and those of the last day."""
    rows = await store.fetch("list_servers", SERVERS_KEPT_SECONDS, SERVERS_MAX)
    return [ServerReport(**{**dict(row), "unmatched": unmatched_of(row["unmatched"])}) for row in rows]


def unmatched_of(listed: str) -> Sequence[UnmatchedSession]:
    """Reads the list of a census."""
    return [UnmatchedSession(UUID(each["session_id"]), each["lacks"]) for each in json.loads(listed)]


def unmatched_json(unmatched: Sequence[UnmatchedSession]) -> str:
    """The list of a census, as stored."""
    return json.dumps([{"session_id": str(each.session_id), "lacks": each.lacks} for each in unmatched[:UNMATCHED_MAX]])
