"""What happened, as seen by the clients and by the run that caused the faults. Times are Unix seconds."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

from ..starvation import Starvation


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
    """target: the process or session that it struck. end: when it was over, or healed."""

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
class ServerLife:
    """One server process, from its start to its exit. ready, died: None until then.

    terminated: when it got SIGTERM; killed: when it was killed; frozen: from when to when, each time.
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

    @property
    def crashed(self) -> float | None:
        """When it ended without a SIGTERM: killed, or by itself."""
        return self.killed if self.killed is not None or self.terminated is not None else self.died


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

    def outages(self) -> list[tuple[float, float]]:
        """When the database did not answer."""
        kinds = ("database_restarted", "database_frozen")
        return sorted((fault.begin, fault.end) for fault in self.faults if fault.kind in kinds)

    def life_of(self, visit: Visit) -> ServerLife | None:
        """The server process of a visit: the last of its port that was ready when the visit began."""
        lives = [life for life in self.lives if life.port == visit.port and life.ready is not None]
        starts = [life.started for life in lives]
        index = bisect.bisect_right(starts, visit.created or visit.opened) - 1
        return lives[index] if index >= 0 else None
