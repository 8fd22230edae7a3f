"""Checks every client's visits at rest: each ended for a reason, and what it came back to was all there."""

from __future__ import annotations

from tests.support.fake_rows import SessionRecord

from ...promises import Promise
from ..server import Server
from ..visits import Visit
from ..world import World
from .causes import INFINITE, ROUNDING_SECONDS
from .findings import overlap
from .step_checks import StepChecks

ANEW_SECONDS = 1.5  # in which a server that was declared dead notices it, and registers anew
TROUBLE_SECONDS = 8.0  # after which trouble no longer excuses an end
OVERLOADED = 1013  # the close code
REFUSED_OPENINGS = frozenset({"half", "foreign", "lost", "silent"})
UNFINISHED_OPENINGS = frozenset({"half", "silent"})


class ConnectionChecks:
    """One check of all visits of a world."""

    def __init__(self, world: World, checks: StepChecks, visits: list[Visit]) -> None:
        self._world = world
        self._checks = checks
        self._visits = visits

    def run(self) -> None:
        for visit in self._visits:
            if visit.ended_at == INFINITE:
                self._checks.broken(Promise.BOUNDED, f"{visit.name}'s connection never ended")
            else:
                self.check_end(visit)
        self._check_returns()
        self._check_deletions()

    def check_end(self, visit: Visit) -> None:
        """The server had a reason to end it, and did so in time."""
        at, server = visit.ended_at, visit.server
        if visit.close_code == OVERLOADED and not visit.errors:
            self._world.count("ending by server", "overloaded")
            if self._open_at(server, at) >= server.settings.connections_max:
                return
        if visit.behaviour.opening in UNFINISHED_OPENINGS and not overlap(server.freezes, visit.opened_at, at):
            limit = visit.opened_at + server.settings.handshake_seconds
            if at > limit + ROUNDING_SECONDS:
                self._checks.broken(
                    Promise.BOUNDED, f"{visit.name} had until {at:.3f} to finish its handshake, not {limit:.3f}"
                )
        excused = visit.behaviour.opening in REFUSED_OPENINGS or overlap(server.trouble, at - TROUBLE_SECONDS, at)
        if not excused and not any(when <= at + ROUNDING_SECONDS for when in self._reasons(visit)):
            self._checks.broken(Promise.CONTAINED, f"{visit.name} was ended with {visit.close_code} for no reason")

    def _reasons(self, visit: Visit) -> list[float]:
        """When the server got a reason to end a connection."""
        assert visit.wire is not None
        server, row = visit.server, self._row(visit)
        causes = [when for when, _ in visit.causes] + [visit.wire.full_at or INFINITE]
        causes += [when for when in (server.signalled_at, server.over_at) if when is not None]
        if row is not None and row.session_id in self._checks.by_hand:
            causes.append(self._checks.by_hand[row.session_id])
        if row is not None and row.session_end is not None and row.end_reason in ("expired", "idle"):
            causes.append(row.session_end)
        own = [record.instance.instance_id for record in server.link.own()]
        causes += [when for key, when in self._checks.declared.items()
                   if key in own and when >= visit.opened_at - ANEW_SECONDS]  # fmt: skip
        return causes

    def _row(self, visit: Visit) -> SessionRecord | None:
        """The row of a visit; of one that ended before the client was told of its session, that closed by hand."""
        rows = self._world.database.sessions
        if visit.session_id is not None:
            return rows.get(visit.session_id)
        told = {each.session_id for each in self._visits}
        untold = (rows[each] for each, at in self._checks.by_hand.items()
                  if each in rows and each not in told and at >= visit.opened_at)  # fmt: skip
        return next((row for row in untold if row.user_id == visit.user), None)

    def _open_at(self, server: Server, at: float) -> int:
        """How many connections to a server were open at a moment, as the clients saw it."""
        ends = (visit.wire.ended_at if visit.wire is not None and visit.wire.ended else INFINITE
                for visit in self._visits if visit.server is server and visit.opened_at <= at)  # fmt: skip
        return sum(end >= at for end in ends)

    def _check_returns(self) -> None:
        """A client that came back to a conversation was shown what is in it, and nothing else."""
        earlier: dict[str, list[Visit]] = {}
        for visit in self._visits:
            before = earlier.setdefault(visit.conversation, [])
            heard = {ack.item_id for one in before for ack in one.acks if ack.at < visit.opened_at}
            known = heard - {item_id for one in before for item_id in one.deleting}
            seen = {ack.item_id for ack in visit.acks}
            if known and seen - known and not known <= seen:
                self._lost(f"{visit.name} came back and was not shown {len(known - seen)} items")
            gone = {
                item_id
                for one in before
                for item_id, at in one.deleted.items()
                if at < visit.opened_at and item_id not in one.again
            }
            if gone & seen:
                self._lost(f"{visit.name} came back and was shown {len(gone & seen)} deleted items")
            before.append(visit)

    def _check_deletions(self) -> None:
        """What was deleted stayed deleted."""
        told = {item_id for visit in self._visits for item_id in visit.deleted if item_id not in visit.again}
        for item in self._world.database.messages.values():
            if item.item_id in told and not item.deleted:
                self._lost(f"{item.item_id} was acknowledged as deleted, and is there again")

    def _lost(self, example: str) -> None:
        self._checks.broken(Promise.NOTHING_LOST, example)
