"""The plan's faults: what is done to servers, to their links and to rows while clients talk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import trio
from lastcall.store.records import EndReason

from .clients import Clients
from .fakes.link import Trouble
from .oracle.step_checks import StepChecks
from .plan import CLIENT_CAUSES, Fault
from .server import Server
from .timed_faults import (
    UNSEEN_SECONDS,
    WRITES,
    arrive_at_shutdown,
    come_back_while_reaped,
    crash_after_reapers_failed,
    server_among_others,
    server_finalizing,
    stand_still_together,
    wait_for_write,
)
from .visits import Visit
from .world import CLAIM_SECONDS as WORLD_CLAIM_SECONDS
from .world import SETTINGS, World

# A server that is frozen for so long is overtaken: its claim has expired, and another one has looked for work.
CLAIM_SECONDS = SETTINGS.memory_seconds + WORLD_CLAIM_SECONDS + SETTINGS.memory_sweep_seconds + 0.5
SHARED_TROUBLES: dict[str, Callable[[float], Trouble]] = {
    "outage": lambda _: Trouble("refused"),
    "stall": lambda lasts: Trouble("slow", seconds=lasts, share=1.0),
}


class Faults:
    """Injects the faults of a plan. launch: starts a server on a host. host: of a server that a fault needs besides."""

    def __init__(
        self, world: World, checks: StepChecks, clients: Clients, launch: Callable[[str], Server], host: str
    ) -> None:
        self._world = world
        self._checks = checks
        self._clients = clients
        self._launch = launch
        self._host = host

    async def inject(self, fault: Fault) -> None:
        await trio.sleep(fault.at)
        accepting = self._accepting()
        if fault.kind == "duel":
            await self._duel(fault)
        elif fault.kind == "by_hand":
            visit = self._pick()
            if visit is not None:
                self._world.count("fault", "by_hand")
                self._close_row_of(visit)
        elif accepting:
            self._world.count("fault", fault.kind)
            server = self._world.random.choice(accepting)
            if fault.kind == "arrival":
                await arrive_at_shutdown(server)
                await self._replace(server, fault)
            elif fault.kind in ("comeback", "unseen", "standstill"):
                await self._among_others(fault)
            else:
                await self.break_server(server, fault)

    def _accepting(self) -> list[Server]:
        return [server for server in self._world.alive if server.accepting]

    async def _among_others(self, fault: Fault) -> None:
        """A fault of one server that takes another one to see it."""
        if len(self._accepting()) <= 1:
            await self._launch(self._host).until_ready()
        server = await server_among_others(self._world, self._clients)
        if server is None:
            return
        if fault.kind == "comeback":
            await come_back_while_reaped(self._world, server)
        elif fault.kind == "standstill":
            await stand_still_together(self._world, server)
        else:
            await crash_after_reapers_failed(self._world, self._clients, server)
            await self._replace(server, replace(fault, lasts=UNSEEN_SECONDS))

    async def break_server(self, server: Server, fault: Fault) -> None:
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
                self.declare_dead(server)
            case "outage" | "stall":
                await self._trouble(self._world.alive, SHARED_TROUBLES[fault.kind](fault.lasts), fault.lasts)
            case "refused" | "silent" | "errors" | "slow":
                await self._trouble(
                    [server], Trouble(fault.kind, seconds=2 * fault.lasts), fault.lasts, shuts_down=not fault.again
                )

    async def _freeze(self, server: Server, fault: Fault) -> None:
        finalizing = await server_finalizing(self._world) if fault.again else None
        frozen, lasts = (finalizing, CLAIM_SECONDS) if finalizing is not None else (server, fault.lasts)
        if finalizing is not None:
            self._world.count("state", "was overtaken at a session's memory")
        frozen.freeze()
        await trio.sleep(lasts)
        frozen.thaw()

    async def _trouble(
        self, servers: list[Server], trouble: Trouble, seconds: float, *, shuts_down: bool = False
    ) -> None:
        if trouble.kind == "refused" or trouble.share == 1.0:
            await wait_for_write(self._world.random.choice(WRITES), servers)
        for server in servers:
            server.set_trouble(trouble)
            if shuts_down:
                server.terminate()
        await trio.sleep(seconds / 2)
        if trouble.cut and not shuts_down:
            self._close_unnoticed(servers)
        await trio.sleep(seconds / 2)
        for server in servers:
            server.set_trouble(None)

    def _close_unnoticed(self, servers: list[Server]) -> None:
        """Closes a row by hand while its server cannot be notified; its client stays as long as it can."""
        served = [visit for visit in self._served() if visit.server in servers]
        if served:
            self._world.count("state", "closed by hand without a lease connection")
            visit = self._world.random.choice(served)
            visit.end_now("stay")
            self._close_row_of(visit)

    async def _replace(self, server: Server, fault: Fault) -> None:
        """Starts another server in its place after a while, as a process manager does."""
        await server.over.wait()
        if fault.again:
            await trio.sleep(fault.lasts)
            self._launch(server.host)

    def _pick(self) -> Visit | None:
        served = self._served()
        return self._world.random.choice(served) if served else None

    def _served(self) -> list[Visit]:
        return [visit for visit in self._clients.visits if visit.served and visit.server.over_at is None]

    # --- rows

    def close_by_hand(self, session_id: UUID) -> None:
        """A person closes a session's row."""
        if self._world.database.sessions[session_id].is_active:
            self._checks.by_hand[session_id] = trio.current_time()
            self._world.trace.add("person", "closes by hand", session_id)
            self._world.database.close_by_hand(session_id)
            self._checks.stored(None, "by_hand")

    def _close_row_of(self, visit: Visit) -> None:
        assert visit.session_id is not None
        self.close_by_hand(visit.session_id)

    def declare_dead(self, server: Server) -> None:
        """Closes a server's rows as another server does that takes it for dead, in one statement."""
        now, database = trio.current_time(), self._world.database
        self._world.trace.add("other", "declares dead", server.name)
        for record in server.link.own():
            key = record.instance.instance_id
            if record.gone:
                continue
            self._checks.declared[key] = record.reaped_at = now
            for row in database.sessions.values():
                if row.is_active and row.instance_id == key:
                    database._close(row, record.heartbeat_at, EndReason.OWNER_DIED, None, None)
        self._checks.stored(None, "declared_dead")

    # --- two endings of one session

    async def _duel(self, fault: Fault) -> None:
        """Ends one session in two ways, at the same moment or nearly so."""
        visit = self._pick()
        if visit is None:
            return
        self._world.count("fault", "duel")
        self._end(visit, fault.pair[0])
        if fault.gap:
            await trio.sleep(fault.gap)
        self._end(visit, fault.pair[1])
        if not self._accepting():
            await visit.server.over.wait()
            self._launch(visit.server.host)

    def _end(self, visit: Visit, how: str) -> None:
        if how in CLIENT_CAUSES:
            visit.end_now(how)
        elif how == "by_hand":
            self._close_row_of(visit)
        elif how == "signal":
            visit.server.terminate()
        elif how == "crash":
            visit.server.crash()
        else:
            self.declare_dead(visit.server)
