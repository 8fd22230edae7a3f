"""The reaper: closes the sessions of servers that are provably dead, and no others."""

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

CRASH_SILENT_SECONDS = 2.0  # two heartbeats missed, with the guard's connection gone
CRASH_STEADY_SECONDS = 3.0  # after an outage, the living have so long to come back before their guard is missed

_log = structlog.get_logger(__name__)


def cause_of_death(
    suspect: Suspect, host_id: str | None, started: Callable[[int], int | None] = process_started
) -> str | None:
    """Why an instance is certainly dead, or None where that is not proven.

    After an outage of the database everybody's heartbeat is old. So silence counts only for as long as the one who
    looks has reached the database itself without a gap (`steady_seconds`); a process that is gone from this very host
    is gone whatever the database knows.
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
    """Looks for dead instances. Its own last look is a metric; a look that fails is followed by the next."""

    def __init__(self, store: Store, lease: InstanceLease, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._presence = lease
        self._settings = settings
        self._metrics = metrics

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._metrics.reaper_failures.inc()
                _log.warning("reaper_failed", error=str(error))
            await trio.sleep(self._settings.reap_seconds)

    async def look(self) -> None:
        """One look at all suspects; those proven dead are declared so and their sessions closed."""
        me = self._presence.instance_id
        for suspect in await self._store.suspects(me):
            cause = cause_of_death(suspect, self._presence.host_id)
            if cause is not None:
                await self._reap(suspect, me, cause)
        self._metrics.reaper_last_look.set_to_current_time()

    async def _reap(self, suspect: Suspect, me: UUID, cause: str) -> None:
        """One that cannot be reaped now does not keep the others waiting."""
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
