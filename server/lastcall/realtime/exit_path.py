"""The exit path of a session, the only one: every ending takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import structlog
import trio

from ..sessions.session import Session
from ..store.records import EndReason, SessionEnd, StoredItem
from ..transport.websocket import WebSocket
from .services import Services

CLOSED_ALREADY = {EndReason.CLOSED_ELSEWHERE, EndReason.OWNER_DIED}

_log = structlog.get_logger(__name__)


class ExitPath:
    """One session's. instance_id: in whose name it was begun; this process may have become another since."""

    def __init__(self, session: Session, instance_id: UUID, ws: WebSocket, services: Services) -> None:
        self._session = session
        self._instance_id = instance_id
        self._ws = ws
        self._services = services

    async def run(self) -> None:
        """Every ending comes through here, in this order; a step that fails or hangs costs nothing but itself.

        The row first: a dead peer must not eat the time of the database write. Memory is only announced: the closed
        row is its work order. The close handshake last and unshielded: whoever cancels us may not wait for a peer.
        Where somebody else has closed the row, there is nothing to write first, and the socket may not outlive it.
        """
        session, services = self._session, self._services
        services.registry.discard(session)
        services.metrics.sessions_active.dec()
        if session.reason is None:
            session.stop(EndReason.SERVER_ERROR)
        if session.reason in CLOSED_ALREADY:
            try:
                await self._close()
            finally:
                await self._end()
        else:
            await self._end()
            await self._close()
        session.cut = tuple  # part of a cycle: the session's objects would wait for a garbage collection

    async def _end(self) -> None:
        if self._session.row_closed:  # with all others at a shutdown
            self._note_end()
        elif self._session.has_row:  # else, in an outage, those who try to connect would fill the real ends' queue
            await self._end_in_time()
        with self._step("announce_memory"):
            self._services.finalizer.wake()

    async def _end_in_time(self) -> None:
        seconds = self._services.settings.end_seconds
        with self._step("end_session"), trio.move_on_after(seconds, shield=True) as limit:
            await self._end_row()
        if limit.cancelled_caught:
            _log.error("end_not_confirmed", session_id=str(self._session.session_id), seconds=seconds)

    async def _end_row(self) -> None:
        session, services = self._session, self._services
        unfinished: Sequence[StoredItem] = ()
        with self._step("cut"):
            unfinished = session.cut()
        end = SessionEnd(
            session_id=session.session_id,
            instance_id=self._instance_id,
            ended=session.ended,
            reason=session.reason or EndReason.SERVER_ERROR,
            close_code=session.close_code,
            unfinished=unfinished,
        )
        services.reconciler.expect(end)
        await services.store.end_session(end)
        services.reconciler.stored(end.session_id)
        self._note_end()

    async def _close(self) -> None:
        with self._step("close"), trio.move_on_after(self._services.settings.close_seconds):
            await self._ws.aclose(self._session.close_code or 1000, self._session.reason)

    def _note_end(self) -> None:
        session, metrics = self._session, self._services.metrics
        reason = session.reason or EndReason.SERVER_ERROR
        metrics.end_seconds.observe(trio.current_time() - session.ended)
        metrics.sessions_ended.labels(reason.value).inc()
        _log.info(
            "session_ended",
            session_id=str(session.session_id),
            user_id=session.user_id,
            reason=reason.value,
            seconds=round(session.ended - session.started, 3),
        )

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """A step of the exit path: its failure is logged, and the next step comes all the same."""
        try:
            yield
        except Exception:  # noqa: BLE001 - one step's failure must not cost the next
            _log.exception("exit_step_failed", step=name, session_id=str(self._session.session_id))
