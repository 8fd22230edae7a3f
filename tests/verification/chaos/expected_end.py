"""When a session ended according to the ledger, and which line of the published table applies. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .ledger import Fault, Ledger, ServerLife, Visit
from .plan import Pace
from .records import Row

CLOCK_SECONDS = 0.1  # how exactly moments of different processes compare
NOTICE_SECONDS = 3.0  # until other servers have closed the sessions of a killed one
BACK_SECONDS = 1.0  # from the return of the database or of a frozen server until every row is true again


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the published table.

    bound_row: seconds for which the row, or the socket, may be wrong. bound_end: seconds by which `session_end` may be
    off; None where that says nothing. of_socket: the line is about the socket's end, not the row's.
    """

    title: str
    bound_row: float
    bound_end: float | None
    of_socket: bool = False


def lines(pace: Pace) -> dict[str, Line]:
    """Returns the table for a run's times; with the default times it is the published one."""
    return {
        "client": Line("client closes, RST, protocol error, handler or agent crash", 0.1, 0.1),
        "vanished": Line("client vanishes without FIN", pace.ping_interval + pace.ping_timeout + 0.1, 0.0),
        "revoked": Line("row closed by a person or another server", 1.0, 0.0, of_socket=True),
        "shutdown": Line("SIGTERM / SIGINT", pace.answer_grace + 1.0, 0.1),
        "killed": Line("kill -9, one instance of several", NOTICE_SECONDS, 1.0),
        "killed_only": Line("kill -9, only instance: after the next start is ready", 1.0, 1.0),
        "frozen": Line("frozen (SIGSTOP) for longer than the lease", pace.lease + 1.0, 1.0),
        "woken": Line("frozen, on waking: until its sockets are closed", 1.0, None, of_socket=True),
        "database": Line("PostgreSQL restarted or frozen: after it is back", 1.0, 0.1),
    }


@dataclass(frozen=True, slots=True)
class ExpectedEnd:
    """A session ended between `earliest` and `latest`; its row must say so within the line's bound from `origin` on."""

    line: str
    earliest: float
    latest: float
    origin: float

    def off(self, moment: float) -> float:
        """Returns how many seconds a moment lies outside of the end."""
        return max(self.earliest - moment, moment - self.latest, 0.0)


def expected_end(visit: Visit, row: Row, life: ServerLife, ledger: Ledger, pace: Pace) -> ExpectedEnd | None:
    """Returns None where the ledger does not know, or where faults overlap so that no line applies."""
    ended, earliest = visit.socket_ended, visit.socket_ended_earliest
    if ended is None or earliest is None:
        return None
    # What a server has not committed before it stops, another one commits.
    committed = row.closings[0] if row.closings else float("inf")
    if life.crashed is not None and _overtaken(visit, ended, life.crashed, committed, ledger):
        return _killed(min(earliest, life.crashed), life.crashed, committed, life, ledger)
    for begin, end in life.frozen:
        if end - begin > pace.lease and row.start < begin and _overtaken(visit, ended, begin, committed, ledger):
            return _frozen(min(earliest, begin), (begin, end), committed, life, ledger, pace)
    if life.terminated is not None and _overtaken(visit, ended, life.terminated, committed, ledger):
        # The server does not know yet that a stopped client is gone. Any other session ends between its last stored
        # item and the end of its socket, whoever ends that.
        latest = committed if visit.how == "stopped" else ended
        first = max(min(row.last_item or visit.opened, earliest), min(life.terminated, earliest))
        return _late_by_outage(ExpectedEnd("shutdown", first, latest, life.terminated), committed, ledger)
    line = "vanished" if visit.how == "stopped" else "client"
    latest = max(ended, visit.sending) if visit.how == "stopped" else ended
    return _late_by_outage(ExpectedEnd(line, earliest, latest, earliest), committed, ledger)


def _overtaken(visit: Visit, ended: float, event: float, committed: float, ledger: Ledger) -> bool:
    """Whether an event struck a server before it could have handled a session's end."""
    back = [end + BACK_SECONDS for begin, end in ledger.outages() if begin <= event and end + BACK_SECONDS >= ended]
    due = max([ended + CLOCK_SECONDS, *back])
    return event < committed and (visit.how == "stopped" or event <= due)


def _killed(earliest: float, killed: float, committed: float, life: ServerLife, ledger: Ledger) -> ExpectedEnd:
    origin = max([killed, *(end for begin, end in ledger.outages() if begin < committed and end > killed)])
    survivor = _survivor_from(origin, life, NOTICE_SECONDS, ledger)
    earliest = min(earliest, _known_until(killed, life, ledger))
    if survivor is None:
        return ExpectedEnd("killed_only", earliest, killed, _next_ready(killed, origin, ledger))
    return ExpectedEnd("killed", earliest, killed, max(origin, survivor))


def _known_until(killed: float, life: ServerLife, ledger: Ledger) -> float:
    """Returns until when the database can know that a killed server lived: not in an outage, nor in a freeze that
    lasted into one."""
    known = killed
    for begin, end in sorted(ledger.outages(), reverse=True):
        if begin <= known <= end + BACK_SECONDS:
            known = min([begin, *(asleep for asleep, awake in life.frozen if asleep <= begin <= awake)])
    return known


def _survivor_from(moment: float, dead: ServerLife, seconds: float, ledger: Ledger) -> float | None:
    """Returns from when another server, ready for that long, could notice; None where there was none."""
    fit = []
    for life in ledger.lives:
        if life is dead or life.ready is None or life.ready > moment:
            continue
        ends = [end for end in (life.killed, life.terminated, life.died) if end is not None]
        if ends and min(ends) <= moment + seconds:
            continue
        awake = [end + BACK_SECONDS for begin, end in life.frozen if begin < moment + BACK_SECONDS and end > moment]
        fit.append(max([moment, *awake]))
    return min(fit) if fit else None


def _next_ready(killed: float, origin: float, ledger: Ledger) -> float:
    ready = [life.ready for life in ledger.lives if life.ready is not None and life.ready > killed]
    return max(origin, min(ready)) if ready else origin


def _frozen(
    earliest: float, freeze: tuple[float, float], committed: float, life: ServerLife, ledger: Ledger, pace: Pace
) -> ExpectedEnd | None:
    begin, end = freeze
    # In an outage no server could close the rows, and on waking the server may have found its lease intact.
    if any(back > begin and away < min(committed, end + BACK_SECONDS) for away, back in ledger.outages()):
        return None
    survivor = _survivor_from(begin, life, pace.lease + BACK_SECONDS, ledger)
    return ExpectedEnd("frozen", earliest, begin, begin) if survivor is not None else None


def _late_by_outage(end: ExpectedEnd, committed: float, ledger: Ledger) -> ExpectedEnd:
    """Returns the same end, with the time that the database took to return and to catch up."""
    begin = end.earliest - CLOCK_SECONDS
    late = [back for away, back in ledger.outages() if away <= committed and back + BACK_SECONDS >= begin]
    if not late:
        return end
    line = "database" if end.line == "client" else end.line  # the other bounds are longer than that anyway
    return replace(end, line=line, origin=max(end.origin, *late))


def closing_by_hand(session_id: str | None, ledger: Ledger) -> Fault | None:
    """Returns the fault that closed a session's row, if any."""
    found = (fault for fault in ledger.faults if fault.kind == "row_closed" and fault.target == session_id)
    return next(found, None)


def excused_until(moment: float, life: ServerLife | None, ledger: Ledger) -> float:
    """Returns by when a server must know what was true at a moment: within a second, or that after its troubles."""
    limit = moment + BACK_SECONDS
    for _ in range(2):  # an outage may follow a freeze
        for begin, end in sorted([*ledger.outages(), *(life.frozen if life else ())]):
            if begin < limit and end > moment:
                limit = max(limit, end + BACK_SECONDS)
    return limit
