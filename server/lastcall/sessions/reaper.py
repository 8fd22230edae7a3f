"""The reaper: closes the sessions of instances that are provably dead, and no others."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog
import trio

from ..config import Settings
from ..metrics import Metrics
from ..runtime.host import process_started
from ..store.errors import StoreError
from ..store.records import Suspect
from ..store.store import Store
from .instance import InstanceLease

CRASH_SILENT_SECONDS = 2.0  # two heartbeats missed, and the lease connection gone
CRASH_STEADY_SECONDS = 3.0  # that living instances have after an outage to open their lease connections again

_log = structlog.get_logger(__name__)


def cause_of_death(
    suspect: Suspect, host_id: str | None, started: Callable[[int], int | None] = process_started
) -> str | None:
    """Why an instance is certainly dead, or None where that is not proven.

    After an outage of the database every heartbeat is old. So silence counts only for as long as this instance itself
    has reached the database without a gap (`steady_seconds`). A process that is gone from this host is gone whatever
    the database says.

    Args:
        suspect: Another instance that owns active sessions.
        host_id: Of the host that this process runs on; None where it cannot be told.
        started: When the process of a pid started; None where there is none.
    """
    if suspect.gone:
        return "it left"
    same_host = suspect.host_id is not None and suspect.host_id == host_id
    if same_host and started(suspect.pid) != suspect.process_started:
        return "its process is gone"
    if (
        suspect.guard_gone
        and suspect.silent_seconds >= CRASH_SILENT_SECONDS
        and suspect.steady_seconds >= CRASH_STEADY_SECONDS
    ):
        return "its connection is gone"
    if min(suspect.silent_seconds, suspect.steady_seconds) >= suspect.lease_seconds:
        return "its lease ran out"
    return None


class Reaper:
    """Sweeps the sessions of dead instances, again and again. The time of its last sweep is a metric."""

    def __init__(self, store: Store, lease: InstanceLease, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._lease = lease
        self._settings = settings
        self._metrics = metrics

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                self._metrics.reaper_failures.inc()
                _log.warning("reaper_failed", error=str(error))
            await trio.sleep(self._settings.reap_seconds)

    async def sweep(self) -> None:
        """Declares the instances that are proven dead to be so, and closes their sessions."""
        me = self._lease.instance_id
        for suspect in await self._store.suspects(me):
            cause = cause_of_death(suspect, self._lease.host_id)
            if cause is not None:
                await self._reap(suspect, me, cause)
        self._metrics.reaper_last_look.set_to_current_time()

    async def _reap(self, suspect: Suspect, me: UUID, cause: str) -> None:
        """Reaps one instance. A failure is logged and leaves the others to be reaped."""
        closed = 0
        try:
            while batch := await self._store.reap(suspect, me):  # it begins no more sessions: they come to an end
                closed += batch
        except StoreError as error:
            self._metrics.reaper_failures.inc()
            _log.warning("instance_not_reaped", instance_id=str(suspect.instance_id), error=str(error))
        else:
            _log.warning("instance_reaped", instance_id=str(suspect.instance_id), cause=cause, sessions=closed)
        self._metrics.sessions_reaped.inc(closed)
