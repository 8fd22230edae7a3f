"""The census: counts this instance's sockets against its active rows, for everybody to see.

It changes nothing: the reconciler repairs. What begins or ends at the moment has a row but no socket, or the other way
round, for as long as a commit or a notification takes; only what stays so until the next look is unmatched.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import structlog
import trio

from ...logs.trouble import Trouble
from ...metrics import Metrics
from ...store.errors import StoreError
from ...store.operators.census import UnmatchedSession
from ...store.store import Store
from ..instance import InstanceLease
from ..registry import Registry

LOOK_SECONDS = 2.0
LISTED_LOOKS = 5  # every so many looks, rows are compared one by one even where their numbers agree
HOURS_LOOKS = 30  # and past hours are counted
HOURS_MAX = 24 * 14  # in one statement

_log = structlog.get_logger(__name__)


class Census:
    """Says every two seconds what this instance has."""

    def __init__(self, store: Store, lease: InstanceLease, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._lease = lease
        self._registry = registry
        self._metrics = metrics
        self._looks = 0
        self._doubted: Collection[UnmatchedSession] = ()  # at the last look
        self._unmatched: list[UnmatchedSession] = []
        self._trouble = Trouble()

    async def run(self) -> None:
        while True:
            try:
                await self.look()
                if self._looks % HOURS_LOOKS == 1:
                    await self._store.count_hours(HOURS_MAX)
                self._trouble.over()
            except StoreError as error:
                if self._trouble.is_new(error):
                    _log.warning("census_failed", error=str(error))
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Counts, and compares one by one where the numbers differ or differed."""
        instance_id, sockets = self._lease.instance_id, self._sockets()
        rows = await self._store.report_census(instance_id, len(sockets), self._unmatched)
        self._metrics.rows_active.set(rows)
        self._metrics.census_time.set_to_current_time()
        self._looks += 1
        if rows == len(sockets) and not self._doubted and self._looks % LISTED_LOOKS:
            return
        before = self._sockets()
        listed = set(await self._store.active_sessions(instance_id))
        both = before & self._sockets()  # a session that came or went meanwhile is in no doubt
        doubted = {UnmatchedSession(each, "row") for each in both - listed}
        doubted |= {UnmatchedSession(each, "socket") for each in listed if self._registry.get(each) is None}
        unmatched = [each for each in doubted if each in self._doubted]
        self._doubted = doubted
        if unmatched != self._unmatched:
            self._unmatched = unmatched
            self._metrics.rows_unmatched.set(len(unmatched))
            await self._store.report_census(instance_id, len(self._sockets()), unmatched)

    def _sockets(self) -> set[UUID]:
        """The sessions whose begin is committed: any other is about to get its row."""
        return {session.session_id for session in self._registry if session.row_stored}
