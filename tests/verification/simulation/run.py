"""One seed: plans a world, lets it run, brings it to rest and checks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio
from lastcall.store.records import EndReason

from .checker import Checker
from .clients import Crowd, Visit
from .clock import Stuck, until
from .database import Trouble
from .plan import CLIENT_CAUSES, Fault, Plan, plan_of
from .timed_faults import (
    UNSEEN_SECONDS,
    WRITES,
    arrival_at_a_shutdown,
    comeback,
    crash_unseen,
    one_among_others,
    one_that_remembers,
    somebody_writes,
    standstill,
)
from .watch import Watch
from .world import CLAIM_MARGIN_SECONDS, SETTINGS, Server, World, simulate

SETTLE_SECONDS = 90.0  # virtual: for what the faults left behind; a dead server's claim on memory takes 17 s to run out
LOOK_SECONDS = 0.25
# One that is frozen so long is overtaken: its claim has run out, and somebody else has looked for work.
CLAIM_SECONDS = SETTINGS.memory_seconds + CLAIM_MARGIN_SECONDS + SETTINGS.memory_sweep_seconds + 0.5
READY_SECONDS = 5.0
SHARED_TROUBLES: dict[str, Callable[[float], Trouble]] = {
    "outage": lambda _: Trouble("refused"),
    "stall": lambda lasts: Trouble("slow", seconds=lasts, share=1.0),
}


@dataclass(slots=True)
class Outcome:
    """What came of a seed. counts: what occurred how often, by kind and name. trace: rendered only where asked for."""

    seed: int
    sessions: int = 0
    visits: int = 0
    acknowledged: int = 0
    virtual_seconds: float = 0.0
    broken: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    digest: str = ""
    trace: list[str] = field(default_factory=list)


def run_seed(seed: int, *, trace: bool = False) -> Outcome:
    """Runs one seed from its plan to its verdict. trace: with the trace and its digest."""
    conduct = Conduct(plan_of(seed))
    outcome = Outcome(seed)
    try:
        world = simulate(seed, conduct.run)
    except (Exception, SystemExit, BaseExceptionGroup) as error:  # noqa: BLE001 - what got out of a server is a finding
        promise = "I7 unbounded" if isinstance(error, Stuck) else "I8 contained"
        outcome.broken[promise] += 1
        outcome.examples.append(f"{promise}: {error!r}")
        world = conduct.world
    findings = conduct.watch.findings
    outcome.sessions = len(world.database.sessions)
    outcome.visits = len(conduct.crowd.visits)
    outcome.acknowledged = sum(len(visit.acks) for visit in conduct.crowd.visits)
    outcome.virtual_seconds = conduct.took
    outcome.broken += findings.broken
    outcome.examples += findings.examples
    outcome.counts = world.counts
    if trace:
        outcome.digest, outcome.trace = world.trace.digest(), world.trace.render()
    return outcome


class Conduct:
    """Carries out a plan in a world."""

    world: World
    watch: Watch
    crowd: Crowd
    took = 0.0

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def run(self, world: World) -> None:
        self.world, self.watch = world, Watch(world)
        self.crowd = Crowd(world, self.watch)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for host in self._plan.hosts:
                self._launch(host)
            for person in self._plan.people:
                nursery.start_soon(self.crowd.live, person)
            for fault in self._plan.faults:
                nursery.start_soon(self._fault, fault)
        await self._rest()
        self.took = trio.current_time() - began
        Checker(world, self.watch, self.crowd.visits).run()

    async def _rest(self) -> None:
        """Mends what is broken, waits until nothing is open, and ends all servers."""
        for server in self._alive():
            server.thaw()
            server.set_trouble(None)
        for settles in (self._plan.settles, True):
            if not self._alive():
                await self._start(self._plan.hosts[0])
            if settles:
                await self._settle()
            for server in self._alive():
                server.terminate()
            for server in self.world.servers:
                await server.over.wait()
            if self._quiet():
                return

    def _quiet(self) -> bool:
        rows = self.world.database.sessions.values()
        return not any(row.is_active or row.memory_status == "pending" for row in rows)

    async def _settle(self) -> None:
        """Returns when nothing is open. With sound servers for so long, nothing may be; or when the last has left."""
        await until(lambda: self._quiet() or not self._alive(), SETTLE_SECONDS, LOOK_SECONDS)
        if not self._alive():
            return
        for key, row in self.world.database.sessions.items():
            if row.is_active:
                self.watch.broken("I1 orphan", f"{key} is active after {SETTLE_SECONDS:g} s of rest")
            elif row.memory_status == "pending":
                self.watch.broken("I4 memory", f"{key} is not remembered after {SETTLE_SECONDS:g} s of rest")

    def _alive(self) -> list[Server]:
        return [server for server in self.world.servers if server.over_at is None]

    def _launch(self, host: str) -> Server:
        # One worker each where there are several servers: an idle one costs as much time as half a session.
        return self.world.start_server(
            host=host,
            memory_workers=1 if len(self._plan.hosts) > 1 else 2,
            session_seconds=self._plan.session_seconds,
            idle_seconds=self._plan.idle_seconds,
        )

    async def _start(self, host: str) -> Server:
        server = self._launch(host)
        with trio.move_on_after(READY_SECONDS):
            await server.ready.wait()
        return server

    # --- faults

    async def _fault(self, fault: Fault) -> None:
        await trio.sleep(fault.at)
        running = [server for server in self._alive() if server.accepting]
        if fault.kind == "duel":
            await self._duel(fault)
        elif fault.kind == "by_hand":
            visit = self._pick()
            if visit is not None:
                self.world.count("fault", "by_hand")
                self._close_by_hand(visit)
        elif running:
            self.world.count("fault", fault.kind)
            server = self.world.random.choice(running)
            if fault.kind == "arrival":
                await arrival_at_a_shutdown(server)
                await self._replace(server, fault)
            elif fault.kind in ("comeback", "unseen", "standstill"):
                await self._among_others(fault)
            else:
                await self._break(server, fault)

    async def _among_others(self, fault: Fault) -> None:
        if len([server for server in self._alive() if server.accepting]) <= 1:
            await self._start(self._plan.hosts[0])
        server = await one_among_others(self.world, self.crowd)
        if server is None:
            return
        if fault.kind == "comeback":
            await comeback(self.world, server)
        elif fault.kind == "standstill":
            await standstill(self.world, server)
        else:
            await crash_unseen(self.world, self.crowd, server)
            await self._replace(server, replace(fault, lasts=UNSEEN_SECONDS))

    async def _break(self, server: Server, fault: Fault) -> None:
        match fault.kind:
            case "crash":
                server.crash()
                await self._replace(server, fault)
            case "terminate" | "hurry":
                server.terminate()
                if fault.kind == "hurry":
                    await trio.sleep(fault.lasts)
                    server.terminate()
                await self._replace(server, fault)
            case "freeze":
                await self._freeze(server, fault)
            case "declared_dead":
                self._declare_dead(server)
            case "outage" | "stall":
                await self._trouble(self._alive(), SHARED_TROUBLES[fault.kind](fault.lasts), fault.lasts)
            case "refused" | "silent" | "errors" | "slow":
                await self._trouble(
                    [server], Trouble(fault.kind, seconds=2 * fault.lasts), fault.lasts, shuts_down=not fault.again
                )

    async def _freeze(self, server: Server, fault: Fault) -> None:
        remembers = await one_that_remembers(self.world) if fault.again else None
        frozen, lasts = (remembers, CLAIM_SECONDS) if remembers is not None else (server, fault.lasts)
        if remembers is not None:
            self.world.count("state", "was overtaken at a session's memory")
        frozen.freeze()
        await trio.sleep(lasts)
        frozen.thaw()

    async def _trouble(
        self, servers: list[Server], trouble: Trouble, seconds: float, *, shuts_down: bool = False
    ) -> None:
        if trouble.kind == "refused" or trouble.share == 1.0:
            await somebody_writes(self.world.random.choice(WRITES), servers)
        for server in servers:
            server.set_trouble(trouble)
            if shuts_down:
                server.terminate()
        await trio.sleep(seconds / 2)
        if trouble.cut and not shuts_down:
            self._close_unheard(servers)
        await trio.sleep(seconds / 2)
        for server in servers:
            server.set_trouble(None)

    def _close_unheard(self, servers: list[Server]) -> None:
        """Closes a row by hand while its server cannot hear of it; its client stays, as long as anybody does."""
        served = [visit for visit in self._served() if visit.server in servers]
        if served:
            self.world.count("state", "closed by hand without a guard")
            visit = self.world.random.choice(served)
            visit.end_now("stay")
            self._close_by_hand(visit)

    async def _replace(self, server: Server, fault: Fault) -> None:
        """Starts another one in its place, after a while: the process manager's work."""
        await server.over.wait()
        if fault.again:
            await trio.sleep(fault.lasts)
            self._launch(server.host)

    def _pick(self) -> Visit | None:
        served = self._served()
        return self.world.random.choice(served) if served else None

    def _served(self) -> list[Visit]:
        return [visit for visit in self.crowd.visits if visit.served and visit.server.over_at is None]

    def _close_by_hand(self, visit: Visit) -> None:
        assert visit.session_id is not None
        row = self.world.database.sessions[visit.session_id]
        if row.is_active:
            self.watch.by_hand[visit.session_id] = trio.current_time()
            self.world.trace.add("somebody", "closes by hand", visit.session_id)
            self.world.database.close_by_hand(visit.session_id)
            self.watch.stored(None, "by_hand")

    def _declare_dead(self, server: Server) -> None:
        """What another server does to one that it takes for dead, in one statement."""
        now, database = trio.current_time(), self.world.database
        self.world.trace.add("somebody", "declares dead", server.name)
        for record in server.link.own():
            key = record.instance.instance_id
            if record.gone:
                continue
            self.watch.declared[key] = record.reaped_at = now
            for row in database.sessions.values():
                if row.is_active and row.instance_id == key:
                    database._close(row, record.heartbeat_at, EndReason.OWNER_DIED, None, None)
        self.watch.stored(None, "declared_dead")

    async def _duel(self, fault: Fault) -> None:
        """Two endings of one session, at once or nearly so."""
        visit = self._pick()
        if visit is None:
            return
        self.world.count("fault", "duel")
        self._end(visit, fault.pair[0])
        if fault.gap:
            await trio.sleep(fault.gap)
        self._end(visit, fault.pair[1])
        if not any(server.accepting for server in self._alive()):
            await visit.server.over.wait()
            self._launch(visit.server.host)

    def _end(self, visit: Visit, how: str) -> None:
        if how in CLIENT_CAUSES:
            visit.end_now(how)
        elif how == "by_hand":
            self._close_by_hand(visit)
        elif how == "signal":
            visit.server.terminate()
        elif how == "crash":
            visit.server.crash()
        else:
            self._declare_dead(visit.server)
