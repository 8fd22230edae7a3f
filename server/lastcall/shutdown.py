"""Shutdown: a budget shared out among its parts, so that nothing can hang the exit and nothing is left active."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
import trio

from .realtime.services import Services
from .store.errors import StoreError
from .store.records import EndReason, StoredItem

# Shares of `drain_seconds`, as points in time after the first signal.
ANSWERS_UNTIL = 0.4  # running responses may finish
SESSIONS_UNTIL = 0.7  # rows closed in bulk, sockets closed
MEMORY_UNTIL = 0.9  # memory finalized; the rest is for the last commits
BULK_SECONDS = 5.0  # for the one statement that closes the rows, however the budget stands
SOCKETS_SECONDS = 3.0  # what sockets get after their sessions: the closing handshake and the last bytes
HURRY_SECONDS = 1.0  # the same after a second signal
FORCE_MARGIN_SECONDS = 5.0  # past the budget, what is stuck ends with the process
EXIT_FORCED = 70  # EX_SOFTWARE

_log = structlog.get_logger(__name__)


class Schedule:
    """When the parts of a shutdown that begins now have to be over, on Trio's clock."""

    def __init__(self, drain_seconds: float, began: float = 0.0) -> None:
        self._drain_seconds = drain_seconds
        self._began = began

    @property
    def answers_until(self) -> float:
        return self._began + ANSWERS_UNTIL * self._drain_seconds

    @property
    def last_commits_seconds(self) -> float:
        return (1 - MEMORY_UNTIL) * self._drain_seconds

    def sockets_until(self) -> float:
        """To be asked once every session was told to stop: whoever is not gone soon after that has nothing to say."""
        return min(self._began + SESSIONS_UNTIL * self._drain_seconds, trio.current_time() + SOCKETS_SECONDS)

    @property
    def memory_until(self) -> float:
        return self._began + MEMORY_UNTIL * self._drain_seconds


class Signals:
    """SIGTERM and SIGINT: the first begins the shutdown, a later one cuts its waiting short."""

    def __init__(self, drain_seconds: float) -> None:
        self.drain_seconds = drain_seconds
        self.schedule = Schedule(drain_seconds)
        self.stop = trio.Event()
        self.hurry = trio.Event()
        self.watchdog: threading.Timer | None = None
        self._limits: list[tuple[trio.CancelScope, float]] = []

    async def watch(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                _log.info("signal", name=signal.Signals(number).name)
                if self.stop.is_set():
                    self._hurry_up()
                else:
                    self.begin()
                    self._set_watchdog()

    def begin(self) -> None:
        """Begins the shutdown now; its budget runs from here."""
        _log.info("shutdown_began", budget_seconds=self.drain_seconds)
        self.schedule = Schedule(self.drain_seconds, trio.current_time())
        self.stop.set()

    def limit(self, scope: trio.CancelScope, until: float, hurry_seconds: float) -> None:
        """Ends a scope at `until`, or `hurry_seconds` after a second signal, also one that is yet to come."""
        scope.deadline = min(scope.deadline, until)
        self._limits.append((scope, hurry_seconds))
        if self.hurry.is_set():
            self._shorten()

    def _hurry_up(self) -> None:
        self.hurry.set()
        self._shorten()

    def _shorten(self) -> None:
        now = trio.current_time()
        for scope, seconds in self._limits:
            scope.deadline = min(scope.deadline, now + seconds)

    def _set_watchdog(self) -> None:
        # A thread, because what is stuck may be the loop itself.
        self.watchdog = threading.Timer(self.drain_seconds + FORCE_MARGIN_SECONDS, os._exit, (EXIT_FORCED,))
        self.watchdog.daemon = True
        self.watchdog.start()


@contextmanager
def forced_exit(signals: Signals) -> Iterator[None]:
    """Calls the watchdog of a shutdown off once the block has ended by itself."""
    try:
        yield
    finally:
        if signals.watchdog is not None:
            signals.watchdog.cancel()


async def close_sessions(services: Services, signals: Signals) -> None:
    """Ends every session of this instance: running answers get their grace, one statement closes all rows, and then
    each session takes its own exit path (the client sees 1012 and may go on elsewhere)."""
    await _let_answers_finish(services, signals)
    unfinished = [item for session in services.registry for item in session.cut()]
    closed = await _close_rows(services, unfinished)
    for session in services.registry:
        session.row_closed = session.session_id in closed
        session.stop(EndReason.SHUTDOWN)


async def _let_answers_finish(services: Services, signals: Signals) -> None:
    """Returns when no response is under way, at the end of the grace, or at a second signal."""
    with trio.move_on_at(signals.schedule.answers_until) as grace:
        async with trio.open_nursery() as waiting:

            async def cut_short() -> None:
                await signals.hurry.wait()
                grace.cancel()

            waiting.start_soon(cut_short)
            for session in services.registry:
                await session.answered.wait()
            waiting.cancel_scope.cancel()


async def _close_rows(services: Services, unfinished: list[StoredItem]) -> Collection[UUID]:
    with trio.move_on_after(BULK_SECONDS, shield=True) as limit:
        try:
            closed = await services.store.close_instance_sessions(services.lease.instance_id, unfinished)
        except StoreError as error:
            # Each session's own exit path tries again.
            _log.error("bulk_close_failed", error=str(error))
        else:
            _log.info("sessions_closed", count=len(closed))
            return closed
    if limit.cancelled_caught:
        _log.error("bulk_close_timed_out", seconds=BULK_SECONDS)
    return ()
