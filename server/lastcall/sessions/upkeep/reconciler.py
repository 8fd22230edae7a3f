"""The reconciler: closes active rows of this instance that have no live session, and sessions without such a row.

The writer retries an end through any outage. This is for the rest: a database that refuses the end (a privilege was
revoked, somebody's own trigger raises), a full queue, a bug. While this instance lives, no other may close its rows.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import structlog
import trio
from msgspec.structs import replace

from ...metrics import Metrics
from ...store.errors import StoreError
from ...store.records import EndReason, SessionEnd
from ...store.store import Store
from ..instance import InstanceLease
from ..registry import Registry
from ..session import Session

PASS_SECONDS = 10.0  # between two passes
CONFIRMED_SECONDS = 600.0  # for which an end is remembered that is stored
CONFIRMED_MAX = 10_000
ENDS_MAX = 65_536  # remembered until they are stored; of further ones the reason and the exact time are lost
CLOSES_MAX = 1_000  # rows per pass, so that the queue of commits has room for sessions that end now

_log = structlog.get_logger(__name__)


class Reconciler:
    """Compares the active rows of this instance with its live sessions."""

    def __init__(self, store: Store, lease: InstanceLease, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._lease = lease
        self._registry = registry
        self._metrics = metrics
        self._ends: dict[UUID, SessionEnd] = {}
        self._confirmed: dict[UUID, SessionEnd] = {}  # the oldest first
        self._seen: dict[UUID, float] = {}
        self._rowless: Collection[UUID] = ()

    def expect(self, end: SessionEnd) -> None:
        """Remembers an end that is about to be stored."""
        if len(self._ends) < ENDS_MAX:
            self._ends[end.session_id] = end

    def stored(self, session_id: UUID) -> None:
        """A session's row is closed, by whomever. Its end is remembered for a while: a standby may not have it."""
        end = self._ends.pop(session_id, None)
        if end is not None:
            self._confirmed[session_id] = replace(end, unfinished=())
            if len(self._confirmed) > CONFIRMED_MAX:
                del self._confirmed[next(iter(self._confirmed))]

    async def run(self) -> None:
        while True:
            await trio.sleep(PASS_SECONDS)
            try:
                await self.reconcile()
            except StoreError as error:
                _log.warning("reconciler_failed", error=str(error))

    async def reconcile(self) -> None:
        """Closes the rows that had no session at the previous pass either: an end may just be on its way."""
        began, instance_id = trio.current_time(), self._lease.instance_id
        stored = [session for session in self._registry if session.row_stored]
        active = await self._store.active_sessions(instance_id)
        self._stop_rowless(stored, set(active))
        sessionless = {session_id for session_id in active if self._registry.get(session_id) is None}
        self._forget_ends_but(sessionless, began)
        seen = self._seen
        self._seen = {session_id: seen.get(session_id, began) for session_id in sessionless}
        async with trio.open_nursery() as closing:
            for session_id in [each for each in sessionless if each in seen][:CLOSES_MAX]:
                closing.start_soon(self._close, self._end_of(session_id, instance_id))

    def _stop_rowless(self, stored: Collection[Session], active: Collection[UUID]) -> None:
        """Stops sessions that had no active row at the previous pass either: a shutdown may just have closed it.

        They missed their notification: where somebody has switched the triggers off, as a restore does, none is sent.
        """
        rowless = [session for session in stored if session.session_id not in active]
        for session in rowless:
            if session.session_id in self._rowless:
                session.stop(EndReason.CLOSED_ELSEWHERE)
        self._rowless = {session.session_id for session in rowless}

    def _forget_ends_but(self, sessionless: Collection[UUID], began: float) -> None:
        self._ends = {key: end for key, end in self._ends.items() if key in sessionless or end.ended >= began}
        self._confirmed = {
            key: end
            for key, end in self._confirmed.items()
            if key in sessionless or end.ended >= began - CONFIRMED_SECONDS
        }

    def _end_of(self, session_id: UUID, instance_id: UUID) -> SessionEnd:
        """The end that was to be stored, or was; where none is known, the time of the first pass without a session."""
        return (
            self._ends.get(session_id)
            or self._confirmed.get(session_id)
            or SessionEnd(
                session_id=session_id,
                instance_id=instance_id,
                ended=self._seen[session_id],
                reason=EndReason.SERVER_ERROR,
                close_code=None,
            )
        )

    async def _close(self, end: SessionEnd) -> None:
        """Waits until the end is stored or refused again; the next pass comes after that."""
        session_id, instance_id = str(end.session_id), str(end.instance_id)
        try:
            closed = await self._store.end_session(end)
        except StoreError as error:
            _log.error("sessionless_row_not_closed", session_id=session_id, instance_id=instance_id, error=str(error))
            return
        self.stored(end.session_id)
        if closed:
            self._metrics.strays_closed.inc()
            _log.warning(
                "sessionless_row_closed", session_id=session_id, instance_id=instance_id, reason=end.reason.value
            )
