"""The parts of a run, and each fault of the schedule as a function."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from uuid import UUID

import trio
from lastcall.store.errors import StoreError
from lastcall.store.postgres import PostgresStore

from ..starvation import TimedOut
from .ledger import ClientsEnd, Ledger
from .plan import Pace, Step
from .process_pool import ClientProcess
from .processes import START_SECONDS, Database, Server
from .records import OrphanListing, Sample

STOPPED_SECONDS = 8.0  # until a stopped client process is killed; its sessions are closed long before
CLOSE_TRIES_MAX = 20  # to close a row by hand while the database is away
BY_HAND = """UPDATE conversation_sessions SET is_active = false, session_end = now(), ended_at = now(),
    duration_seconds = extract(epoch FROM (now() - session_start)) WHERE session_id = $1 AND is_active
    RETURNING session_id"""


@dataclass(slots=True)
class ChaosRun:
    """One run's parts and what they found. regular: clients that come and go; targets: those that faults strike."""

    pace: Pace
    seed: int
    only: Sequence[str]
    clients: int
    database: Database
    store: PostgresStore
    servers: list[Server]
    logs: Path
    ledger: Ledger = field(default_factory=Ledger)
    samples: list[Sample] = field(default_factory=list)
    listings: list[OrphanListing] = field(default_factory=list)
    regular: dict[int, ClientProcess] = field(default_factory=dict)
    targets: dict[int, ClientProcess] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    stopping: bool = False
    one_at_a_time: trio.Lock = field(default_factory=trio.Lock)
    all_left: trio.Event = field(default_factory=trio.Event)
    random: Random = field(default_factory=Random)


async def start_all(run: ChaosRun, lives: trio.Nursery) -> None:
    for server in run.servers:
        await start(run, server, lives)


async def start(run: ChaosRun, server: Server, lives: trio.Nursery) -> None:
    """Starts a server and waits until it accepts connections. Tries again where it exits first, as in an outage."""
    began = time.time()
    with trio.move_on_after(START_SECONDS) as limit:
        while server.life is None or server.life.ready is None or server.life.died is not None:
            await lives.start(lambda task_status: server.live(run.ledger.lives, task_status=task_status))
    if limit.cancelled_caught:
        log = run.logs / f"server-{server.port}.log"
        raise TimedOut(f"a server did not become ready within {START_SECONDS:.0f} s; see {log} (with --keep)", began)


async def terminate(run: ChaosRun, server: Server) -> None:
    life = server.life
    assert life is not None
    if life.died is None:
        life.terminated = time.time()
    server.send(signal.SIGTERM)
    with trio.move_on_after(run.pace.drain + 10.0) as limit:
        await server.ended()
    if limit.cancelled_caught:
        server.send(signal.SIGKILL)
        await server.ended()


async def _kill(server: Server) -> None:
    assert server.life is not None
    if server.life.died is None:
        server.life.killed = time.time()
    server.send(signal.SIGKILL)
    await server.ended()


async def _freeze(server: Server, seconds: float) -> None:
    assert server.life is not None
    begin = time.time()
    server.send(signal.SIGSTOP)
    server.life.frozen.append((begin, begin + 1e9))
    try:
        await trio.sleep(seconds)
    finally:
        server.send(signal.SIGCONT)
        server.life.frozen[-1] = (begin, time.time())


async def kill_clients(run: ChaosRun, clients: ClientProcess) -> None:
    """Kills a client process. The ledger gets the moment, for all its clients."""
    end = run.ledger.clients_ended.setdefault(clients.number, ClientsEnd("killed", time.time()))
    at, gone = await clients.kill()
    if end.how == "killed":
        end.at, end.gone = at, gone


async def _server_terminated(run: ChaosRun, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await terminate(run, server)
    await start(run, server, lives)
    return str(pid)


async def _server_killed(run: ChaosRun, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await _kill(server)
    await start(run, server, lives)
    return str(pid)


async def _servers_killed(run: ChaosRun, _step: Step, lives: trio.Nursery) -> str:
    for server in run.servers:
        await _kill(server)
    await start_all(run, lives)
    return "all"


async def _server_frozen(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    await _freeze(server, step.lasts)
    return str(server.life.pid if server.life else 0)


async def _database_restarted(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str:
    await trio.to_thread.run_sync(run.database.restart)
    return "database"


async def _database_frozen(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    run.database.freeze()
    try:
        await trio.sleep(step.lasts)
    finally:
        run.database.thaw()
    return "database"


async def _client_killed(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    clients = _target(run)
    if clients is None:
        return None
    await kill_clients(run, clients)
    return str(clients.number)


async def _client_stopped(run: ChaosRun, _step: Step, lives: trio.Nursery) -> str | None:
    clients = _target(run)
    if clients is None:
        return None
    run.ledger.clients_ended[clients.number] = ClientsEnd("stopped", time.time())
    clients.send(signal.SIGSTOP)
    lives.start_soon(_kill_later, run, clients)
    return str(clients.number)


def _target(run: ChaosRun) -> ClientProcess | None:
    """A client process with open visits that no fault has struck yet."""
    busy = {visit.client_process for visit in run.ledger.visits.values() if visit.is_open}
    struck = run.ledger.clients_ended
    possible = [clients for number, clients in run.targets.items() if number in busy and number not in struck]
    return run.random.choice(possible) if possible else None


async def _kill_later(run: ChaosRun, clients: ClientProcess) -> None:
    await trio.sleep(STOPPED_SECONDS)
    await kill_clients(run, clients)


async def _row_closed(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    """Closes a row as somebody in psql would. Tried again while the database is away."""
    open_visits = [visit for visit in run.ledger.visits.values() if visit.is_open]
    open_visits = [visit for visit in open_visits if visit.client_process not in run.ledger.clients_ended]
    if not open_visits:
        return None
    session_id = str(run.random.choice(open_visits).session_id)
    for _ in range(CLOSE_TRIES_MAX):
        with suppress(StoreError):
            return session_id if await run.store.select(BY_HAND, UUID(session_id)) else None
        await trio.sleep(0.2)
    return None


FaultAction = Callable[[ChaosRun, Step, trio.Nursery], Awaitable[str | None]]
FAULT_ACTIONS: dict[str, FaultAction] = {
    "server_terminated": _server_terminated,
    "server_killed": _server_killed,
    "servers_killed": _servers_killed,
    "server_frozen": _server_frozen,
    "database_restarted": _database_restarted,
    "database_frozen": _database_frozen,
    "client_killed": _client_killed,
    "client_stopped": _client_stopped,
    "row_closed": _row_closed,
}
