"""What is demanded of a struck world beyond the simulation's own checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.support.fake_rows import SessionRecord

from ..simulation.agent import DEAF_SECONDS
from ..simulation.checker import OWN_ROW_SECONDS, Checker
from ..simulation.clients import Visit
from ..simulation.truth import EXACT_SECONDS, INFINITE, LATENCY_SECONDS, Cause, Truth
from ..simulation.world import Server
from .scenarios import BYSTANDER, BYSTANDER_TURNS, SUBJECT
from .strike import StruckLink

if TYPE_CHECKING:
    from .run import Ending

BEFORE_ITS_BEGIN = ("keys_exist", "find_credential", "recall", "load_history")  # what a connection asks first


class Judge(Checker):
    """The simulation's checker, which also knows of cancellations and bugs."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.world, ending.watch, ending.crowd.visits)
        self._ending = ending

    def run(self) -> None:
        super().run()
        self._bystander()
        for session_id, times in self._ending.remembered.items():
            if times > 1:
                self._watch.broken("I4 memory", f"the memory of {session_id} was applied {times} times")

    def _reason(self, row: SessionRecord, truth: Truth, owner: Server) -> None:
        truth.causes += self._own_causes(truth._visit)
        super()._reason(row, truth, owner)

    def _tries(self, row: SessionRecord) -> None:
        """Nothing: a claim that is struck on its way to its process counts as a try that nobody heard of."""

    def _own_causes(self, visit: Visit | None) -> Iterator[Cause]:
        ending = self._ending
        at = ending.cancelled.get(visit.name) if visit is not None else None
        for kind, when in (("cancelled", at), ("bug", ending.broke_down)):
            if when is not None and visit is not None and visit.user == SUBJECT:
                yield Cause(kind, when, ("server_error",), when, when, when)

    def _visit(self, visit: Visit) -> None:
        assert visit.wire is not None
        ended = min(visit.closed_at or INFINITE, visit.wire.ended_at if visit.wire.ended else INFINITE)
        reasons = [at for at in (self._ending.cancelled.get(visit.name), self._refused_at(visit)) if at is not None]
        if visit.user == SUBJECT and self._ending.broke_down is not None:
            reasons.append(self._ending.broke_down)
        if not any(at <= ended + EXACT_SECONDS for at in reasons):
            super()._visit(visit)
        elif visit.name in self._ending.cancelled:
            self._cancelled(visit)
            self._left_behind(visit, self._ending.cancelled[visit.name], self._ending.left[visit.wire])

    def _cancelled(self, visit: Visit) -> None:
        """Whoever cancels a connection waits for its row, and for nothing that its peer does."""
        assert visit.wire is not None
        at, server = self._ending.cancelled[visit.name], visit.server
        seconds = server.settings.end_seconds + LATENCY_SECONDS if server.trouble else OWN_ROW_SECONDS
        seconds += (
            DEAF_SECONDS if "#deaf" in visit.marks else 0
        )  # a shield in the agent's own code: the row is not late
        ended = visit.wire.ended_at if visit.wire.ended else INFINITE
        if ended > at + seconds + EXACT_SECONDS:
            self._watch.broken(
                "I7 unbounded", f"{visit.name} was cancelled at {at:.3f}, its socket gone at {ended:.3f}"
            )

    def _left_behind(self, visit: Visit, at: float, left: float) -> None:
        """A task that is over has confirmed its end, or has waited for it as long as it may."""
        row = self._world.database.sessions.get(visit.session_id) if visit.session_id is not None else None
        if row is not None and (row.ended_at or INFINITE) > left < at + visit.server.settings.end_seconds:
            self._watch.broken(
                "I1 orphan", f"{visit.name}'s task was over at {left:.3f}, its row closed {row.ended_at}"
            )

    def _refused_at(self, visit: Visit) -> float | None:
        """When it was turned down for an operation that failed before its session began."""
        link = visit.server.link
        if isinstance(link, StruckLink) and link.failed is not None and "store_unavailable" in visit.errors:
            name, at = link.failed
            return at if visit.session_id is None and name in BEFORE_ITS_BEGIN else None
        return None

    def _bystander(self) -> None:
        """What happens to one connection is nothing to another."""
        ending = self._ending
        server_ends = ending.scenario.steps != "connection" or ending.struck in ("crash", "signal")
        if server_ends or any(server.trouble for server in self._world.servers):
            return
        (visit,) = (visit for visit in self._visits if visit.user == BYSTANDER)
        heard = {ack.item_id for ack in visit.acks}
        if len(heard) != 2 * BYSTANDER_TURNS:
            self._watch.broken("I8 contained", f"the bystander heard of {len(heard)} items, with {visit.errors}")

    def _logs(self) -> None:
        bugs = () if self._ending.broke_down is None else ("session_crashed", "response_failed", "connection_crashed")
        self._world.logged = [line for line in self._world.logged if line[1] not in bugs]
        super()._logs()
