"""What happened, as the clients and the hand that did the faults saw it. Times are Unix seconds of this machine."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Ack:
    """An item that a client saw acknowledged."""

    item_id: str
    role: str
    text: str
    at: float


@dataclass(slots=True)
class Visit:
    """One connection, as its client saw it. What is None has not happened.

    words: the texts that the client sent as its own, acknowledged or not.
    sent: when it last sent a frame; sending: when it last was about to.
    leaving: just before it made its end (`how`); left: when that was on its way. gone: when it saw the server's
    end, with its close code (0: none).
    """

    visit_id: str
    user_id: str
    port: int
    people: int  # the client's process, by its number in this run
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
    code: int = 0
    turns: int = 0

    def note(self, what: str, at: float, *rest: Any) -> None:
        """Takes one line of its client."""
        match what:
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
                self.gone, self.code = at, rest[0]

    @property
    def socket_ended(self) -> float | None:
        """When the socket was over for the client, whoever ended it."""
        ends = [end for end in (self.left, self.gone) if end is not None]
        return min(ends) if ends else None


@dataclass(slots=True)
class Fault:
    """target: whom it was done to: a process, a session. end: when it was over, or healed."""

    kind: str
    target: str
    begin: float
    end: float


@dataclass(slots=True)
class PeopleEnd:
    """What was done to a process of clients. how: killed or stopped. gone: when a killed one was; at least `at`."""

    how: str
    at: float
    gone: float = 0.0


@dataclass(slots=True)
class Life:
    """One server process, from its start to its exit. ready, died: None until then.

    terminated: when it was told to end; killed: when it was killed; frozen: from when to when, each time.
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
        """When it ended without being told to: killed, or by itself."""
        return self.killed if self.killed is not None or self.terminated is not None else self.died


@dataclass(slots=True)
class Ledger:
    """Everything but the database."""

    visits: dict[str, Visit] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    refused: int = 0  # visits that no server took in time
    people_ended: dict[int, PeopleEnd] = field(default_factory=dict)  # by the process's number

    def note(self, line: list[Any]) -> None:
        """Takes one line of a client process: [what, visit, time, …]."""
        what, visit_id, at, *rest = line
        if what == "open":
            self.visits[visit_id] = Visit(visit_id, rest[0], rest[1], rest[2], at)
            return
        visit = self.visits[visit_id]
        if what == "ack":
            visit.acks.setdefault(rest[0], Ack(rest[0], rest[1], rest[2], at))
            visit.turns += rest[0].startswith(f"item_{visit_id}_")
        elif what == "refused":
            self.refused += 1
        else:
            visit.note(what, at, *rest)

    def resolve(self) -> None:
        """Gives the visits of killed and stopped client processes their end. Once, after the last line was noted."""
        for visit in self.visits.values():
            end = self.people_ended.get(visit.people)
            if visit.socket_ended is None and end is not None:
                visit.how = end.how
                if end.how == "killed":  # the system closes its sockets somewhere in between
                    visit.leaving, visit.left = end.at, max(end.at, end.gone)
                else:
                    visit.left = visit.sent

    def outages(self) -> list[tuple[float, float]]:
        """When the database did not answer."""
        kinds = ("database_restarted", "database_frozen")
        return sorted((fault.begin, fault.end) for fault in self.faults if fault.kind in kinds)

    def life_of(self, visit: Visit) -> Life | None:
        """The server process that a visit was served by: the last of its port that was ready when it began."""
        lives = [life for life in self.lives if life.port == visit.port and life.ready is not None]
        starts = [life.started for life in lives]
        index = bisect.bisect_right(starts, visit.created or visit.opened) - 1
        return lives[index] if index >= 0 else None
