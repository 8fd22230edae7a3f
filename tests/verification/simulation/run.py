"""One seed: plans a world, runs it, brings it to rest and checks it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio

from ..promises import Promise
from .clients import Clients
from .fakes.clock import Stuck, until
from .faults import Faults
from .oracle.final_checks import check_at_rest
from .oracle.step_checks import StepChecks
from .plan import Fault, Plan, plan_of
from .server import Server
from .world import World, simulate

SETTLE_SECONDS = 90.0  # virtual: for what the faults left behind; a dead server's claim on memory expires after 17 s
LOOK_SECONDS = 0.25


@dataclass(slots=True)
class Outcome:
    """The result of a seed. counts: how often something happened, by kind and name. trace: only where asked for."""

    seed: int
    sessions: int = 0
    visits: int = 0
    acknowledged: int = 0
    virtual_seconds: float = 0.0
    broken: Counter[Promise] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    digest: str = ""
    trace: list[str] = field(default_factory=list)


def run_seed(seed: int, *, trace: bool = False) -> Outcome:
    """Runs one seed from its plan to its outcome. trace: with the trace and its digest."""
    run = Run(plan_of(seed))
    outcome = Outcome(seed)
    try:
        world = simulate(seed, run.run)
    except (Exception, SystemExit, BaseExceptionGroup) as error:  # noqa: BLE001 - what escapes a server is a finding
        promise, example = escaped(error)
        outcome.broken[promise] += 1
        outcome.examples.append(example)
        world = run.world
    findings = run.checks.findings
    outcome.sessions = len(world.database.sessions)
    outcome.visits = len(run.clients.visits)
    outcome.acknowledged = sum(len(visit.acks) for visit in run.clients.visits)
    outcome.virtual_seconds = run.took
    outcome.broken += findings.broken
    outcome.examples += findings.examples
    outcome.counts = world.counts
    if trace:
        outcome.digest, outcome.trace = world.trace.digest(), world.trace.render()
    return outcome


def escaped(error: BaseException) -> tuple[Promise, str]:
    """The promise that was broken by an exception that ended a world, with an example."""
    promise = Promise.BOUNDED if isinstance(error, Stuck) else Promise.CONTAINED
    return promise, f"{promise}: {error!r}"


class Run:
    """Carries out a plan in a world."""

    world: World
    checks: StepChecks
    clients: Clients
    faults: Faults
    took = 0.0

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def run(self, world: World) -> None:
        self._enter(world)
        began = trio.current_time()
        await self._carry_out()
        await self._come_to_rest()
        self.took = trio.current_time() - began
        check_at_rest(world, self.checks, self.clients.visits)

    def _enter(self, world: World) -> None:
        self.world, self.checks = world, StepChecks(world)
        self.clients = Clients(world, self.checks)
        self.faults = Faults(world, self.checks, self.clients, self._launch, self._plan.hosts[0])

    async def _carry_out(self) -> None:
        """Starts everything that is planned, and waits for its end."""
        async with trio.open_nursery() as nursery:
            if self._plan.seed % 4 == 0:
                self.world.hiding.update(self._plan.hosts)
            for host in self._plan.hosts:
                self._launch(host)
            for client in self._plan.clients:
                nursery.start_soon(self.clients.run, client)
            for fault in self._plan.faults:
                nursery.start_soon(self._inject, fault)

    async def _inject(self, fault: Fault) -> None:
        await self.faults.inject(fault)

    async def _come_to_rest(self) -> None:
        """Ends all faults, waits until nothing is open, and ends all servers."""
        for server in self.world.alive:
            server.thaw()
            server.set_trouble(None)
        for settles in (self._plan.settles, True):
            await self._ensure_server()
            if settles:
                await self._settle()
            for server in self.world.alive:
                server.terminate()
            for server in self.world.servers:
                await server.over.wait()
            if self._at_rest():
                return

    def _at_rest(self) -> bool:
        rows = self.world.database.sessions.values()
        return not any(row.is_active or row.memory_status == "pending" for row in rows)

    async def _settle(self) -> None:
        """Returns when nothing is open any more, or the last server has left. Reports what is open for too long."""
        await until(lambda: self._at_rest() or not self.world.alive, SETTLE_SECONDS, LOOK_SECONDS)
        if not self.world.alive:
            return
        for key, row in self.world.database.sessions.items():
            if row.is_active:
                self.checks.broken(Promise.NO_ORPHAN, f"{key} is active after {SETTLE_SECONDS:g} s of rest")
            elif row.memory_status == "pending":
                self.checks.broken(Promise.MEMORY_ONCE, f"{key} is not remembered after {SETTLE_SECONDS:g} s of rest")

    def _launch(self, host: str) -> Server:
        # One memory worker each where there are several servers: an idle one costs as much time as half a session.
        return self.world.start_server(
            host=host,
            memory_workers=1 if len(self._plan.hosts) > 1 else 2,
            session_seconds=self._plan.session_seconds,
            idle_seconds=self._plan.idle_seconds,
        )

    async def _ensure_server(self) -> None:
        if not self.world.alive:
            await self._launch(self._plan.hosts[0]).until_ready()
