"""The simulated world: one database, any number of servers that run the real code, virtual time, one seed.

Real is everything from the listener's accept to the store's methods: `lastcall.main.serve_sessions` and all below it.
Simulated (in `fakes`) are sockets, the link to the database, the clock, the order of tasks and what a kernel knows of
processes. Signals call what the server's own signal task calls.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import lastcall.memory.attempts
import lastcall.memory.finalizer
import lastcall.sessions.death
import lastcall.sessions.instance
import trio
from lastcall.agents.agent import Agent
from lastcall.config import Settings
from lastcall.runtime.host import ProcessState

from tests.support.fake_store import FakeStore

from .fakes.agent import SimulatedAgent
from .fakes.clock import Stuck, VirtualClock
from .fakes.link import Link
from .fakes.seeding import OWNER, deterministic
from .fakes.trace import Trace, listening_to_logs
from .fakes.trio_internals import RunQueue, use_run_queue
from .server import Server

EPOCH = 1_000.0  # virtual seconds at which a world begins
CLAIM_SECONDS, RENEW_SECONDS = 1.5, 0.5
SETTINGS = Settings(
    agent="simulated",
    ping_interval=2.0,
    ping_timeout=2.0,
    lease_seconds=3.0,
    gone_seconds=1.6,
    drain_seconds=4.0,
    message_bytes_max=4_096,
    connections_max=12,
    handshake_seconds=2.0,
    inbox_events_max=16,
    events_per_second=6.0,
    outbox_bytes_high=2_048,
    outbox_bytes_max=65_536,
    send_seconds=2.0,
    begin_seconds=2.0,
    end_seconds=3.0,
    append_seconds=2.0,
    reply_seconds=4.0,
    memory_seconds=4.5,  # more than a shutdown has
    memory_workers=2,
    memory_attempts_max=3,
    memory_sweep_seconds=2.0,
)


class World:
    """A world and everything in it. All that is random in it comes from `random`.

    processes: numbers of the running servers, by host and pid.
    hiding: hosts whose processes may not see each other.
    on_effect: called after each effect of a store operation, with the link and the operation's name.
    counts: how often something happened, by kind and name.
    logged: the servers' own log lines, as (when, event, fields).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.database = FakeStore()
        self.servers: list[Server] = []
        self.processes: dict[tuple[str, int], int] = {}
        self.hiding: set[str] = set()
        self.trace = Trace()
        self.on_effect: Callable[[Link, str], None] = lambda _link, _name: None
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.logged: list[tuple[float, str, dict[str, Any]]] = []
        self._nursery: trio.Nursery | None = None
        self._run_queue: RunQueue | None = None

    @property
    def alive(self) -> list[Server]:
        """The servers whose process exists."""
        return [server for server in self.servers if server.over_at is None]

    def count(self, kind: str, name: str) -> None:
        self.counts[kind][name] += 1

    def start_soon(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, *args)

    def start_server(self, *, host: str = "host", agent: Agent | None = None, **changes: Any) -> Server:
        """Starts a server; `changes` are settings. `ready` is set once it accepts."""
        server = Server(self, len(self.servers) + 1, host, replace(SETTINGS, **changes), agent or SimulatedAgent())
        self.servers.append(server)
        self.processes[server.host, server.pid] = server.number
        self.start_soon(server.run)
        return server

    def process_state(self, pid: int, started: int | None) -> ProcessState:
        """What the kernel of the asking server's host says. Some hosts hide their processes from each other."""
        running = self.processes.get((OWNER.get().host, pid))
        if running is None:
            return ProcessState.GONE
        if OWNER.get().host in self.hiding:
            return ProcessState.UNKNOWN
        return ProcessState.LIVES if running == started else ProcessState.GONE

    def on_log(self, event: str, fields: dict[str, Any]) -> None:
        """Keeps a server's log line, unless its process is gone."""
        owner = OWNER.get()
        if owner is None or owner.over_at is None:
            name = owner.name if owner is not None else "?"
            self.logged.append((trio.current_time(), event, fields))
            # Not the pid, which is that of the one process they share: a seed gives the same trace anywhere.
            self.trace.add(name, f"log {event}", {key: value for key, value in fields.items() if key != "pid"})

    @property
    def run_queue(self) -> RunQueue:
        assert self._run_queue is not None
        return self._run_queue

    async def run(self, main: Callable[[World], Awaitable[None]]) -> None:
        self._run_queue = use_run_queue(lambda task: task.context.get(OWNER))
        async with trio.open_nursery() as self._nursery:
            await main(self)
            self._nursery.cancel_scope.cancel()


@contextmanager
def _surroundings(world: World) -> Iterator[None]:
    """Replaces what the kernel tells servers about processes; and lets a claim on memory run out within a world."""
    instance: Any = lastcall.sessions.instance
    death: Any = lastcall.sessions.death
    finalizer, attempts = lastcall.memory.finalizer, lastcall.memory.attempts
    before = instance.host_id, instance.process_started, death.process_state
    lasting = attempts.CLAIM_SECONDS, attempts.RENEW_SECONDS
    instance.host_id = lambda: OWNER.get().host
    instance.process_started = lambda _pid: OWNER.get().number
    death.process_state = world.process_state
    finalizer.CLAIM_SECONDS = attempts.CLAIM_SECONDS = CLAIM_SECONDS
    attempts.RENEW_SECONDS = RENEW_SECONDS
    try:
        yield
    finally:
        instance.host_id, instance.process_started, death.process_state = before
        attempts.CLAIM_SECONDS, attempts.RENEW_SECONDS = lasting
        finalizer.CLAIM_SECONDS = attempts.CLAIM_SECONDS


def simulate(seed: int, main: Callable[[World], Awaitable[None]]) -> World:
    """Runs `main` in a new world, in virtual time, until it returns. Not to be called inside a Trio run.

    Raises:
        Stuck: Tasks are left, and none of them will ever run again.
    """
    clock, world = VirtualClock(EPOCH), World(seed)
    with deterministic(seed, clock), listening_to_logs(world.on_log), _surroundings(world):
        try:
            trio.run(world.run, main, clock=clock)
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, Stuck):
                raise
            stuck = str(error.__cause__)
        else:
            return world
        gc.freeze()  # its tasks cannot be ended: collected, each would complain that it finds no run to end in
        raise Stuck(stuck)
