"""The shutdown: its phases and their budget, so that nothing can hang the exit and no row stays active."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from uuid import UUID

import structlog
import trio

from .realtime.services import Services
from .runtime.signals import ALL_END, Meaning, signal_name
from .runtime.watchdog import Watchdog
from .sessions.instance import STOP_SECONDS
from .sessions.session import Session
from .store.errors import StoreError
from .store.records import EndReason, StoredRow

HURRY_MARGIN_SECONDS = 2.0  # beyond what the phases may take after a second signal, before the process is ended
CLOSE_FRAMES_PER_STEP = 4_096  # of the loop: it is away for a fifth of a second, and no client's reply comes between
STOPS_PER_STEP = 64  # of the loop: after so many, other tasks run

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a shutdown.

    Attributes:
        name: As the log calls it.
        does: What happens in it.
        until: When it is over at the latest: a share of `--drain-seconds`, counted from the first signal or the
            end of `--drain-delay`. Infinite: it is not cut off by that budget.
        seconds_max: How long it takes at most, whatever is left of the budget.
        hurry_seconds: How long it goes on after a second signal.
    """

    name: str
    does: str
    until: float = inf
    seconds_max: float = inf
    hurry_seconds: float = inf


DRAIN_DELAY = Phase(
    "drain_delay", "/readyz says draining for --drain-delay, and everything is served as before", hurry_seconds=0.0
)
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
    DRAIN_DELAY,
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


def hurry_seconds_max(drain_seconds: float) -> float:
    """How long a shutdown takes at most from its second signal on; a process that is still there is ended then."""
    bounds = (min(phase.seconds_max, phase.hurry_seconds) for phase in PHASES)
    return sum(bound for bound in bounds if bound < inf) + LAST_COMMITS_SHARE * drain_seconds + HURRY_MARGIN_SECONDS


class Signals:
    """What signals ask of the server: the first one begins the shutdown, a later one cuts its waiting short.

    Attributes:
        drain_seconds: The budget of the shutdown.
        tell: Tells the person at the terminal how the shutdown goes on.
        drain_delay: Seconds before it, in which the server only says that it is about to end.
        stop: Set by the first signal.
        hurry: Set by the second one.
        all_end: Whether those who share the port with it end, too.
        reload: Set when the certificate is to be read again; whoever does so clears it by a new event.
        starting: The server's start; ended by the first signal, unless `started` was called before.
    """

    def __init__(
        self, drain_seconds: float, tell: Callable[[str], None] = lambda _: None, drain_delay: float = 0.0
    ) -> None:
        self.drain_seconds = drain_seconds
        self.tell = tell
        self.drain_delay = drain_delay
        self.stop = trio.Event()
        self.all_end = False
        self.hurry = trio.Event()
        self.reload = trio.Event()
        self.starting = trio.CancelScope()
        self._started = False
        self._began = 0.0
        self._limited: list[tuple[trio.CancelScope, float]] = []

    @property
    def last_commits_seconds(self) -> float:
        """What the last commits get, counted from when they are all that is left."""
        return LAST_COMMITS_SHARE * self.drain_seconds

    def seconds_left(self) -> float:
        """Of the budget; 0 where no shutdown has begun, or a second signal came."""
        left = self._began + self.drain_seconds - trio.current_time()
        return 0.0 if self.hurry.is_set() or not self.stop.is_set() else max(left, 0.0)

    async def watch(self, watchdog: Watchdog) -> None:
        """Receives signals until cancelled."""
        token = trio.lowlevel.current_trio_token()

        def receive(number: int, meaning: Meaning) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._received, number, meaning)

        with watchdog.attached(receive, hurry_seconds_max(self.drain_seconds)):
            await trio.sleep_forever()

    def _received(self, number: int, meaning: Meaning) -> None:
        _log.info("signal", name=signal_name(number), does=meaning.value)
        match meaning:
            case Meaning.BEGIN:
                self.all_end = number == ALL_END
                self.begin()
            case Meaning.HURRY:
                self.hurry_up()
            case Meaning.RELOAD:
                self.reload.set()

    def started(self) -> None:
        """From now on there are connections, so a shutdown goes through its phases."""
        self._started = True

    def begin(self) -> None:
        """Begins the shutdown now; its budget runs from here."""
        _log.info("shutdown_began", budget_seconds=self.drain_seconds)
        self._began = trio.current_time()
        self.stop.set()
        if not self._started:
            self.starting.cancel()

    def hurry_up(self) -> None:
        """Cuts the waiting short, of this phase and of those to come."""
        self.hurry.set()
        self._shorten()

    async def delay(self) -> None:
        """The first phase. The budget runs from its end; on a server that was frozen, from when that should have been.

        A second signal cuts it short.
        """
        with trio.CancelScope(deadline=self._began + self.drain_delay) as scope:
            self.enter(DRAIN_DELAY, scope)
            await trio.sleep_forever()
        self._began = min(self._began + self.drain_delay, trio.current_time())

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


async def close_sessions(services: Services, signals: Signals) -> None:
    """Lets responses finish, closes all rows of this instance in one statement, and stops every session.

    Each session then takes its own exit path; the client sees 1012 and may go on elsewhere. All close frames are sent
    before the exit paths begin: thousands of those take a second or more, and the clients may use it to reconnect.
    """
    await _let_responses_finish(services, signals)
    signals.enter(CLOSE_ROWS)
    unfinished = [item for session in services.registry for item in session.take_unfinished()]
    closed = await _close_rows(services, unfinished)
    signals.tell(f"closed {len(closed)} {'session' if len(closed) == 1 else 'sessions'}")
    closed_here = [session for session in services.registry if session.session_id in closed]
    for session in closed_here:
        session.row_was_closed()
    async for session in _in_steps(closed_here, CLOSE_FRAMES_PER_STEP):
        session.say_goodbye(EndReason.SHUTDOWN)
    async for session in _in_steps(tuple(services.registry), STOPS_PER_STEP):
        session.stop(EndReason.SHUTDOWN)


async def _in_steps(sessions: Sequence[Session], size: int) -> AsyncIterator[Session]:
    """The sessions, with a step of the loop before each `size` of them."""
    for number, session in enumerate(sessions):
        if number % size == 0:
            await trio.lowlevel.checkpoint()
        yield session


async def _let_responses_finish(services: Services, signals: Signals) -> None:
    """Returns when no response is running, at the end of the phase, or at a second signal."""
    if answering := sum(session.answering for session in services.registry):
        seconds = FINISH_RESPONSES.until * signals.drain_seconds
        what = "the answer that is" if answering == 1 else f"the {answering} answers that are"
        signals.tell(f"waiting up to {seconds:g} s for {what} under way; Ctrl-C again cuts that short")
    with trio.CancelScope() as grace:
        signals.enter(FINISH_RESPONSES, grace)
        for session in services.registry:
            await session.wait_answered()


async def _close_rows(services: Services, unfinished: list[StoredRow]) -> Collection[UUID]:
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
