"""Checks every session at rest: its row says truly why and when it ended, and the right server closed it in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lastcall.sessions.instance import RECONNECT_SECONDS
from lastcall.transport.stream import LINGER_SECONDS

from tests.support.fake_rows import SessionRecord

from ...promises import Promise
from ..server import Server
from ..visits import Visit
from ..world import SETTINGS, World
from .causes import INFINITE, LATENCY_SECONDS, ROUNDING_SECONDS, SEEN_AT_ONCE, Causes
from .findings import overlap
from .liveness import looked_dead
from .step_checks import GHOST_SECONDS, StepChecks

OWN_ROW_SECONDS = 0.3  # from an end to its row, by a server that has its database
DEAD_SAME_HOST_SECONDS = 1.0  # from a crash to the row, by a server on the same host
DEAD_OTHER_HOST_SECONDS = SETTINGS.gone_seconds + 1.0
OVERLAP_SECONDS = 0.5  # two causes so close together overlap
LEFT_SECONDS = 1.5  # with a working database for so long before its end, a server leaves no row open
RETRY_SECONDS = 1.0  # after trouble, a server's writer may wait before its next attempt


class SessionChecks:
    """One check of all sessions of a world."""

    def __init__(self, world: World, checks: StepChecks, visits: list[Visit]) -> None:
        self._world = world
        self._checks = checks
        self._visits = visits
        self._owners = {record.instance.instance_id: server for server in world.servers for record in server.link.own()}

    def run(self) -> None:
        by_session = {visit.session_id: visit for visit in self._visits if visit.session_id is not None}
        for key, row in self._world.database.sessions.items():
            self._checks.check_end_unchanged(row)
            assert row.instance_id is not None
            visit = by_session.get(key) or self._visit_of(row)
            self._session(row, visit, self._owners[row.instance_id])

    def _visit_of(self, row: SessionRecord) -> Visit | None:
        """The visit of a session whose client was never told of it."""
        for visit in reversed(self._visits):
            if visit.user == row.user_id and visit.session_id is None and visit.opened_at <= row.session_start:
                return visit
        return None

    def _session(self, row: SessionRecord, visit: Visit | None, owner: Server) -> None:
        self._world.count("reason", row.end_reason or "active")
        causes = Causes(self._checks, owner, row, visit)
        self._count_overlaps(causes)
        if row.is_active or row.session_end is None or row.ended_at is None:
            self._checks.broken(Promise.NO_ORPHAN, f"{row.session_id} of {owner.name} is active after all has ended")
            return
        self._check_reason(row, causes, owner)
        self._check_promptness(row, causes, owner)
        self._check_left_open(row, owner)
        self._check_sweep(row, owner)
        if visit is not None:
            self._check_socket(row, visit, owner)

    def _count_overlaps(self, causes: Causes) -> None:
        seen: Counter[str] = Counter()
        for number, first in enumerate(causes.found):
            for second in causes.found[number + 1 :]:
                if second.at - first.at <= OVERLAP_SECONDS and first.kind != second.kind:
                    seen["+".join(sorted((first.kind, second.kind)))] = 1
        for name in seen:
            self._world.count("overlap", name)

    # --- why and when it ended

    def _check_reason(self, row: SessionRecord, causes: Causes, owner: Server) -> None:
        """The row's reason and end fit something that happened, and nothing that ended it earlier."""
        assert row.session_end is not None
        if not self._fits(row, row.session_end, causes):
            told = [(cause.kind, round(cause.low, 3), round(cause.high, 3)) for cause in causes.found]
            self._checks.broken(
                Promise.ONE_END,
                f"{row.session_id} of {owner.name} says {row.end_reason} at {row.session_end:.3f};"
                f" what happened: {told}",
            )
        if not self._may_be_late(row, row.session_end, causes):
            self._check_not_late(row, row.session_end, causes, owner)

    @staticmethod
    def _fits(row: SessionRecord, end: float, causes: Causes) -> bool:
        start = row.session_start
        return any(
            max(cause.low, start) - ROUNDING_SECONDS <= end <= max(cause.high, start) + ROUNDING_SECONDS
            for cause in causes.found
            if row.end_reason in cause.reasons
        )

    @staticmethod
    def _may_be_late(row: SessionRecord, end: float, causes: Causes) -> bool:
        if row.end_reason in ("owner_died", "server_error") and causes.troubled(row.session_start, row.ended_at or end):
            return True  # its owner's own report came too late, or it was never served
        return row.end_reason == "by_hand"  # dated by the person who closed it, perhaps long after a crash

    def _check_not_late(self, row: SessionRecord, end: float, causes: Causes, owner: Server) -> None:
        late = [cause for cause in causes.found if end > max(cause.until, row.session_start) + ROUNDING_SECONDS]
        if row.end_reason == "owner_died" and owner.over_at is not None:
            # If its owner died before its own report was committed, only the last sign of life is known.
            late = [cause for cause in late if cause.until + LATENCY_SECONDS < owner.over_at]
        if late:
            first = min(late, key=lambda cause: cause.until)
            self._checks.broken(
                Promise.ONE_END,
                f"{row.session_id} of {owner.name} ended at {end:.3f} ({row.end_reason}), though {first.kind} at"
                f" {first.at:.3f} ended it by {first.until:.3f}",
            )

    # --- how soon its row was closed, and by which server

    def _check_promptness(self, row: SessionRecord, causes: Causes, owner: Server) -> None:
        """The row was closed soon after the session's end, by the first server that could."""
        assert row.ended_at is not None
        due = min((cause.until for cause in causes.found), default=INFINITE)
        limit = _soonest(self._sound(owner), due, OWN_ROW_SECONDS)
        if owner.over_at is not None:
            due = max(owner.over_at, row.session_start)
            for other in self._world.servers:
                if other is not owner:
                    near = other.host == owner.host
                    spans = self._sound(other) if near else self._watching(other)
                    seconds = DEAD_SAME_HOST_SECONDS if near else DEAD_OTHER_HOST_SECONDS
                    limit = min(limit, _soonest(spans, due, seconds))
        if row.ended_at > limit + ROUNDING_SECONDS:
            self._checks.broken(
                Promise.NO_ORPHAN,
                f"{row.session_id} of {owner.name} was over at {due:.3f}, its row ({row.end_reason}) closed at"
                f" {row.ended_at:.3f}, later than {limit:.3f}",
            )

    def _sound(self, server: Server) -> Iterator[tuple[float, float]]:
        """The spans in which a server ran and had its database."""
        if server.ready_at is None:
            return
        start = server.ready_at
        own = [record.instance.instance_id for record in server.link.own()]
        # Declared dead, it registers anew, and has to become steady again.
        gaps = [[at, at] for key, at in self._checks.declared.items() if key in own]
        for begin, end in sorted(server.trouble + gaps):
            yield start, begin
            start = max(start, end + RETRY_SECONDS)
        yield start, server.signalled_at or (server.over_at if server.over_at is not None else INFINITE)

    def _watching(self, server: Server) -> Iterator[tuple[float, float]]:
        """The sound spans in which no look at the others failed: after one, their silence is counted anew."""
        for start, end in self._sound(server):
            for at in server.blind_at:
                if start < at < end:
                    yield start, at
                    start = at
            yield start, end

    def _check_left_open(self, row: SessionRecord, owner: Server) -> None:
        """A server that exited by itself left no row to others."""
        assert row.ended_at is not None
        if owner.how != "exited" or owner.over_at is None or row.ended_at <= owner.over_at:
            return
        excused = owner.cut_until > owner.over_at - LEFT_SECONDS or overlap(
            owner.trouble, owner.over_at - LATENCY_SECONDS, owner.over_at
        )
        if not excused:
            self._checks.broken(Promise.NO_ORPHAN, f"{owner.name} exited by itself and left {row.session_id} active")

    def _check_sweep(self, row: SessionRecord, owner: Server) -> None:
        if row.end_reason != "owner_died" or row.instance_id in self._checks.declared:
            return
        assert row.ended_at is not None
        dead = owner.over_at is not None and owner.over_at <= row.ended_at
        if not (dead or looked_dead(owner, row.ended_at, self._world, self._checks)):
            self._checks.broken(Promise.NONE_SWEPT, f"{row.session_id} of {owner.name}, which was alive and healthy")

    # --- its socket

    def _check_socket(self, row: SessionRecord, visit: Visit, owner: Server) -> None:
        """A socket does not outlive a row that somebody else closed."""
        assert row.ended_at is not None
        assert visit.wire is not None
        owners = {record.instance.instance_id for record in owner.link.own()}
        if row.closed_by in owners and row.end_reason != "shutdown":
            return
        seconds = GHOST_SECONDS
        if visit.wire.full_at is not None or any(what in ("vanish", "slow") for _, what in visit.causes):
            seconds += owner.settings.close_seconds + owner.settings.send_seconds + LINGER_SECONDS
        limit = socket_until(owner, row.ended_at, seconds)
        # A client that ended it by itself is served no longer.
        ended = min([visit.ended_at, *(at for at, what in visit.causes if what in SEEN_AT_ONCE)])
        if ended > limit:
            self._checks.broken(
                Promise.NO_GHOST, f"{visit.name} was served until {ended:.3f}, row closed {row.ended_at:.3f}"
            )


def _soonest(sound: Iterator[tuple[float, float]], due: float, seconds: float) -> float:
    """The first moment by which a server has had so many seconds of health since it was due."""
    return min((max(start, due) + seconds for start, end in sound if end - max(start, due) >= seconds),
               default=INFINITE)  # fmt: skip


def socket_until(owner: Server, closed_at: float, seconds: float) -> float:
    """The latest end of a socket that may live so many seconds longer than its row. Trouble in between starts them
    again."""
    limit = closed_at + seconds
    for begin, end in owner.trouble:
        if begin <= limit + LATENCY_SECONDS and end >= closed_at:
            limit = max(limit, end + seconds + RECONNECT_SECONDS)
    return limit
