"""Runs a scenario, with a strike or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch
from uuid import UUID

import trio
from lastcall.listener import Listener

from tests.support.fake_rows import SessionRecord

from ..simulation.fakes.clock import until
from ..simulation.fakes.network import ServerEnd, Wire
from ..simulation.plan import Fault
from ..simulation.run import SETTLE_SECONDS, Run
from ..simulation.server import Server
from ..simulation.visits import Visit
from ..simulation.world import World
from .oracle import check_struck_world
from .scenarios import SUBJECT, Scenario
from .strike import Kind, StepCounter, Strike, StruckLink

SERVED_SECONDS = 5.0  # within which the subject is served, or never
LOOK_SECONDS = 0.05
REST_ROUNDS = 2


class ScenarioRun(Run):
    """A scenario in a world.

    scopes: of the subject's open connections. left: when the task of each ended.
    cancelled: when each of its visits was cancelled. bug_at: when the scenario's bug struck.
    finalized: how often each session's memory was applied.
    """

    def __init__(self, scenario: Scenario, strike: Strike | None) -> None:
        super().__init__(scenario.plan)
        self.scenario = scenario
        self.steps = StepCounter(self, strike)
        self.scopes: dict[Wire, trio.CancelScope] = {}
        self.left: dict[Wire, float] = {}
        self.cancelled: dict[str, float] = {}
        self.bug_at: float | None = None
        self.struck: Kind | None = None
        self.finalized: Counter[UUID] = Counter()
        self._appends = 0
        self._server: Server | None = None

    async def run(self, world: World) -> None:
        self._enter(world)
        trio.lowlevel.add_instrument(self.steps)
        with self._connections_in_scopes():
            await self._carry_out()
            await self._come_to_rest()
        if self.steps.error is not None:
            raise self.steps.error
        check_struck_world(self)

    async def _come_to_rest(self) -> None:
        """As in the simulation, but a strike may still end a server, and start another one, meanwhile."""
        for server in self.world.alive:
            server.set_trouble(None)
        for _ in range(REST_ROUNDS):
            await self._ensure_server()
            await until(self._at_rest, SETTLE_SECONDS, LOOK_SECONDS)
            while self.world.alive:
                await self._end_servers(self.world.alive)
            if self._at_rest():
                return

    async def _end_servers(self, servers: list[Server]) -> None:
        for server in servers:
            if server.signalled_at is None:
                server.terminate()
        for server in servers:
            await server.over.wait()

    def _launch(self, host: str) -> Server:
        server = self.world.start_server(host=host, memory_workers=1, **self.scenario.settings)
        server.link = link = StruckLink(self.world.database, server, self.world.random)
        link.run = self
        return server

    @contextmanager
    def _connections_in_scopes(self) -> Iterator[None]:
        """Runs each connection's task inside a scope: cancelled from outside, it sees what it sees when its nursery
        is."""
        serve = Listener._serve

        async def serve_in_scope(listener: Listener, transport: ServerEnd) -> None:
            wire = transport._wire
            if wire not in [visit.wire for visit in self.visits()]:
                await serve(listener, transport)
                return
            self.steps.root(trio.lowlevel.current_task())
            with trio.CancelScope() as self.scopes[wire]:
                await serve(listener, transport)
            del self.scopes[wire]
            self.left[wire] = trio.current_time()

        with patch.object(Listener, "_serve", serve_in_scope):
            yield

    # --- the subject

    def visits(self) -> list[Visit]:
        return [visit for visit in self.clients.visits if visit.user == SUBJECT]

    def rows(self) -> list[SessionRecord]:
        return [row for row in self.world.database.sessions.values() if row.user_id == SUBJECT]

    @property
    def server(self) -> Server | None:
        """The server that serves the subject, or did."""
        if self._server is None:
            self._server = next((visit.server for visit in self.visits()), None)
        return self._server

    def counts(self) -> bool:
        """Whether the steps that the scenario is about have begun."""
        server = self.server
        assert server is not None
        match self.scenario.steps:
            case "connection":
                return True
            case "shutdown":
                return server.signalled_at is not None
            case "memory":
                return any(not row.is_active for row in self.rows())
            case "anew":
                return bool(self.checks.declared)
            case "awake":
                return bool(server.freezes) and not server.frozen

    # --- faults and strikes

    async def _inject(self, fault: Fault) -> None:
        """Waits until the subject is served, so that the fault is its own."""
        await until(lambda: any(visit.session_id for visit in self.visits()), SERVED_SECONDS, LOOK_SECONDS)
        visit, server = next(iter(self.visits()), None), self.server
        if visit is None or server is None or visit.session_id is None:
            return
        await trio.sleep(fault.at)
        if fault.kind == "by_hand":
            self.faults.close_by_hand(visit.session_id)
        elif fault.kind == "declared_dead":
            self.faults.declare_dead(server)
        elif server.over_at is None:
            await self.faults.break_server(server, fault)

    def maybe_fail(self, session_id: UUID) -> None:
        """Raises the scenario's bug, if it has one, where an item is about to be stored."""
        if self.scenario.bug and session_id in [row.session_id for row in self.rows()]:
            self._appends += 1
            if self._appends == self.scenario.bug:
                self.bug_at = trio.current_time()
                raise RuntimeError("a bug")

    def strike(self, kind: Kind, task: trio.lowlevel.Task) -> None:
        server = self.server
        assert server is not None
        self.struck = kind
        self.world.trace.add("STRIKE", kind, f"before a step of {task.name}")
        match kind:
            case "cancel":
                self._cancel()
            case "crash":
                server.crash()
                self._launch(server.host)
            case "signal":
                first = server.signalled_at is None
                server.terminate()
                if first:
                    self._launch(server.host)
            case "by-hand":
                for row in self.rows():
                    self.faults.close_by_hand(row.session_id)
            case "error-before" | "error-after":
                assert isinstance(server.link, StruckLink)
                server.link.failing_task, server.link.after = task, kind == "error-after"

    def _cancel(self) -> None:
        for visit in self.visits():
            scope = self.scopes.get(visit.wire) if visit.wire is not None else None
            if scope is not None:
                self.cancelled[visit.name] = trio.current_time()
                scope.cancel()
