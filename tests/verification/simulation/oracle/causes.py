"""The causes of a session's end: why, when and how soon it had to end, by the plan's faults and its client's notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lastcall.shutdown import CLOSE_ROWS, FINISH_RESPONSES

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import RETRY_SECONDS

from ..server import Server
from .findings import overlap

if TYPE_CHECKING:
    from ..visits import Visit
    from .step_checks import StepChecks

ROUNDING_SECONDS = 0.001  # virtual time is exact: an end is dated by the moment in which it is seen
LATENCY_SECONDS = 0.1  # a statement there and back, with what is queued before it
IN_FLIGHT_SECONDS = 0.01  # a statement whose process died before its answer
HEARTBEAT_SECONDS = 0.5 + LATENCY_SECONDS
INFINITE = float("inf")
SEEN_AT_ONCE = {
    "close": "client_closed",
    "fin": "client_lost",
    "reset": "client_lost",
    "garbage": "protocol_error",
    "oversize": "message_too_big",
    "flood": "flooding",
}
"""Endings by a client that the server sees the moment they happen, and the reason that it then writes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that ends a session.

    at: when it happened. reasons: what the row may then say. low, high: `session_end` lies between them if this is what
    ended the session. until: by then the session was over because of this, if not for something else before.
    """

    kind: str
    at: float
    reasons: tuple[str, ...]
    low: float
    high: float
    until: float


class Causes:
    """The causes of one session's end, earliest first, in `found`."""

    def __init__(self, checks: StepChecks, server: Server, row: SessionRecord, visit: Visit | None) -> None:
        self._checks = checks
        self._server = server
        self._row = row
        self.visit = visit
        self.found = sorted(self._all(), key=lambda cause: (cause.at, cause.kind))

    def _all(self) -> Iterator[Cause]:
        yield from self._of_client()
        yield from self._of_buffers()
        yield from self._of_time()
        yield from self._of_row()
        yield from self._of_server()
        yield from self._of_trouble()

    def seen(self, at: float) -> float:
        """When the server could see what a client did: not while it was frozen or while the session was beginning."""
        begun = self.visit.created_at if self.visit is not None else None
        if begun is None:
            begun = self._row.session_start + self._server.settings.begin_seconds
        return self._thawed(max(at, begun))

    def _thawed(self, at: float) -> float:
        for start, end in self._server.freezes:
            if start <= at <= end:
                at = end
        return at

    def _after(self, start: float, seconds: float) -> float:
        """The latest end of a timeout: one that a freeze interrupts may start again."""
        until = start + seconds
        for begin, end in self._server.freezes:
            if begin <= until and end >= start:
                until = end + seconds
        return until

    def _of_client(self) -> Iterator[Cause]:
        settings = self._server.settings
        for at, what in self.visit.causes if self.visit is not None else ():
            seen = self.seen(at)
            if what in SEEN_AT_ONCE:
                yield Cause(what, at, (SEEN_AT_ONCE[what],), at, seen, seen)
            else:
                noticed = self._after(seen, settings.ping_interval + settings.ping_timeout)
                last = self.visit.wire.delivered_at if self.visit is not None and self.visit.wire is not None else at
                talks = what == "slow" and self.visit is not None and self.visit.behaviour.busy
                if not talks:
                    yield Cause(what, at, ("client_vanished",), last, self.seen(last), noticed)

        for at in self.visit.silences if self.visit is not None else ():
            # It ended if a ping came sooner than the client expected; the socket may have waited for the row since.
            yield Cause("silence", at, ("client_vanished",), at, self.seen(at), INFINITE)

    def _of_buffers(self) -> Iterator[Cause]:
        """A client that stops reading is disconnected `send_seconds` after its buffer was full."""
        full_at = self.visit.wire.full_at if self.visit is not None and self.visit.wire is not None else None
        if full_at is not None:
            stalled = self._after(self.seen(full_at), self._server.settings.send_seconds)
            yield Cause("full", full_at, ("slow_reader",), full_at, stalled, stalled)

    def _of_time(self) -> Iterator[Cause]:
        """The limits on a session's length and on its idle time."""
        settings, started = self._server.settings, self._row.session_start
        at = started + settings.session_seconds
        over = self.seen(at)
        yield Cause("expired", at, ("expired",), at, over, over)
        if settings.idle_seconds is None:
            return
        said = [started, *(self.visit.said_at if self.visit is not None else ())]
        for before, after in pairwise([*said, INFINITE]):
            at, over = before + settings.idle_seconds, self.seen(self.seen(before) + settings.idle_seconds)
            if self.seen(after) >= at - ROUNDING_SECONDS:
                # If the next event reached a frozen server, either may have been seen first.
                yield Cause("idle", at, ("idle",), at, over, over if after > over + ROUNDING_SECONDS else INFINITE)

    def _of_row(self) -> Iterator[Cause]:
        key, instance = self._row.session_id, self._row.instance_id
        if key in self._checks.by_hand:
            at = self._checks.by_hand[key]
            yield Cause("by_hand", at, ("by_hand",), at, at, at)
        if instance in self._checks.declared:
            at = self._checks.declared[instance]
            yield Cause("declared_dead", at, ("owner_died",), at - HEARTBEAT_SECONDS, at, at)

    def _of_server(self) -> Iterator[Cause]:
        server = self._server
        if server.signalled_at is not None:
            latest = server.signalled_at + FINISH_RESPONSES.until * server.settings.drain_seconds
            if server.hurried_at is not None:
                latest = min(latest, server.hurried_at)
            high = self._bulk(max(self._thawed(latest), self._thawed(server.signalled_at)))
            yield Cause("signal", server.signalled_at, ("shutdown",), server.signalled_at, high, high)
        if server.over_at is not None:
            at = server.over_at
            kind = "crash" if server.how in ("crashed", "forced") else "exit"
            landed = at + IN_FLIGHT_SECONDS  # an item in flight may be the last evidence
            yield Cause(kind, at, ("owner_died",), at - HEARTBEAT_SECONDS, landed, landed)

    def _bulk(self, begins: float) -> float:
        """The latest time at which the bulk close reached the database: the sessions end then."""
        latest = begins + RETRY_SECONDS + LATENCY_SECONDS  # one attempt may have failed
        for begin, end in sorted(self._server.trouble):
            if begin <= latest and end >= begins:
                latest = max(latest, end + RETRY_SECONDS + LATENCY_SECONDS)
        given_up = self._thawed(begins + CLOSE_ROWS.seconds_max)  # a frozen server gives it up on waking
        return min(latest, given_up + LATENCY_SECONDS)

    def _of_trouble(self) -> Iterator[Cause]:
        """Without its database, a server fails to begin or continue sessions, and is declared dead after its lease."""
        for start, end in self._server.trouble:
            # Until its next heartbeat, a server that is back may still be declared dead, with its new sessions.
            if end + HEARTBEAT_SECONDS >= self._row.session_start and start <= (self._row.ended_at or INFINITE):
                reasons = ("server_error", "owner_died", "client_vanished")
                late = end + self._server.settings.begin_seconds
                yield Cause("trouble", start, reasons, start - HEARTBEAT_SECONDS, late, INFINITE)

    def troubled(self, start: float, end: float) -> bool:
        """Whether the server had trouble at any time from start to end."""
        return overlap(self._server.trouble, start, end)
