"""Instances: their own rows, their lease connections, and the reaping of dead ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

from ...runtime.check import CheckStatus, log_checks
from ..errors import InstanceHeld
from ..operators.census import UnmatchedSession, unmatched_json
from ..records import EVIDENCE_SECONDS, Instance, Suspect
from .calls import bounded_call
from .connections import CONNECTIONS, Queries
from .lease import LEASE_CALL_SECONDS, PostgresLeaseConnection, open_lease_connection, renew_lease
from .preparation.checks import connection_checks

CONNECTIONS_NEEDED = CONNECTIONS + 1  # those of the pool, and the lease connection
REAP_ROWS_MAX = 5_000  # in one statement: a quarter of a second


class ConnectionLimitTooLow(Exception):
    """The database lets this role have too few connections; the message is one line for the user."""


class InstanceQueries(Queries):
    """The part of `Store` about instances. None of it waits behind readers: a lease depends on it."""

    async def check_connection_limits(self) -> None:
        """Warns where the connections that a server needs are not all free now.

        Raises:
            ConnectionLimitTooLow: It could never get them.
        """
        rows = await self.fetch("connection_limits", urgent=True)
        checks = list(connection_checks(rows, own=self._connections.count, needed=CONNECTIONS_NEEDED))
        for check in checks:
            if check.status is CheckStatus.FAIL:
                raise ConnectionLimitTooLow(str(check))
        log_checks(checks)

    async def register_instance(self, instance: Instance) -> None:
        names = ("instance_id", "hostname", "pid", "version", "lease_seconds", "host_id", "process_started")
        await self.fetch("register_instance", *(getattr(instance, name) for name in names), urgent=True)

    def open_lease_connection(self, instance_id: UUID) -> AbstractAsyncContextManager[PostgresLeaseConnection]:
        return open_lease_connection(self._connector, self._loop, instance_id)

    async def renew_lease(self, instance_id: UUID) -> bool:
        return await bounded_call(self._loop, LEASE_CALL_SECONDS, self._renew_lease, instance_id)

    async def _renew_lease(self, instance_id: UUID) -> bool:
        async with self._connections.one() as connection:
            return await renew_lease(connection, instance_id)

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        rows = await self.fetch("closed_among", session_ids, list(stored), urgent=True)
        return [row["session_id"] for row in rows]

    async def suspects(self, instance_id: UUID | None) -> Sequence[Suspect]:
        rows = await self.fetch("suspect_instances", instance_id, urgent=True)
        names = [name for name in Suspect.__slots__ if name != "heartbeat"]
        return [Suspect(**{name: row[name] for name in names}, heartbeat=row["heartbeat_at"]) for row in rows]

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        verdict = (suspect.instance_id, suspect.heartbeat, judge, REAP_ROWS_MAX, EVIDENCE_SECONDS)
        closed = await self.fetch("reap_instance", *verdict, urgent=True)
        if not closed and await self.fetch("instance_is_held", suspect.instance_id, urgent=True):
            raise InstanceHeld("the row of the instance is locked by another transaction")
        return len(closed)

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        return [row["session_id"] for row in await self.fetch("active_sessions", instance_id, urgent=True)]

    async def report_census(self, instance_id: UUID, sockets: int, unmatched: Sequence[UnmatchedSession]) -> int:
        rows = await self.fetch("report_census", instance_id, sockets, unmatched_json(unmatched))
        return int(rows[0]["row_count"])

    async def count_hours(self, hours_max: int) -> int:
        return int((await self.fetch("count_hours", hours_max))[0]["counted"])
