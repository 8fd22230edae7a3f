"""The reaper: closes the sessions of instances that are provably dead, and no others."""

from __future__ import annotations

from uuid import UUID

import structlog
import trio

from ...config import Settings
from ...metrics import Metrics
from ...store.errors import InstanceHeld, StoreError
from ...store.records import Suspect
from ...store.store import Store
from ..death import Watch
from ..instance import InstanceLease

DOUBTFUL_REAP_SECONDS = 0.1  # between passes while somebody shows no sign of life

_log = structlog.get_logger(__name__)


class Reaper:
    """Sweeps the sessions of dead instances, again and again. The time of its last sweep is a metric."""

    def __init__(self, store: Store, lease: InstanceLease, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._lease = lease
        self._settings = settings
        self._metrics = metrics
        self._watch = Watch(lease.host_id, settings.gone_seconds)
        self._told: dict[UUID, str] = {}  # of suspects: what was last said in the log

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                self._watch.forget()
                self._metrics.reaper_failures.inc()
                _log.warning("reaper_failed", error=str(error))
            doubtful = self._watch.in_doubt
            await trio.sleep(DOUBTFUL_REAP_SECONDS if doubtful else self._settings.reap_seconds)

    async def sweep(self) -> None:
        """Declares the instances that are proven dead to be so, and closes their sessions."""
        me, asked = self._lease.instance_id, trio.current_time()
        suspects = await self._store.suspects(me)
        if not self._lease.held:
            # Where not even this instance gets its heartbeat through, the others' silence says nothing: the database
            # may answer questions and take no commit, as without its only synchronous standby.
            self._watch.forget()
        self._told = {each.instance_id: self._told.get(each.instance_id, "") for each in suspects}
        for suspect, cause in self._watch.look(suspects, asked, trio.current_time()):
            await self._reap(suspect, me, cause)
        self._metrics.reaper_last_look.set_to_current_time()

    async def _reap(self, suspect: Suspect, me: UUID, cause: str) -> None:
        """Reaps one instance. A failure is logged and leaves the others to be reaped."""
        closed = 0
        try:
            while batch := await self._store.reap(suspect, me):  # it begins no more sessions: they come to an end
                closed += batch
        except StoreError as error:
            if isinstance(error, InstanceHeld):
                # A living one cannot renew its lease either: it is given the time to, once its row is free.
                self._watch.forget(suspect.instance_id)
            self._metrics.reaper_failures.inc()
            self._tell("instance_not_reaped", suspect, error=str(error))
        else:
            self._tell("instance_reaped", suspect, cause=cause, sessions=closed)
        self._metrics.sessions_reaped.inc(closed)

    def _tell(self, event: str, suspect: Suspect, **about: str | int) -> None:
        """Logs it, but not in each pass for as long as rows are locked."""
        said = f"{event} {about}"
        if said != self._told.get(suspect.instance_id):
            _log.warning(event, instance_id=str(suspect.instance_id), **about)
        self._told[suspect.instance_id] = said
