"""Checks every server at rest: it ended in time, stayed within its limits, and nothing in it crashed."""

from __future__ import annotations

from itertools import accumulate
from uuid import UUID

from lastcall.runtime.watchdog import FORCE_MARGIN_SECONDS
from lastcall.sessions.instance import STOP_SECONDS
from lastcall.shutdown import END_SESSIONS

from ...promises import Promise
from ..fakes.agent import DEAF_SECONDS
from ..server import Server
from ..visits import Visit
from ..world import World
from .causes import LATENCY_SECONDS, ROUNDING_SECONDS
from .findings import overlap
from .step_checks import StepChecks

CRASH_EVENTS = frozenset({"session_crashed", "connection_crashed", "socket_crashed", "response_failed"})


class ServerChecks:
    """One check of all servers of a world. tolerated: crashes in the log that a test caused on purpose."""

    def __init__(
        self, world: World, checks: StepChecks, visits: list[Visit], *, tolerated: frozenset[str] = frozenset()
    ) -> None:
        self._world = world
        self._checks = checks
        self._visits = visits
        self._crash_events = CRASH_EVENTS - tolerated

    def run(self) -> None:
        for server in self._world.servers:
            self._check_exit(server)
            self._check_sessions_at_once(server)
        self._check_log()

    def _check_exit(self, server: Server) -> None:
        self._world.count("process", server.how)
        if server.over_at is None:
            self._checks.broken(Promise.BOUNDED, f"{server.name} never ended")
            return
        if server.how == "failed" and not server.trouble:
            self._checks.broken(Promise.CONTAINED, f"{server.name} failed")
        if server.signalled_at is not None and server.how != "crashed":
            took = server.over_at - server.signalled_at
            if took > self._exit_seconds_max(server, server.signalled_at, server.over_at) + ROUNDING_SECONDS:
                self._checks.broken(Promise.BOUNDED, f"{server.name} took {took:.3f} s to shut down")

    def _exit_seconds_max(self, server: Server, signalled_at: float, over_at: float) -> float:
        drain_seconds = server.settings.drain_seconds
        excused = self._ignored_cancellation(server, signalled_at) or overlap(server.trouble, signalled_at, over_at)
        limit = drain_seconds + (FORCE_MARGIN_SECONDS if excused else LATENCY_SECONDS)
        if server.hurried_at is not None and not excused:
            hurried = server.hurried_at - signalled_at + END_SESSIONS.hurry_seconds
            commits = server.signals.last_commits_seconds
            limit = min(limit, hurried + commits + LATENCY_SECONDS)
        if overlap(server.freezes, signalled_at, over_at):
            limit += STOP_SECONDS + sum(end - start for start, end in server.freezes)
        return limit

    def _ignored_cancellation(self, server: Server, signalled_at: float) -> bool:
        """Whether an agent that ignores cancellation may have been at work when its server was told to end."""
        since = signalled_at - DEAF_SECONDS - server.settings.append_seconds
        since -= sum(end - start for start, end in server.freezes)
        return any(
            "#stubborn" in visit.marks or ("#deaf" in visit.marks and visit.said_at[-1] >= since)
            for visit in self._visits
            if visit.server is server and visit.said_at
        )

    def _check_sessions_at_once(self, server: Server) -> None:
        """It served no more sessions at once than its limit. An end counts as soon as anybody can know of it."""
        spans = []
        for visit in self._visits:
            row = self._world.database.sessions.get(visit.session_id or UUID(int=0))
            if visit.server is server and visit.created_at is not None and row is not None:
                ends = [at for at, _ in visit.causes] + [end for end in (row.session_end, server.over_at) if end]
                spans.append((visit.created_at, min(ends)))
        steps = sorted(step for start, end in spans if start < end for step in ((start, 1), (end, -1)))
        most = max(accumulate(step for _, step in steps), default=0)
        if most > server.settings.connections_max:
            self._checks.broken(Promise.BOUNDED, f"{server.name} served {most} sessions at once")

    def _check_log(self) -> None:
        for at, event, fields in self._world.logged:
            self._world.count("log", event)
            if event in self._crash_events and fields.get("crashed"):
                self._checks.broken(Promise.CONTAINED, f"the server logged {event} at {at:.3f}")
