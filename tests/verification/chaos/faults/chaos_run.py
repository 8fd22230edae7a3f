"""The parts of a run, and how its servers and clients are started and ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import trio
from lastcall.store.postgres import PostgresStore

from ...starvation import TimedOut
from ..database import Database
from ..ledger import ClientsEnd, Ledger
from ..links import Links
from ..plan import Pace
from ..process_pool import ClientProcess
from ..receipts import ReceiverProcess
from ..records import Clock, OrphanListing, Sample
from ..server import Server

READY_SECONDS = 60.0  # of a server that has half a share of the processor, and of its tries in an outage
EXIT_SECONDS = 10.0  # of a server, beyond its drain budget


@dataclass(slots=True)
class ChaosRun:
    """One run's parts and what they found.

    clock: tells what the database's times mean. left_out: faults that cannot be caused here, with the reason.
    regular: clients that come and go; targets: those that faults strike.
    """

    pace: Pace
    seed: int
    only: Sequence[str]
    clients: int
    database: Database
    store: PostgresStore
    servers: list[Server]
    links: Links
    receiver: ReceiverProcess
    clock: Clock
    left_out: dict[str, str]
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

    def placed(self, *names: str) -> Server:
        """Returns one of the servers in these places, or any."""
        return self.random.choice([server for server in self.servers if not names or server.place.name in names])


async def start_all(run: ChaosRun, lives: trio.Nursery) -> None:
    for server in run.servers:
        await start(run, server, lives)


async def start(run: ChaosRun, server: Server, lives: trio.Nursery) -> None:
    """Starts a server and waits until it accepts connections. Tries again where it exits first, as in an outage."""
    began = time.time()
    with trio.move_on_after(READY_SECONDS) as limit:
        while server.life is None or server.life.ready is None or server.life.died is not None:
            await lives.start(lambda task_status: server.live(run.ledger.lives, task_status=task_status))
    if limit.cancelled_caught:
        log = run.logs / f"server-{server.port}.log"
        raise TimedOut(f"a server did not become ready within {READY_SECONDS:.0f} s; see {log} (with --keep)", began)


async def terminate(run: ChaosRun, server: Server, number: signal.Signals, fault: str) -> str:
    """Tells a server to end, and kills it where it does not. Returns its process."""
    life = server.life
    assert life is not None
    if life.died is None:
        life.terminated, life.by = time.time(), fault
    server.send(number)
    with trio.move_on_after(run.pace.drain + EXIT_SECONDS) as limit:
        await server.ended()
    if limit.cancelled_caught:
        server.send(signal.SIGKILL)
        await server.ended()
    return str(life.process)


async def kill(server: Server, fault: str) -> str:
    """Returns its process."""
    life = server.life
    assert life is not None
    if life.died is None:
        life.killed, life.by = time.time(), fault
    server.send(signal.SIGKILL)
    await server.ended()
    return str(life.process)


async def kill_clients(run: ChaosRun, clients: ClientProcess) -> None:
    """Kills a client process. The ledger gets the moment, for all its clients."""
    end = run.ledger.clients_ended.setdefault(clients.number, ClientsEnd("killed", time.time()))
    at, gone = await clients.kill()
    if end.how == "killed":
        end.at, end.gone = at, gone
