"""The run: starts everything, does the faults of the schedule, keeps the ledger, samples the database, heals."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec
import trio

from server.postgres import PostgresStore
from server.store import StoreError

from . import people
from .ledger import Fault, Ledger
from .plan import SERVER_FAULTS, Pace, Step, lanes
from .processes import START_SECONDS, Database, Failed, Server, each_line, open_process, people_command
from .records import Sample, remaining, sample
from .truth import BACK_SECONDS

EXTRA_PROCESSES = 3  # of clients that are killed and stopped
EXTRA_CLIENTS = 4  # in each
STOPPED_SECONDS = 8.0  # until a stopped client process is killed: its sessions have long been closed
CLOSE_TRIES_MAX = 20  # of a row closed by hand, while the database is away
ORPHAN_SECONDS = 5.0  # past the lease, what is still active stays so
LEAVE_SECONDS = 12.0  # for the clients to come to an end after the faults
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
    crowd: dict[int, trio.Process] = field(default_factory=dict)
    extras: dict[int, trio.Process] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    leaving: bool = False
    one_at_a_time: trio.Lock = field(default_factory=trio.Lock)
    all_left: trio.Event = field(default_factory=trio.Event)
    random: Random = field(default_factory=Random)


async def conduct(run: Run, progress: Callable[[str], None]) -> None:
    """From the first server to the last. Raises nothing of the faults' making."""
    async with trio.open_nursery() as lives:
        progress("starting")
        await _start_all(run, lives)
        async with trio.open_nursery() as watching:
            watching.start_soon(_sample, run)
            await _trouble(run, progress, lives)
            progress("settling")
            await _settle(run)
            watching.cancel_scope.cancel()
        progress("draining")
        for server in run.servers:
            await _terminate(run, server)


async def _trouble(run: Run, progress: Callable[[str], None], lives: trio.Nursery) -> None:
    """The faults, with the clients that suffer them."""
    async with trio.open_nursery() as clients:
        clients.start_soon(partial(_people, run, run.clients, extra=False))
        for _ in range(EXTRA_PROCESSES):
            clients.start_soon(_extras, run)
        progress("running")
        async with trio.open_nursery() as faults:
            stop = trio.current_time() + run.pace.seconds
            for steps in lanes(run.seed, run.only, run.pace).values():
                faults.start_soon(_lane, run, steps, stop, lives)
            await trio.sleep_until(stop)
        progress("healing")
        await _start_all(run, lives)
        await _send_home(run)


# --- servers


async def _start_all(run: Run, lives: trio.Nursery) -> None:
    for server in run.servers:
        await _start(run, server, lives)


async def _start(run: Run, server: Server, lives: trio.Nursery) -> None:
    """Until it takes connections; again where it ended before, as it may while the database is away."""
    with trio.move_on_after(START_SECONDS) as limit:
        while server.life is None or server.life.ready is None or server.life.died is not None:
            await lives.start(lambda task_status: server.live(run.ledger.lives, task_status=task_status))
    if limit.cancelled_caught:
        log = run.logs / f"server-{server.port}.log"
        raise Failed(f"a server did not become ready within {START_SECONDS:.0f} s; see {log} (with --keep)")


async def _terminate(run: Run, server: Server) -> None:
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


# --- clients


async def _send_home(run: Run) -> None:
    """Lets the crowd come to the end of its visits, and ends those who cannot."""
    run.leaving = True
    for process in run.crowd.values():
        process.terminate()
    for number, process in run.extras.items():
        if number not in run.ledger.people_ended:  # those that are stopped are killed in their time
            _kill_people(run, number, process)
    with trio.move_on_after(LEAVE_SECONDS):
        await run.all_left.wait()
    for number, process in run.crowd.items():
        _kill_people(run, number, process)


def _kill_people(run: Run, number: int, process: trio.Process) -> None:
    """SIGKILL, with the moment in the ledger for all who are in that process."""
    run.ledger.people_ended.setdefault(number, ("killed", time.time()))
    process.kill()


async def _people(run: Run, clients: int, *, extra: bool) -> None:
    settings = people.Settings(
        run.seed, [server.port for server in run.servers], clients, list(run.only), patient=extra, log_sends=extra
    )
    number = next(run.numbers)
    group = run.extras if extra else run.crowd
    with (run.logs / "people.log").open("ab") as log:
        async with open_process(people_command(settings), stderr=log) as process:
            group[number] = process
            await each_line(process, lambda line: run.ledger.note(number, msgspec.json.decode(line)))
            await process.wait()
            del group[number]
    if not run.crowd:
        run.all_left.set()
    if not run.leaving and number not in run.ledger.people_ended:
        raise Failed(f"a process of clients ended by itself; see {run.logs / 'people.log'}")


async def _extras(run: Run) -> None:
    """Clients in a process of their own, and others when those are gone."""
    while not run.leaving:
        await _people(run, EXTRA_CLIENTS, extra=True)


# --- faults


async def _lane(run: Run, steps: Iterator[Step], stop: float, lives: trio.Nursery) -> None:
    for step in steps:
        if trio.current_time() + step.after + step.lasts > stop:
            return
        await trio.sleep(step.after)
        await _do(run, step, lives)


async def _do(run: Run, step: Step, lives: trio.Nursery) -> None:
    """One fault, healed before this returns."""
    async with run.one_at_a_time if step.alone else nullcontext():
        if step.fault in SERVER_FAULTS:
            await _start_all(run, lives)  # one may have ended by itself: the audit reports it
        begin = time.time()
        target = await DEEDS[step.fault](run, step, lives)
        end = time.time()
        if step.alone:
            await trio.sleep(BACK_SECONDS)
    if target is not None:
        run.ledger.faults.append(Fault(step.fault, target, begin, end))


async def _server_terminated(run: Run, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await _terminate(run, server)
    await _start(run, server, lives)
    return str(pid)


async def _server_killed(run: Run, _step: Step, lives: trio.Nursery) -> str:
    server = run.random.choice(run.servers)
    pid = server.life.pid if server.life else 0
    await _kill(server)
    await _start(run, server, lives)
    return str(pid)


async def _servers_killed(run: Run, _step: Step, lives: trio.Nursery) -> str:
    for server in run.servers:
        await _kill(server)
    await _start_all(run, lives)
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
    number = _victim(run)
    if number is not None:
        _kill_people(run, number, run.extras[number])
    return None if number is None else str(number)


async def _client_stopped(run: Run, _step: Step, lives: trio.Nursery) -> str | None:
    number = _victim(run)
    if number is None:
        return None
    run.ledger.people_ended[number] = ("stopped", time.time())
    run.extras[number].send_signal(signal.SIGSTOP)
    lives.start_soon(_kill_later, run.extras[number])
    return str(number)


def _victim(run: Run) -> int | None:
    """A process of clients to which nothing was done yet, and that is at it."""
    busy = {visit.people for visit in run.ledger.visits.values() if visit.created and visit.socket_ended is None}
    able = [number for number in run.extras if number in busy and number not in run.ledger.people_ended]
    return run.random.choice(able) if able else None


async def _kill_later(process: trio.Process) -> None:
    await trio.sleep(STOPPED_SECONDS)
    process.kill()


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


# --- watching


async def _sample(run: Run) -> None:
    while True:
        with suppress(StoreError):
            run.samples.append(await sample(run.store))
        await trio.sleep(run.pace.sample)


async def _settle(run: Run) -> None:
    """Waits until nothing is active and no memory pending, or as long as each may take."""
    orphaned = trio.current_time() + run.pace.lease + ORPHAN_SECONDS
    with trio.move_on_after(run.pace.settle):
        while True:
            with suppress(StoreError):
                active, pending = await remaining(run.store)
                if not pending and (not active or trio.current_time() > orphaned):
                    return
            await trio.sleep(run.pace.sample)


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
