"""Checks a struck world: the simulation's checks, adapted to cancellations and bugs, and some more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.support.fake_rows import SessionRecord

from ..promises import Promise
from ..simulation.fakes.agent import DEAF_SECONDS
from ..simulation.oracle.causes import INFINITE, LATENCY_SECONDS, ROUNDING_SECONDS, Cause, Causes
from ..simulation.oracle.connection_checks import ConnectionChecks
from ..simulation.oracle.memory_checks import MemoryChecks
from ..simulation.oracle.server_checks import ServerChecks
from ..simulation.oracle.session_checks import OWN_ROW_SECONDS, SessionChecks
from ..simulation.server import Server
from ..simulation.visits import Visit
from .scenarios import BYSTANDER, BYSTANDER_TURNS, SUBJECT
from .strike import StruckLink

if TYPE_CHECKING:
    from .run import ScenarioRun

# The queries of a new connection.
BEFORE_BEGIN = (
    "keys_exist",
    "find_credential",
    "recall",
    "load_history",
)  # the queries of a new connection
BUG_EVENTS = frozenset({"session_crashed", "response_failed", "connection_crashed"})


def check_struck_world(run: ScenarioRun) -> None:
    """Checks everything; findings go to the run's `checks`."""
    world, checks, visits = run.world, run.checks, run.clients.visits
    tolerated = frozenset[str]() if run.bug_at is None else BUG_EVENTS
    StruckSessionChecks(run).run()
    StruckMemoryChecks(world, checks).run()
    StruckConnectionChecks(run).run()
    ServerChecks(world, checks, visits, tolerated=tolerated).run()
    _check_bystander(run)
    for session_id, times in run.finalized.items():
        if times > 1:
            checks.broken(Promise.MEMORY_ONCE, f"the memory of {session_id} was applied {times} times")


def _check_bystander(run: ScenarioRun) -> None:
    """What happens to one connection has no effect on another."""
    server_ends = run.scenario.steps != "connection" or run.struck in ("crash", "signal")
    if server_ends or any(server.trouble for server in run.world.servers):
        return
    (visit,) = (visit for visit in run.clients.visits if visit.user == BYSTANDER)
    heard = {ack.item_id for ack in visit.acks}
    if len(heard) != 2 * BYSTANDER_TURNS:
        run.checks.broken(
            Promise.CONTAINED, f"the bystander was told of {len(heard)} items, and of errors {visit.errors}"
        )


class StruckSessionChecks(SessionChecks):
    """Knows of cancellations and bugs as causes of an end."""

    def __init__(self, run: ScenarioRun) -> None:
        super().__init__(run.world, run.checks, run.clients.visits)
        self._run = run

    def _check_reason(self, row: SessionRecord, causes: Causes, owner: Server) -> None:
        causes.found += self._own_causes(causes.visit)
        super()._check_reason(row, causes, owner)

    def _own_causes(self, visit: Visit | None) -> Iterator[Cause]:
        at = self._run.cancelled.get(visit.name) if visit is not None else None
        for kind, when in (("cancelled", at), ("bug", self._run.bug_at)):
            if when is not None and visit is not None and visit.user == SUBJECT:
                yield Cause(kind, when, ("server_error",), when, when, when)


class StruckMemoryChecks(MemoryChecks):
    """Does not count attempts: a claim that is struck on its way counts as an attempt that nobody saw fail."""

    def _check_attempts(self, row: SessionRecord) -> None:
        """Nothing to check."""


class StruckConnectionChecks(ConnectionChecks):
    """Knows of cancellations, bugs and failed queries as reasons to end a connection."""

    def __init__(self, run: ScenarioRun) -> None:
        super().__init__(run.world, run.checks, run.clients.visits)
        self._run = run

    def check_end(self, visit: Visit) -> None:
        cancelled = self._run.cancelled.get(visit.name)
        reasons = [at for at in (cancelled, _refused_at(visit)) if at is not None]
        if visit.user == SUBJECT and self._run.bug_at is not None:
            reasons.append(self._run.bug_at)
        if not any(at <= visit.ended_at + ROUNDING_SECONDS for at in reasons):
            super().check_end(visit)
        elif cancelled is not None:
            assert visit.wire is not None
            self._check_cancelled(visit, cancelled)
            self._check_row_closed(visit, cancelled, self._run.left[visit.wire])

    def _check_cancelled(self, visit: Visit, at: float) -> None:
        """A cancelled connection waits for its row, and for nothing that its peer does."""
        assert visit.wire is not None
        server = visit.server
        seconds = server.settings.end_seconds + LATENCY_SECONDS if server.trouble else OWN_ROW_SECONDS
        if "#deaf" in visit.marks:
            seconds += DEAF_SECONDS  # a shield in the agent's own code
        ended = visit.wire.ended_at if visit.wire.ended else INFINITE
        if ended > at + seconds + ROUNDING_SECONDS:
            self._checks.broken(
                Promise.BOUNDED, f"{visit.name} was cancelled at {at:.3f}, its socket closed at {ended:.3f}"
            )

    def _check_row_closed(self, visit: Visit, at: float, left: float) -> None:
        """A connection's task ends after its row was closed, or after waiting for it as long as it may."""
        row = self._world.database.sessions.get(visit.session_id) if visit.session_id is not None else None
        if row is not None and (row.ended_at or INFINITE) > left < at + visit.server.settings.end_seconds:
            self._checks.broken(
                Promise.NO_ORPHAN, f"{visit.name}'s task ended at {left:.3f}, its row was closed at {row.ended_at}"
            )


def _refused_at(visit: Visit) -> float | None:
    """When a query failed before the session began, so that the connection was refused."""
    link = visit.server.link
    if isinstance(link, StruckLink) and link.failed is not None and "store_unavailable" in visit.errors:
        name, at = link.failed
        return at if visit.session_id is None and name in BEFORE_BEGIN else None
    return None
