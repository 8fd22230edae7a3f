"""The shutdown: its phases and their budget, so that nothing can hang the exit and no row stays active."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from uuid import UUID

import structlog
import trio

from .realtime.services import Services
from .sessions.instance import STOP_SECONDS
from .store.errors import StoreError
from .store.records import EndReason, StoredItem

FORCE_MARGIN_SECONDS = 5.0  # beyond the budget; a process that is still there is ended by its watchdog
EXIT_FORCED = 70  # EX_SOFTWARE

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a shutdown.

    Attributes:
        name: As the log calls it.
        does: What happens in it.
        until: When it is over at the latest: a share of `--drain-seconds`, counted from the first signal. Infinite: it
            is not cut off by that budget.
        seconds_max: How long it takes at most, whatever is left of the budget.
        hurry_seconds: How long it goes on after a second signal.
    """

    name: str
    does: str
    until: float = inf
    seconds_max: float = inf
    hurry_seconds: float = inf


STOP_ACCEPTING = Phase("stop_accepting", "new connections are refused, /readyz says so, idle HTTP connections end")
FINISH_RESPONSES = Phase("finish_responses", "running responses may finish", until=0.4, hurry_seconds=0.0)
CLOSE_ROWS = Phase("close_rows", "one statement closes the rows of all sessions", seconds_max=5.0)
END_SESSIONS = Phase(
    "end_sessions",
    "each session takes its exit path: the client gets close code 1012",
    until=0.7,
    seconds_max=3.0,
    hurry_seconds=1.0,
)
FINALIZE_MEMORY = Phase(
    "finalize_memory", "memory is finalized; the rest stays pending in the database", until=0.9, hurry_seconds=0.0
)
RELEASE_LEASE = Phase("release_lease", "the instance is marked as stopped", seconds_max=STOP_SECONDS)
LAST_COMMITS = Phase("last_commits", "what is queued is committed, then the connections are closed", until=1.0)

PHASES = (
    STOP_ACCEPTING,
    FINISH_RESPONSES,
    CLOSE_ROWS,
    END_SESSIONS,
    FINALIZE_MEMORY,
    RELEASE_LEASE,
    LAST_COMMITS,
)
"""A shutdown, in this order."""

LAST_COMMITS_SHARE = LAST_COMMITS.until - FINALIZE_MEMORY.until  # of the budget, kept for them whatever happened before


class Signals:
    """SIGTERM and SIGINT: the first begins the shutdown, a later one cuts its waiting short.

    Attributes:
        drain_seconds: The budget of the shutdown.
        stop: Set by the first signal.
        hurry: Set by the second one.
    """

    def __init__(self, drain_seconds: float) -> None:
        self.drain_seconds = drain_seconds
        self.stop = trio.Event()
        self.hurry = trio.Event()
        self._began = 0.0
        self._watchdog: threading.Timer | None = None
        self._limited: list[tuple[trio.CancelScope, float]] = []

    @property
    def last_commits_seconds(self) -> float:
        """What the last commits get, counted from when they are all that is left."""
        return LAST_COMMITS_SHARE * self.drain_seconds

    async def watch(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                _log.info("signal", name=signal.Signals(number).name)
                if self.stop.is_set():
                    self.hurry_up()
                else:
                    self.begin()
                    self._set_watchdog()

    def begin(self) -> None:
        """Begins the shutdown now; its budget runs from here."""
        _log.info("shutdown_began", budget_seconds=self.drain_seconds)
        self._began = trio.current_time()
        self.stop.set()

    def hurry_up(self) -> None:
        """Cuts the waiting short, of this phase and of those to come."""
        self.hurry.set()
        self._shorten()

    def enter(self, phase: Phase, scope: trio.CancelScope | None = None) -> None:
        """Begins a phase, and ends its scope when its time is up, or soon after a second signal."""
        _log.info("shutdown_phase", phase=phase.name)
        if scope is None:
            return
        if phase.until < inf:
            scope.deadline = min(scope.deadline, self._began + phase.until * self.drain_seconds)
        scope.deadline = min(scope.deadline, trio.current_time() + phase.seconds_max)
        self._limited.append((scope, phase.hurry_seconds))
        if self.hurry.is_set():
            self._shorten()

    def _shorten(self) -> None:
        now = trio.current_time()
        for scope, seconds in self._limited:
            scope.deadline = min(scope.deadline, now + seconds)

    def _set_watchdog(self) -> None:
        # A thread, because what is stuck may be the loop itself.
        self._watchdog = threading.Timer(self.drain_seconds + FORCE_MARGIN_SECONDS, os._exit, (EXIT_FORCED,))
        self._watchdog.daemon = True
        self._watchdog.start()

    @contextmanager
    def forced_exit(self) -> Iterator[None]:
        """Calls the watchdog off once the block has ended by itself."""
        try:
            yield
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()


async def close_sessions(services: Services, signals: Signals) -> None:
    """Lets responses finish, closes all rows of this instance in one statement, and stops every session.

    Each session then takes its own exit path; the client sees 1012 and may go on elsewhere.
    """
    await _let_responses_finish(services, signals)
    signals.enter(CLOSE_ROWS)
    unfinished = [item for session in services.registry for item in session.take_unfinished()]
    closed = await _close_rows(services, unfinished)
    for session in services.registry:
        if session.session_id in closed:
            session.row_was_closed()
        session.stop(EndReason.SHUTDOWN)


async def _let_responses_finish(services: Services, signals: Signals) -> None:
    """Returns when no response is running, at the end of the phase, or at a second signal."""
    with trio.CancelScope() as grace:
        signals.enter(FINISH_RESPONSES, grace)
        for session in services.registry:
            await session.wait_answered()


async def _close_rows(services: Services, unfinished: list[StoredItem]) -> Collection[UUID]:
    with trio.move_on_after(CLOSE_ROWS.seconds_max, shield=True) as limit:
        try:
            closed = await services.store.close_instance_sessions(services.lease.instance_id, unfinished)
        except StoreError as error:
            # Each session's own exit path tries again.
            _log.error("bulk_close_failed", error=str(error))
        else:
            _log.info("sessions_closed", count=len(closed))
            return closed
    if limit.cancelled_caught:
        _log.error("bulk_close_timed_out", seconds=CLOSE_ROWS.seconds_max)
    return ()
