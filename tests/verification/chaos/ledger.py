"""What happened, as seen by the clients and by the run that caused the faults. Times are Unix seconds."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..starvation import Starvation
from .plan import LOST_SECONDS, ROW_FAULTS

BACK_SECONDS = 1.0  # from the return of the database or of a frozen server until every row is true again
WRITABLE_SECONDS = 2.0  # the same after the database was read-only
FAILOVER_SECONDS = 8.0  # from when the first host of a URL hangs until a server has gone over to the second
HEARTBEAT_SECONDS = 1.0  # between two renewals of a lease: how old the last one may be when a link is cut
DATABASE_LINES = {
    "database_restarted": "database",
    "database_killed": "database",
    "database_frozen": "database",
    "database_read_only": "read_only",
    "database_clock_set": "clock",
}


@dataclass(slots=True)
class Ack:
    """An item that a client saw acknowledged. at: when that reached the client's socket, read or not."""

    item_id: str
    role: str
    text: str
    at: float


@dataclass(slots=True)
class Visit:
    """One connection, as its client saw it. A field is None until it happens.

    client_process: by its number in this run.
    sent: when the client last sent a frame; sending: when it last was about to.
    leaving: just before the client made its end (`how`); left: when that was on its way.
    gone: when the client saw the server's end, with its close code (0: none); gone_earliest: when that may have
    reached its socket.
    """

    visit_id: str
    user_id: str
    port: int
    client_process: int
    opened: float
    session_id: str | None = None
    created: float | None = None
    acks: dict[str, Ack] = field(default_factory=dict)
    sent: float = 0.0
    sending: float = 0.0
    leaving: float | None = None
    left: float | None = None
    how: str = ""
    gone: float | None = None
    gone_earliest: float = 0.0
    code: int = 0
    turns: int = 0

    def note(self, kind: str, at: float, *rest: Any) -> None:
        """Takes one line of its client."""
        match kind:
            case "created":
                self.session_id, self.created = rest[0], at
            case "sending":
                self.sending = at
            case "sent":
                self.sent = at
            case "leaving":
                self.leaving, self.how = at, rest[0]
            case "left":
                self.leaving, self.left = rest[0], at
            case "gone":
                self.gone, self.code, self.gone_earliest = at, *rest

    @property
    def is_open(self) -> bool:
        return self.created is not None and self.socket_ended is None

    @property
    def socket_ended(self) -> float | None:
        """When the socket was over for the client, whoever ended it."""
        ends = [end for end in (self.left, self.gone) if end is not None]
        return min(ends) if ends else None

    @property
    def socket_ended_earliest(self) -> float | None:
        """The earliest moment at which the socket may have been over."""
        ended = self.socket_ended
        if ended is None:
            return None
        began = self.leaving if ended == self.left else self.gone_earliest
        return ended if began is None else min(ended, began)


@dataclass(slots=True)
class Fault:
    """target: the process, session or user that it struck. end: when it was over, or healed."""

    kind: str
    target: str
    begin: float
    end: float


@dataclass(slots=True)
class ClientsEnd:
    """What was done to a client process. how: killed or stopped. gone: when a killed one was; at least `at`."""

    how: str
    at: float
    gone: float = 0.0


@dataclass(slots=True)
class Cut:
    """A time without the link to the database. how: reset, stalled, or hung: only the first of its two hosts."""

    begin: float
    end: float
    how: str


class Outage(NamedTuple):
    """A time in which a server could not use the database.

    fault: its kind. line: of the published table. origin: from when on the line's bound counts. back: how long after
    `end` everything must be true again.
    """

    begin: float
    end: float
    fault: str
    line: str
    origin: float
    back: float = BACK_SECONDS

    @property
    def over(self) -> float:
        return self.end + self.back


@dataclass(slots=True)
class ServerLife:
    """One server process, from its start to its exit. ready, died: None until then.

    pid: as it registers itself. process: its id on this host, where that is another. hostname: None for this host's.
    lease: in seconds. linked: whether its way to the database leads through a link that can be cut.
    seen_elsewhere: whether servers on another host watch it, who cannot see its process.
    terminated: when it got a signal to end; killed: when it was killed; by: the fault that did either.
    frozen: from when to when, each time.
    """

    pid: int
    port: int
    started: float
    ready: float | None = None
    terminated: float | None = None
    killed: float | None = None
    died: float | None = None
    exit_code: int | None = None
    frozen: list[tuple[float, float]] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    lease: float = 3.0
    process: int = 0
    hostname: str | None = None
    linked: bool = False
    seen_elsewhere: bool = False
    by: str = ""

    def __post_init__(self) -> None:
        self.process = self.process or self.pid

    @property
    def crashed(self) -> float | None:
        """When it ended without a signal to: killed, or by itself."""
        return self.killed if self.killed is not None or self.terminated is not None else self.died

    def outages(self) -> list[Outage]:
        """When this server had no link."""
        return [self._outage(cut) for cut in self.cuts]

    def _outage(self, cut: Cut) -> Outage:
        if cut.how == "hung":
            over = cut.begin + FAILOVER_SECONDS
            return Outage(cut.begin, over, "first_host_hangs", "failover", cut.begin)
        return Outage(cut.begin, cut.end, "link_cut_briefly", "linked", cut.end)

    def may_be_reaped(self, cut: Cut) -> float:
        """From when on others may take it for dead because of a cut."""
        if self.seen_elsewhere and cut.how == "reset":
            return cut.begin + LOST_SECONDS
        return cut.begin + self.lease - HEARTBEAT_SECONDS

    def fatal_cuts(self) -> list[Cut]:
        """Those that lasted long enough to be taken for its death."""
        return [cut for cut in self.cuts if cut.how != "hung" and cut.end >= self.may_be_reaped(cut)]


@dataclass(slots=True)
class Ledger:
    """Everything but the database."""

    visits: dict[str, Visit] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    lives: list[ServerLife] = field(default_factory=list)
    refused: int = 0  # visits that no server accepted in time
    clients_ended: dict[int, ClientsEnd] = field(default_factory=dict)  # by the client process's number
    starvation: Starvation = field(default_factory=Starvation)

    def note(self, line: list[Any]) -> None:
        """Takes one line of a client process: [kind, visit, time, …], or [late, process, end, begin]."""
        kind, subject, at, *rest = line
        if kind == "late":
            self.starvation.record(f"clients:{subject}", rest[0], at)
            return
        if kind == "open":
            self.visits[subject] = Visit(subject, rest[0], rest[1], rest[2], at)
            return
        visit = self.visits[subject]
        if kind == "ack":
            visit.acks.setdefault(rest[0], Ack(rest[0], rest[1], rest[2], at))
            visit.turns += rest[0].startswith(f"item_{subject}_")
        elif kind == "refused":
            self.refused += 1
        else:
            visit.note(kind, at, *rest)

    def resolve(self) -> None:
        """Gives the visits of killed and stopped client processes their end. Once, after the last line was noted."""
        for visit in self.visits.values():
            end = self.clients_ended.get(visit.client_process)
            if visit.socket_ended is None and end is not None:
                visit.how = end.how
                if end.how == "killed":  # the kernel closes its sockets somewhere in between
                    visit.leaving, visit.left = end.at, max(end.at, end.gone)
                else:
                    visit.left = visit.sent
                    if visit.sending > visit.sent:  # this frame left before the process stopped, or never
                        visit.sending = end.at

    def outages(self, life: ServerLife | None = None) -> list[Outage]:
        """When the database could not be used: by nobody, or also by one server."""
        found = life.outages() if life is not None else []
        for fault in self.faults:
            if (line := DATABASE_LINES.get(fault.kind)) is not None:
                back = WRITABLE_SECONDS if line == "read_only" else BACK_SECONDS
                found.append(Outage(fault.begin, fault.end, fault.kind, line, fault.end, back))
        return sorted(found)

    def struck(self, *targets: str | None, by: Sequence[str] = ROW_FAULTS) -> str | None:
        """Returns the first of these faults of a row, by its session or user; None: there was none."""
        return next((fault.kind for fault in self.faults if fault.kind in by and fault.target in targets), None)

    def life_of(self, visit: Visit) -> ServerLife | None:
        """The server process of a visit: the last of its port that was ready when the visit began."""
        lives = [life for life in self.lives if life.port == visit.port and life.ready is not None]
        starts = [life.started for life in lives]
        index = bisect.bisect_right(starts, visit.created or visit.opened) - 1
        return lives[index] if index >= 0 else None
