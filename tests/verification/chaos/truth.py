"""When a session truly ended, by the ledger, and which line of the published table it belongs to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .ledger import Fault, Ledger, Life, Visit
from .plan import Pace
from .records import Row

CLOCK_SECONDS = 0.1  # how exact a client's reading of a moment is on a busy machine
NOTICE_SECONDS = 3.0  # until other servers have closed the sessions of a killed one
BACK_SECONDS = 1.0  # from the database's return, or a frozen server's, until all is true again


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: bounds in seconds, of how long the row is wrong and how far `session_end` is off.

    bound_end None: nothing to measure there.
    """

    title: str
    bound_row: float
    bound_end: float | None


def lines(pace: Pace) -> dict[str, Line]:
    """The table for a run's times; with the defaults it is the published one."""
    return {
        "client": Line("client closes, RST, protocol error, handler or agent crash", 0.1, 0.1),
        "vanished": Line("client vanishes without FIN", pace.ping_interval + pace.ping_timeout + 0.1, 0.0),
        "revoked": Line("row closed by a person or another server", 1.0, 0.0),
        "shutdown": Line("SIGTERM / SIGINT", pace.answer_grace + 1.0, 0.1),
        "killed": Line("kill -9, one instance of several", NOTICE_SECONDS, 1.0),
        "killed_only": Line("kill -9, only instance: after the next start is ready", 1.0, 1.0),
        "frozen": Line("frozen (SIGSTOP) for longer than the lease", pace.lease + 1.0, 1.0),
        "woken": Line("frozen, on waking: until its sockets are closed", 1.0, None),
        "database": Line("PostgreSQL restarted or frozen: after it is back", 1.0, 0.1),
    }


@dataclass(frozen=True, slots=True)
class Truth:
    """A session's end: between `earliest` and `latest`; from `origin` on, the row has the line's time to say so."""

    line: str
    earliest: float
    latest: float
    origin: float

    def off(self, moment: float) -> float:
        """How far a moment is from the truth, in seconds."""
        return max(self.earliest - moment, moment - self.latest, 0.0)


def truth_of(visit: Visit, row: Row, life: Life, ledger: Ledger, pace: Pace) -> Truth | None:
    """None where the ledger does not know, or several faults lie over one another so that no line fits."""
    ended = visit.socket_ended
    if ended is None:
        return None
    # What a server has not committed before it stops, it will not commit before somebody else does.
    committed = row.closings[0] if row.closings else float("inf")
    if life.crashed is not None and _overtaken(visit, ended, life.crashed, committed, ledger):
        return _killed(min(ended, life.crashed), life.crashed, committed, life, ledger)
    for begin, end in life.frozen:
        if end - begin > pace.lease and row.start < begin and _overtaken(visit, ended, begin, committed, ledger):
            return _frozen(min(ended, begin), (begin, end), committed, life, ledger, pace)
    if life.terminated is not None and _overtaken(visit, ended, life.terminated, committed, ledger):
        # Of a client that has vanished the server knows nothing yet. For any other, its session is over at some moment
        # between the last item that was stored of it and the end of its socket, whoever ends that.
        latest = committed if visit.how == "stopped" else ended
        earliest = max(min(row.last_item or visit.opened, ended), min(life.terminated, ended))
        return _late_by_outage(Truth("shutdown", earliest, latest, life.terminated), committed, ledger)
    line = "vanished" if visit.how == "stopped" else "client"
    latest = max(ended, visit.sending) if visit.how == "stopped" else ended
    earliest = visit.leaving if visit.leaving is not None and visit.left == ended else ended
    return _late_by_outage(Truth(line, earliest, latest, earliest), committed, ledger)


def _overtaken(visit: Visit, ended: float, event: float, committed: float, ledger: Ledger) -> bool:
    """Whether something happened to a server before it could have dealt with a session's end."""
    back = [end + BACK_SECONDS for begin, end in ledger.outages() if begin <= event and end + BACK_SECONDS >= ended]
    due = max([ended + CLOCK_SECONDS, *back])
    return event < committed and (visit.how == "stopped" or event <= due)


def _killed(earliest: float, killed: float, committed: float, life: Life, ledger: Ledger) -> Truth:
    origin = max([killed, *(end for begin, end in ledger.outages() if begin < committed and end > killed)])
    survivor = _survivor_from(origin, life, NOTICE_SECONDS, ledger)
    earliest = min(earliest, _known_until(killed, life, ledger))
    if survivor is None:
        return Truth("killed_only", earliest, killed, _next_ready(killed, origin, ledger))
    return Truth("killed", earliest, killed, max(origin, survivor))


def _known_until(killed: float, life: Life, ledger: Ledger) -> float:
    """What a server lived through while the database was away, the database cannot know; nor that it lived when an
    outage began in which it woke: what is frozen says nothing."""
    known = killed
    for begin, end in sorted(ledger.outages(), reverse=True):
        if begin <= known <= end + BACK_SECONDS:
            known = min([begin, *(asleep for asleep, awake in life.frozen if asleep <= begin <= awake)])
    return known


def _survivor_from(moment: float, dead: Life, seconds: float, ledger: Ledger) -> float | None:
    """From when another server, ready at a moment and for so long, was fit to notice; None where there was none."""
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
    earliest: float, freeze: tuple[float, float], committed: float, life: Life, ledger: Ledger, pace: Pace
) -> Truth | None:
    begin, end = freeze
    # With the database away nobody could close the rows, and on waking the server may have found its lease intact.
    if any(back > begin and away < min(committed, end + BACK_SECONDS) for away, back in ledger.outages()):
        return None
    survivor = _survivor_from(begin, life, pace.lease + BACK_SECONDS, ledger)
    return Truth("frozen", earliest, begin, begin) if survivor is not None else None


def _late_by_outage(truth: Truth, committed: float, ledger: Ledger) -> Truth:
    """The same end, with the time that the database needed to come back and to catch up."""
    begin = truth.earliest - CLOCK_SECONDS
    late = [back for away, back in ledger.outages() if away <= committed and back + BACK_SECONDS >= begin]
    if not late:
        return truth
    if truth.line != "client":  # they have more time than that anyway
        return Truth(truth.line, truth.earliest, truth.latest, max(truth.origin, *late))
    return Truth("database", truth.earliest, truth.latest, max(truth.origin, *late))


def closing_by_hand(session_id: str | None, ledger: Ledger) -> Fault | None:
    """The fault that closed a session's row, where one did."""
    found = (fault for fault in ledger.faults if fault.kind == "row_closed" and fault.target == session_id)
    return next(found, None)


def excused_until(moment: float, life: Life | None, ledger: Ledger) -> float:
    """When a server has to know what was true at a moment: within a second, or that after it could know again."""
    limit = moment + BACK_SECONDS
    for _ in range(2):  # an outage may follow a freeze
        for begin, end in sorted([*ledger.outages(), *(life.frozen if life else ())]):
            if begin < limit and end > moment:
                limit = max(limit, end + BACK_SECONDS)
    return limit
