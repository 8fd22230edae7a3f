"""Rows of this server that no session is behind: an end that could not be stored, for whatever reason, is stored later.

An end is tried through any outage. What this is for is the rest: a database that refuses it (a right taken away, a
trigger of somebody's own), a full queue, a mistake of ours. While its owner lives, nobody else may close such a row.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import structlog
import trio

from ..metrics import Metrics
from ..store.errors import StoreError
from ..store.records import EndReason, SessionEnd
from ..store.store import Store
from .instance import InstanceLease
from .session import Registry

LOOK_SECONDS = 10.0  # between two looks
ENDS_MAX = 65_536  # that are remembered until they are stored; of others only the reason and the exact time are lost
CLOSES_MAX = 1_000  # in one look, so that the queue of commits stays open to sessions that end now

_log = structlog.get_logger(__name__)


class Reconciler:
    """Compares the rows of this instance with its sessions now and then."""

    def __init__(self, store: Store, lease: InstanceLease, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._presence = lease
        self._registry = registry
        self._metrics = metrics
        self._ends: dict[UUID, SessionEnd] = {}
        self._seen: dict[UUID, float] = {}

    def expect(self, end: SessionEnd) -> None:
        """An end that is about to be stored."""
        if len(self._ends) < ENDS_MAX:
            self._ends[end.session_id] = end

    def stored(self, session_id: UUID) -> None:
        """The row is closed, whoever did it."""
        self._ends.pop(session_id, None)

    async def run(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StoreError as error:
                _log.warning("strays_not_looked_for", error=str(error))

    async def look(self) -> None:
        """Closes what was a stray at the look before as well: a session's end may just be on its way."""
        began, instance_id = trio.current_time(), self._presence.instance_id
        active = await self._store.active_sessions(instance_id)
        sessionless = {session_id for session_id in active if self._registry.get(session_id) is None}
        self._forget_ends_but(sessionless, began)
        seen = self._seen
        self._seen = {session_id: seen.get(session_id, began) for session_id in sessionless}
        async with trio.open_nursery() as closing:
            for session_id in [each for each in sessionless if each in seen][:CLOSES_MAX]:
                closing.start_soon(self._close, self._end_of(session_id, instance_id))

    def _forget_ends_but(self, sessionless: Collection[UUID], began: float) -> None:
        self._ends = {key: end for key, end in self._ends.items() if key in sessionless or end.ended >= began}

    def _end_of(self, session_id: UUID, instance_id: UUID) -> SessionEnd:
        """As it was to be stored; or where nobody knows of one, when it was first seen that there is no session."""
        return self._ends.get(session_id) or SessionEnd(
            session_id=session_id,
            instance_id=instance_id,
            ended=self._seen[session_id],
            reason=EndReason.SERVER_ERROR,
            close_code=None,
        )

    async def _close(self, end: SessionEnd) -> None:
        """Waits until it is stored, or refused again: the next look comes after that."""
        try:
            closed = await self._store.end_session(end)
        except StoreError as error:
            _log.error("stray_session_not_closed", session_id=str(end.session_id), error=str(error))
            return
        self.stored(end.session_id)
        if closed:
            self._metrics.strays_closed.inc()
            _log.warning("stray_session_closed", session_id=str(end.session_id), reason=end.reason.value)
