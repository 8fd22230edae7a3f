"""One run of a scenario, with a strike or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch
from uuid import UUID

import trio
from lastcall.listener import Listener

from tests.support.fake_rows import SessionRecord

from ..simulation.clients import Crowd, Visit
from ..simulation.network import ServerEnd, Wire
from ..simulation.plan import Fault
from ..simulation.run import SETTLE_SECONDS, Conduct
from ..simulation.watch import Watch
from ..simulation.world import Server, World
from .oracle import Judge
from .scenarios import SUBJECT, Scenario
from .strike import Counted, Kind, Strike, StruckLink

SERVED_SECONDS = 5.0  # within which the subject is served, or never
LOOK_SECONDS = 0.05


class Ending(Conduct):
    """A scenario in a world.

    scopes: of the subject's open connections. left: when the task of each was over. cancelled: when each of its visits
    was. broke_down: when the bug struck. remembered: how often each session's memory was applied.
    """

    def __init__(self, scenario: Scenario, strike: Strike | None) -> None:
        super().__init__(scenario.plan)
        self.scenario = scenario
        self.steps = Counted(self, strike)
        self.scopes: dict[Wire, trio.CancelScope] = {}
        self.left: dict[Wire, float] = {}
        self.cancelled: dict[str, float] = {}
        self.broke_down: float | None = None
        self.struck: Kind | None = None
        self.remembered: Counter[UUID] = Counter()
        self._calls = 0
        self._server: Server | None = None

    async def run(self, world: World) -> None:
        self.world, self.watch = world, Watch(world)
        self.crowd = Crowd(world, self.watch)
        trio.lowlevel.add_instrument(self.steps)
        with self._connections_in_scopes():
            async with trio.open_nursery() as nursery:
                for host in self._plan.hosts:
                    self._launch(host)
                for person in self._plan.people:
                    nursery.start_soon(self.crowd.live, person)
                for fault in self._plan.faults:
                    nursery.start_soon(self._fault, fault)
            await self._rest()
        if self.steps.error is not None:
            raise self.steps.error
        Judge(self).run()

    async def _rest(self) -> None:
        """As in the simulation, but a strike may still end a server that was told to, and start another one."""
        for server in self._alive():
            server.set_trouble(None)
        for _ in range(2):
            if not self._alive():
                await self._start(self._plan.hosts[0])
            with trio.move_on_after(SETTLE_SECONDS):
                while not self._quiet():  # noqa: ASYNC110 - tables announce nothing
                    await trio.sleep(LOOK_SECONDS)
            while self._alive():
                await self._end_servers(self._alive())
            if self._quiet():
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
        link.ending = self
        return server

    @contextmanager
    def _connections_in_scopes(self) -> Iterator[None]:
        """Each connection's task inside a scope of its own: cancelled from outside, it sees what it sees when its
        nursery is."""
        serve = Listener._serve

        async def serve_in_scope(listener: Listener, transport: ServerEnd) -> None:
            wire = transport._wire
            if wire not in [visit.wire for visit in self.visits()]:
                await serve(listener, transport)  # type: ignore[arg-type]
                return
            self.steps.root(trio.lowlevel.current_task())
            with trio.CancelScope() as self.scopes[wire]:
                await serve(listener, transport)  # type: ignore[arg-type]
            del self.scopes[wire]
            self.left[wire] = trio.current_time()

        with patch.object(Listener, "_serve", serve_in_scope):
            yield

    # --- the subject

    def visits(self) -> list[Visit]:
        return [visit for visit in self.crowd.visits if visit.user == SUBJECT]

    def rows(self) -> list[SessionRecord]:
        return [row for row in self.world.database.sessions.values() if row.user_id == SUBJECT]

    @property
    def server(self) -> Server | None:
        """The one that serves the subject, or did."""
        if self._server is None:
            self._server = next((visit.server for visit in self.visits()), None)
        return self._server

    def counts(self) -> bool:
        """Whether the steps are now those that the scenario is about."""
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
                return bool(self.watch.declared)
            case "awake":
                return bool(server.freezes) and not server.frozen

    # --- what befalls it

    async def _fault(self, fault: Fault) -> None:
        with trio.move_on_after(SERVED_SECONDS):
            while not any(visit.session_id for visit in self.visits()):  # noqa: ASYNC110 - clients announce nothing
                await trio.sleep(LOOK_SECONDS)
        visit, server = next(iter(self.visits()), None), self.server
        if visit is None or server is None or visit.session_id is None:
            return
        await trio.sleep(fault.at)
        if fault.kind == "by_hand":
            self._close_by_hand(visit)
        elif fault.kind == "declared_dead":
            self._declare_dead(server)
        elif server.over_at is None:
            await self._break(server, fault)

    def break_down(self, session_id: UUID) -> None:
        """An item is about to be stored: the scenario's bug, if it has one here."""
        if self.scenario.bug and session_id in [row.session_id for row in self.rows()]:
            self._calls += 1
            if self._calls == self.scenario.bug:
                self.broke_down = trio.current_time()
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
                    self._close_row(row)
            case "error-before" | "error-after":
                assert isinstance(server.link, StruckLink)
                server.link.doomed, server.link.after = task, kind == "error-after"

    def _cancel(self) -> None:
        for visit in self.visits():
            scope = self.scopes.get(visit.wire) if visit.wire is not None else None
            if scope is not None:
                self.cancelled[visit.name] = trio.current_time()
                scope.cancel()

    def _close_row(self, row: SessionRecord) -> None:
        if row.is_active:
            self.watch.by_hand[row.session_id] = trio.current_time()
            self.world.database.close_by_hand(row.session_id)
            self.watch.stored(None, "by_hand")
