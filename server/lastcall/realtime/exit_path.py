"""The exit path of a session, the only one: every ending takes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import structlog
import trio

from ..sessions.session import Session
from ..store.records import EndReason, SessionEnd, StoredRow
from .services import Services

CLOSED_ALREADY = {EndReason.CLOSED_ELSEWHERE, EndReason.OWNER_DIED}

_log = structlog.get_logger(__name__)


class ExitPath:
    """One session's way out: its row is ended, its memory finalized, its socket closed.

    Args:
        session: It leaves the registry here.
        instance_id: The instance that the session began under. This process may have become another one since.
        close_socket: Sends the close frame and what else is pending, and ends the connection; bounded.
    """

    def __init__(
        self, session: Session, instance_id: UUID, close_socket: Callable[[], Awaitable[None]], services: Services
    ) -> None:
        self._session = session
        self._instance_id = instance_id
        self._close_socket = close_socket
        self._services = services

    async def run(self) -> None:
        """Ends the row, then finalizes the session's memory; the close frame goes out beside that.

        A step that fails or hangs costs nothing but itself. The row comes first: a dead peer must not use up the time
        of the database write. Where somebody else has closed it, the socket may not outlive it: the close frame does
        not wait. It is not shielded: whoever cancels the connection does not wait for its peer.
        """
        self._leave_registry()
        try:
            if self._session.reason in CLOSED_ALREADY:
                await self._close_beside(self._end_session, self._finalize_memory)
                return
            await self._end_session()
            if self._has_memory:
                await self._close_while_finalizing()
            else:
                await self._close()
        finally:
            self._services.traces.session_ended(self._session.session_id, self._session.reason or "")
            self._session.left()

    def _leave_registry(self) -> None:
        self._services.registry.discard(self._session)
        self._services.lease.changes.leave(self._session)
        self._services.metrics.sessions_active.dec()
        if self._session.reason is None:
            self._session.stop(EndReason.SERVER_ERROR)

    # --- the row

    async def _end_session(self) -> None:
        if self._session.row_closed:  # by the bulk close of a shutdown
            self._note_end()
        elif self._session.has_row:  # else, in an outage, refused clients would fill the queue of the real ends
            await self._end_in_time()

    async def _end_in_time(self) -> None:
        seconds = self._services.settings.end_seconds
        with self._step("end_session"), trio.move_on_after(seconds, shield=True) as limit:
            await self._end_row()
        if limit.cancelled_caught:
            _log.error("end_not_confirmed", session_id=str(self._session.session_id), seconds=seconds)

    async def _end_row(self) -> None:
        session, services = self._session, self._services
        unfinished: Sequence[StoredRow] = ()
        with self._step("take_unfinished"):
            unfinished = session.take_unfinished()
        end = SessionEnd(
            session_id=session.session_id,
            instance_id=self._instance_id,
            ended=session.ended,
            reason=session.reason or EndReason.SERVER_ERROR,
            close_code=session.close_code,
            unfinished=unfinished,
        )
        services.reconciler.expect(end)
        with services.registry.leaving(session):
            await services.store.end_session(end)
        services.reconciler.stored(end.session_id)
        session.row_was_closed()
        self._note_end()

    def _note_end(self) -> None:
        session, metrics = self._session, self._services.metrics
        reason = session.reason or EndReason.SERVER_ERROR
        metrics.end_seconds.observe(trio.current_time() - session.ended)
        metrics.sessions_ended.count(reason.value)
        _log.info(
            "session_ended",
            session_id=str(session.session_id),
            user_id=session.user_id,
            reason=reason.value,
            seconds=round(session.ended - session.started, 3),
        )

    # --- its memory, and the socket beside it

    @property
    def _has_memory(self) -> bool:
        """Whether the row's end has made memory pending."""
        return self._session.spoke and self._session.row_closed

    async def _finalize_memory(self) -> None:
        """Waits for this session's memory within its budget. What takes longer is left to the finalizer."""
        if self._has_memory:
            seconds = self._services.settings.finalize_seconds
            with self._step("finalize_memory"), trio.move_on_after(seconds, shield=True):
                await self._services.finalizer.finalize(self._session.session_id)

    async def _close_while_finalizing(self) -> None:
        """Closes the socket while a worker finalizes this session's memory, and waits for the rest of that budget.

        Not by `_close_beside`: a task and a nursery cost as much as the close itself.
        """
        finalized = self._services.finalizer.ask(self._session.session_id)
        deadline = trio.current_time() + self._services.settings.finalize_seconds
        try:
            await self._close()
        finally:
            with trio.CancelScope(deadline=deadline, shield=True):
                await finalized.wait()

    async def _close_beside(self, *steps: Callable[[], Awaitable[None]]) -> None:
        """Closes the socket in a task of its own, beside the steps."""
        async with trio.open_nursery() as beside:
            beside.start_soon(self._close)
            for step in steps:
                await step()

    async def _close(self) -> None:
        with self._step("close"):
            await self._close_socket()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Logs a step's failure: the next step comes all the same."""
        try:
            yield
        except Exception:  # noqa: BLE001 - one step's failure must not cost the next
            _log.exception("exit_step_failed", step=name, session_id=str(self._session.session_id))
