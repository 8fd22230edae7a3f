"""What a run consists of, and what is done to it: each fault of the schedule as a function."""

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

from .ledger import Ledger, PeopleEnd
from .plan import Pace, Step
from .process_pool import People
from .processes import START_SECONDS, Database, Failed, Server
from .records import Look, Sample

STOPPED_SECONDS = 8.0  # until a stopped client process is killed: its sessions have long been closed
CLOSE_TRIES_MAX = 20  # of a row closed by hand, while the database is away
BY_HAND = """UPDATE conversation_sessions SET is_active = false, session_end = now(), ended_at = now(),
    duration_seconds = extract(epoch FROM (now() - session_start)) WHERE session_id = $1 AND is_active
    RETURNING session_id"""


@dataclass(slots=True)
class Run:
    """One run's parts and what they bring to light."""

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
    looks: list[Look] = field(default_factory=list)
    crowd: dict[int, People] = field(default_factory=dict)
    extras: dict[int, People] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    leaving: bool = False
    one_at_a_time: trio.Lock = field(default_factory=trio.Lock)
    all_left: trio.Event = field(default_factory=trio.Event)
    random: Random = field(default_factory=Random)


async def start_all(run: Run, lives: trio.Nursery) -> None:
    for server in run.servers:
        await start(run, server, lives)


async def start(run: Run, server: Server, lives: trio.Nursery) -> None:
    """Until it takes connections; again where it ended before, as it may while the database is away."""
    with trio.move_on_after(START_SECONDS) as limit:
        while server.life is None or server.life.ready is None or server.life.died is not None:
            await lives.start(lambda task_status: server.live(run.ledger.lives, task_status=task_status))
    if limit.cancelled_caught:
        log = run.logs / f"server-{server.port}.log"
        raise Failed(f"a server did not become ready within {START_SECONDS:.0f} s; see {log} (with --keep)")


async def terminate(run: Run, server: Server) -> None:
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


async def kill_people(run: Run, people: People) -> None:
    """SIGKILL, with the moment in the ledger for all who are in that process."""
    end = run.ledger.people_ended.setdefault(people.number, PeopleEnd("killed", time.time()))
    at, gone = await people.kill()
    if end.how == "killed":
        end.at, end.gone = at, gone


async def _server_terminated(run: Run, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await terminate(run, server)
    await start(run, server, lives)
    return str(pid)


async def _server_killed(run: Run, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await _kill(server)
    await start(run, server, lives)
    return str(pid)


async def _servers_killed(run: Run, _step: Step, lives: trio.Nursery) -> str:
    for server in run.servers:
        await _kill(server)
    await start_all(run, lives)
    return "all"


async def _server_frozen(run: Run, step: Step, _lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    await _freeze(server, step.lasts)
    return str(server.life.pid if server.life else 0)


async def _database_restarted(run: Run, _step: Step, _lives: trio.Nursery) -> str:
    await trio.to_thread.run_sync(run.database.restart)
    return "database"


async def _database_frozen(run: Run, step: Step, _lives: trio.Nursery) -> str:
    run.database.freeze()
    try:
        await trio.sleep(step.lasts)
    finally:
        run.database.thaw()
    return "database"


async def _client_killed(run: Run, _step: Step, _lives: trio.Nursery) -> str | None:
    people = _victim(run)
    if people is None:
        return None
    await kill_people(run, people)
    return str(people.number)


async def _client_stopped(run: Run, _step: Step, lives: trio.Nursery) -> str | None:
    people = _victim(run)
    if people is None:
        return None
    run.ledger.people_ended[people.number] = PeopleEnd("stopped", time.time())
    people.send(signal.SIGSTOP)
    lives.start_soon(_kill_later, run, people)
    return str(people.number)


def _victim(run: Run) -> People | None:
    """A process of clients to which nothing was done yet, and that is at it."""
    busy = {visit.people for visit in run.ledger.visits.values() if visit.created and visit.socket_ended is None}
    able = [people for number, people in run.extras.items() if number in busy and number not in run.ledger.people_ended]
    return run.random.choice(able) if able else None


async def _kill_later(run: Run, people: People) -> None:
    await trio.sleep(STOPPED_SECONDS)
    await kill_people(run, people)


async def _row_closed(run: Run, _step: Step, _lives: trio.Nursery) -> str | None:
    """As a person in psql would do it; tried again while the database is away."""
    open_visits = [visit for visit in run.ledger.visits.values() if visit.created and visit.socket_ended is None]
    open_visits = [visit for visit in open_visits if visit.people not in run.ledger.people_ended]
    if not open_visits:
        return None
    session_id = str(run.random.choice(open_visits).session_id)
    for _ in range(CLOSE_TRIES_MAX):
        with suppress(StoreError):
            return session_id if await run.store.select(BY_HAND, UUID(session_id)) else None
        await trio.sleep(0.2)
    return None


Deed = Callable[[Run, Step, trio.Nursery], Awaitable[str | None]]
DEEDS: dict[str, Deed] = {
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
