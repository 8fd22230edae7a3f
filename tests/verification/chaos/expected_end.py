"""When a session ended according to the ledger, and which line of the published table applies. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .ledger import BACK_SECONDS, FAILOVER_SECONDS, WRITABLE_SECONDS, Cut, Ledger, Outage, ServerLife, Visit
from .plan import LOST_SECONDS, Pace
from .records import Row

CLOCK_SECONDS = 0.1  # how exactly moments of different processes compare
NOTICE_SECONDS = 3.0  # until other servers of its host have closed the sessions of a killed one
REMOTE_NOTICE_SECONDS = LOST_SECONDS + 1.0  # the same for servers on other hosts
CROWD_SECONDS = 0.25  # within which 99 % of the rows are true whose bound is 0.1 s on a quiet machine
START_SECONDS_MAX = 10.0  # of a server, while the first host of its URL hangs


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the published table.

    bound_row: seconds for which the row, or the socket, may be wrong. bound_end: seconds by which `session_end` may be
    off; None where that says nothing. of_socket: the line is about the socket's end, not the row's.
    bound_p99: seconds within which 99 % must be right, also on a busy machine; None where there is no such bound.
    """

    title: str
    bound_row: float
    bound_end: float | None
    of_socket: bool = False
    bound_p99: float | None = None


def lines(pace: Pace) -> dict[str, Line]:
    """Returns the table for a run's times; with the default times it is the published one."""
    return {
        "client": Line("client closes, RST, protocol error, handler or agent crash", 0.1, 0.1, bound_p99=CROWD_SECONDS),
        "vanished": Line("client vanishes without FIN", pace.ping_interval + pace.ping_timeout + 0.1, 0.0),
        "revoked": Line("row closed by a person or another server", 1.0, 0.0, of_socket=True),
        "deleted": Line("row deleted, or its user erased", 1.0, None, of_socket=True),
        "shutdown": Line("SIGTERM, SIGINT, SIGHUP or SIGQUIT", pace.answer_grace + 1.0, 0.1),
        "killed": Line("kill -9, one instance of several on this host", NOTICE_SECONDS, 1.0),
        "killed_elsewhere": Line("kill -9, on another host than the others", REMOTE_NOTICE_SECONDS, 1.0),
        "killed_only": Line("kill -9, only instance: after the next start is ready", 1.0, 1.0),
        "frozen": Line("frozen (SIGSTOP) for longer than the lease", pace.lease + 1.0, 1.0),
        "woken": Line("frozen, on waking: until its sockets are closed", 1.0, None, of_socket=True),
        "linked": Line("link to the database cut for less than 5 s: after it is back", BACK_SECONDS, 0.1),
        "cut_elsewhere": Line("connections cut for more than 5 s, on another host", REMOTE_NOTICE_SECONDS, 1.0),
        "cut": Line("link cut or stalled for longer than the lease", pace.linked_lease + 1.0, 1.0),
        "relinked": Line("link back: until the sockets of such a server are closed", 1.0, None, of_socket=True),
        "failover": Line("first host of the URL hangs: until ends are stored", FAILOVER_SECONDS + BACK_SECONDS, 0.1),
        "database": Line("PostgreSQL restarted, killed or frozen: after it is back", BACK_SECONDS, 0.1),
        "read_only": Line("PostgreSQL read-only: after it is writable again", WRITABLE_SECONDS, 0.1),
        "clock": Line("clock of PostgreSQL set by an hour", BACK_SECONDS, 0.1),
    }


@dataclass(frozen=True, slots=True)
class ExpectedEnd:
    """A session ended between `earliest` and `latest`; its row must say so within the line's bound from `origin` on.

    fault: what caused that, where it was one of the run's.
    """

    line: str
    earliest: float
    latest: float
    origin: float
    fault: str = ""

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
    outages = ledger.outages(life)
    if life.crashed is not None and _overtaken(visit, ended, life.crashed, committed, outages):
        return _killed(min(earliest, life.crashed), life.crashed, committed, life, ledger)
    for begin, end in life.frozen:
        if end - begin > life.lease and row.start < begin and _overtaken(visit, ended, begin, committed, outages):
            return _frozen(min(earliest, begin), (begin, end), committed, life, ledger)
    for cut in life.fatal_cuts():
        if row.start < cut.begin and _overtaken(visit, ended, cut.begin, committed, outages):
            return _cut(min(earliest, cut.begin), cut, committed, life, ledger)
    if life.terminated is not None and _overtaken(visit, ended, life.terminated, committed, outages):
        # The server does not know yet that a stopped client is gone. Any other session ends between its last stored
        # item and the end of its socket, whoever ends that.
        latest = committed if visit.how == "stopped" else ended
        first = max(min(row.last_item or visit.opened, earliest), min(life.terminated, earliest))
        told = ExpectedEnd("shutdown", first, latest, life.terminated, life.by)
        return _late_by_outage(told, committed, outages, pace)
    line = "vanished" if visit.how == "stopped" else "client"
    latest = max(ended, visit.sending) if visit.how == "stopped" else ended
    left = ExpectedEnd(line, earliest, latest, earliest, _client_fault(visit))
    return _late_by_outage(left, committed, outages, pace)


def _client_fault(visit: Visit) -> str:
    return f"client_{visit.how}" if visit.how in ("stopped", "killed", "reset") else ""


def _overtaken(visit: Visit, ended: float, event: float, committed: float, outages: list[Outage]) -> bool:
    """Whether an event struck a server before it could have handled a session's end."""
    back = [outage.over for outage in outages if outage.begin <= event and outage.over >= ended]
    due = max([ended + CLOCK_SECONDS, *back])
    return event < committed and (visit.how == "stopped" or event <= due)


def _killed(earliest: float, killed: float, committed: float, life: ServerLife, ledger: Ledger) -> ExpectedEnd:
    away = [outage for outage in ledger.outages() if outage.begin < committed and outage.end > killed]
    here = max([killed, *(outage.over - BACK_SECONDS for outage in away)])
    earliest = min(earliest, _known_until(killed, life, ledger))
    survivor = _survivor_from(here, life, NOTICE_SECONDS, ledger, near=True)
    if survivor is not None:
        return ExpectedEnd("killed", earliest, killed, max(here, survivor), life.by)
    # Elsewhere nobody sees the process, only that its connection has been gone for long while their own one worked.
    there = max([killed, *(outage.over for outage in away)])
    survivor = _survivor_from(there, life, REMOTE_NOTICE_SECONDS, ledger, near=False)
    if survivor is not None:
        return ExpectedEnd("killed_elsewhere", earliest, killed, max(there, survivor), life.by)
    ready = _next_ready(killed, ledger)
    if ready is not None and not _near(ready, life):
        return ExpectedEnd("killed_elsewhere", earliest, killed, max(there, ready.ready or there), life.by)
    origin = max(here, ready.ready or here) if ready is not None else here
    return ExpectedEnd("killed_only", earliest, killed, origin, life.by)


def _near(one: ServerLife, other: ServerLife) -> bool:
    """Whether one can see the other's process."""
    return one.hostname is None and other.hostname is None


def _known_until(killed: float, life: ServerLife, ledger: Ledger) -> float:
    """Returns until when the database can know that a killed server lived: not in an outage, nor in a freeze that
    lasted into one."""
    known = killed
    for outage in sorted(ledger.outages(life), reverse=True):
        if outage.begin <= known <= outage.over:
            known = min([outage.begin, *(asleep for asleep, awake in life.frozen if asleep <= outage.begin <= awake)])
    return known


def _survivor_from(moment: float, dead: ServerLife, seconds: float, ledger: Ledger, *, near: bool) -> float | None:
    """Returns from when another server, ready for that long, could notice; None where there was none.

    near: only servers of the same host.
    """
    fit = []
    for life in ledger.lives:
        if life is dead or life.ready is None or life.ready > moment or (near and not _near(life, dead)):
            continue
        ends = [end for end in (life.killed, life.terminated, life.died) if end is not None]
        if ends and min(ends) <= moment + seconds:
            continue
        away = [*life.frozen, *((cut.begin, cut.end) for cut in life.cuts)]
        # Elsewhere it must have watched on a link that worked all the time.
        first, last = (moment, moment + BACK_SECONDS) if near else (moment - BACK_SECONDS, moment + seconds)
        back = [end + BACK_SECONDS for begin, end in away if begin < last and end > first]
        fit.append(max([moment, *back]))
    return min(fit) if fit else None


def _next_ready(killed: float, ledger: Ledger) -> ServerLife | None:
    later = [life for life in ledger.lives if life.ready is not None and life.ready > killed]
    return min(later, key=lambda life: life.ready or 0.0) if later else None


def _frozen(
    earliest: float, freeze: tuple[float, float], committed: float, life: ServerLife, ledger: Ledger
) -> ExpectedEnd | None:
    begin, end = freeze
    # In an outage no server could close the rows, and on waking the server may have found its lease intact.
    if _database_away(begin, min(committed, end + BACK_SECONDS), ledger):
        return None
    survivor = _survivor_from(begin, life, life.lease + BACK_SECONDS, ledger, near=False)
    return ExpectedEnd("frozen", earliest, begin, begin, "server_frozen") if survivor is not None else None


def _cut(earliest: float, cut: Cut, committed: float, life: ServerLife, ledger: Ledger) -> ExpectedEnd | None:
    """Where the process can be seen to live, or its connections do not end, only the lease counts."""
    if _database_away(cut.begin, min(committed, cut.end + BACK_SECONDS), ledger):
        return None
    line = "cut_elsewhere" if life.hostname is not None and cut.how == "reset" else "cut"
    if _survivor_from(cut.begin, life, life.lease + BACK_SECONDS, ledger, near=False) is None:
        return None
    fault = "remote_link_cut" if life.hostname is not None else "link_cut"
    return ExpectedEnd(line, earliest, cut.begin, cut.begin, fault)


def _database_away(begin: float, end: float, ledger: Ledger) -> bool:
    return any(outage.end > begin and outage.begin < end for outage in ledger.outages())


def _late_by_outage(end: ExpectedEnd, committed: float, outages: list[Outage], pace: Pace) -> ExpectedEnd:
    """Returns the same end, with the time that the database took to return and to catch up."""
    begin = end.earliest - CLOCK_SECONDS
    late = [outage for outage in outages if outage.begin <= committed and outage.over >= begin]
    if not late:
        return end
    last = max(late, key=lambda outage: outage.over)
    origin = max(end.origin, last.origin)
    table = lines(pace)
    # A shutdown or a vanished client has a longer bound of its own than that of most outages.
    if end.line == "client" or table[last.line].bound_row > table[end.line].bound_row:
        return replace(end, line=last.line, origin=origin, fault=last.fault)
    return replace(end, origin=origin)


def excused_until(moment: float, life: ServerLife | None, ledger: Ledger) -> float:
    """Returns by when a server must know what was true at a moment: within a second, or that after its troubles."""
    limit = moment + BACK_SECONDS
    frozen = [(begin, end, end + BACK_SECONDS) for begin, end in (life.frozen if life else ())]
    away = [(outage.begin, outage.end, outage.over) for outage in ledger.outages(life)]
    for _ in range(2):  # an outage may follow a freeze
        for begin, end, over in sorted([*away, *frozen]):
            if begin < limit and end > moment:
                limit = max(limit, over)
    return limit
