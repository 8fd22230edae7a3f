"""The made-up world: one database, any number of servers that run the real code, virtual time, one seed.

Real is everything from the listener's accept to the store's methods: `server.main.serve_sessions` and all below it.
Made up are the sockets (`network`), the database (`database`), the clock, the order of tasks (`seeding`) and what a
kernel knows of processes. Signals call what the server's own signal task calls.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any, cast

import lastcall.memory.finalizer
import lastcall.sessions.instance
import lastcall.sessions.reaper
import trio
from lastcall.agents.agent import Agent
from lastcall.config import Settings
from lastcall.main import serve_sessions
from lastcall.shutdown import FORCE_MARGIN_SECONDS, Schedule, Signals

from tests.support.fake_store import FakeStore

from .agent import SimulatedAgent
from .clock import Stuck, VirtualClock
from .database import Link
from .network import Frame, MemoryListener, Wire
from .seeding import OWNER, deterministic
from .trace import Trace, listening_to_logs
from .trio_internals import RunQueue, use_run_queue

EPOCH = 1_000.0  # virtual seconds; before it nothing has happened
PID_FIRST = 100
CLAIM_MARGIN_SECONDS = 1.5
SETTINGS = Settings(
    agent="simulated",
    ping_interval=2.0,
    ping_timeout=2.0,
    lease_seconds=3.0,
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


class Server:
    """A simulated server process, from its start to its end.

    host: where its pid means something. trouble: spans of virtual time in which it was frozen or without a sound link.
    over_at: when the process was gone. how: "exited", "crashed", "forced" (by the watchdog) or "failed" (to start).
    """

    def __init__(self, world: World, number: int, host: str, settings: Settings, agent: Agent) -> None:
        self.world = world
        self.number = number
        self.pid = PID_FIRST + number
        self.host = host
        self.name = f"server{number}"
        self.settings = settings
        self.agent = agent
        self.link = Link(world.database, self, world.random)
        self.listener = MemoryListener()
        self.signals = Signals(settings.drain_seconds)
        self.ready = trio.Event()
        self.over = trio.Event()
        self.frozen = False
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self.signalled_at: float | None = None
        self.hurried_at: float | None = None
        self.over_at: float | None = None
        self.how = ""
        self.trouble: list[list[float]] = []
        self.troubled_at: list[float] = []  # each time that it froze, or its link got worse
        self.freezes: list[list[float]] = []
        self.cut_until = 0.0  # frozen, or without a link that loses nothing
        self.wires: list[Wire] = []
        self._scope = trio.CancelScope()

    # --- what the world sees of it

    @property
    def accepting(self) -> bool:
        return self.ready_at is not None and self.listener.open and self.over_at is None

    @property
    def healthy(self) -> bool:
        return self.over_at is None and not self.frozen and self.link.trouble is None

    def connect(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> Wire | None:
        """A connection to it; None: refused."""
        wire = Wire(on_frame, on_end)
        if not self.listener.connect(wire):
            return None
        self.wires.append(wire)
        return wire

    # --- its life

    async def run(self) -> None:
        OWNER.set(self)
        with self._scope:
            try:
                await serve_sessions(
                    self.settings, self.link, self.agent, cast("Any", [self.listener]), self.signals, self._announce
                )
                with trio.move_on_after(Schedule(self.settings.drain_seconds).last_commits_seconds):
                    await self.link.drained()
                self._gone("exited")
            except Exception as error:  # noqa: BLE001 - what leaves `serve_sessions` ends the process
                self.world.trace.add(self.name, "process failed", repr(error))
                self._gone("failed")

    def _announce(self) -> None:
        self.ready_at = trio.current_time()
        self.ready.set()
        self.world.trace.add(self.name, "ready")

    def _gone(self, how: str) -> None:
        """The process is gone: from here on nothing that is left of it has any effect."""
        if self.over_at is not None:
            return
        self.over_at, self.how = trio.current_time(), how
        self.world.trace.add(self.name, how)
        self.world.processes.pop((self.host, self.pid), None)
        self.link.die()
        self.listener.open = False
        for wire in self.wires:
            wire.end("reset")
        self._end_trouble()
        self.over.set()

    # --- what is done to it

    def terminate(self) -> None:
        """SIGTERM; the second time, the waiting is cut short."""
        if self.over_at is not None:
            return
        self.world.trace.add(self.name, "SIGTERM", "again" if self.signalled_at is not None else "")
        if self.signalled_at is None:
            self.signalled_at = trio.current_time()
            self.signals.begin()
            self.world.start_soon(self._watchdog)
        else:
            self.hurried_at = self.hurried_at or trio.current_time()
            self.signals._hurry_up()

    async def _watchdog(self) -> None:
        with trio.move_on_after(self.settings.drain_seconds + FORCE_MARGIN_SECONDS):
            await self.over.wait()
        self.crash("forced")

    def crash(self, how: str = "crashed") -> None:
        """SIGKILL: no code of the process has any effect after this."""
        if self.over_at is not None:
            return
        self._gone(how)
        if self.frozen:
            self.world.run_queue.thaw(self)
            self.frozen = False
            self.freezes[-1][1] = trio.current_time()
        self._scope.cancel()

    def freeze(self) -> None:
        """SIGSTOP."""
        if self.frozen or self.over_at is not None:
            return
        self.frozen, self.cut_until = True, float("inf")
        self.freezes.append([trio.current_time(), float("inf")])
        self.troubled_at.append(trio.current_time())
        self._begin_trouble()
        self.link.freeze(True)
        self.world.run_queue.freeze(self)
        self.world.trace.add(self.name, "frozen")

    def thaw(self) -> None:
        """SIGCONT."""
        if self.frozen:
            self.world.trace.add(self.name, "thawed")
            self.frozen, self.cut_until = False, trio.current_time()
            self.freezes[-1][1] = trio.current_time()
            self.link.freeze(False)
            self.world.run_queue.thaw(self)
            self._end_trouble()

    def set_trouble(self, trouble: Any) -> None:
        """Begins or (None) ends a trouble of its link to the database."""
        if self.over_at is not None:
            return
        self.world.trace.add(self.name, "link", "sound" if trouble is None else trouble.kind)
        if self.link.trouble is not None and self.link.trouble.kind != "slow":
            self.cut_until = trio.current_time()
        self.link.set_trouble(trouble)
        if trouble is not None:
            if trouble.kind != "slow":
                self.cut_until = float("inf")
            self.troubled_at.append(trio.current_time())
            self._begin_trouble()
        else:
            self._end_trouble()

    def _begin_trouble(self) -> None:
        if not self.trouble or self.trouble[-1][1] != float("inf"):
            self.trouble.append([trio.current_time(), float("inf")])

    def _end_trouble(self) -> None:
        if self.trouble and self.trouble[-1][1] == float("inf") and (self.healthy or self.over_at is not None):
            self.trouble[-1][1] = trio.current_time()


class World:
    """A world and all that is in it. Everything random in it comes from `random`.

    stored: called after each effect of a store operation, with the link and the operation's name.
    counts: how often what is worth counting happened, by kind.
    logged: the servers' own log lines, as (when, event, fields).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.database = FakeStore()
        self.servers: list[Server] = []
        self.processes: dict[tuple[str, int], int] = {}
        self.trace = Trace()
        self.stored: Callable[[Link, str], None] = lambda _link, _name: None
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.logged: list[tuple[float, str, dict[str, Any]]] = []
        self._nursery: trio.Nursery | None = None
        self._run_queue: RunQueue | None = None

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

    def heard(self, event: str, fields: dict[str, Any]) -> None:
        """A log line of a server."""
        owner = OWNER.get()
        if owner is None or owner.over_at is None:
            name = owner.name if owner is not None else "?"
            self.logged.append((trio.current_time(), event, fields))
            self.trace.add(name, f"log {event}", fields)

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
    """What the servers' host tells about processes; and a claim on memory that runs out as soon as all else does."""
    instance: Any = lastcall.sessions.instance
    death, memory = lastcall.sessions.reaper.cause_of_death, lastcall.memory.finalizer
    before = instance.host_id, instance.process_started, death.__defaults__, memory.CLAIM_MARGIN_SECONDS
    instance.host_id = lambda: OWNER.get().host
    instance.process_started = lambda _pid: OWNER.get().number
    death.__defaults__ = (lambda pid: world.processes.get((OWNER.get().host, pid)),)
    memory.CLAIM_MARGIN_SECONDS = CLAIM_MARGIN_SECONDS
    try:
        yield
    finally:
        instance.host_id, instance.process_started, death.__defaults__, memory.CLAIM_MARGIN_SECONDS = before


def _forget_what_is_stuck() -> None:
    """Has the tasks of a world that was given up collected here, where nobody hears what they still say."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def simulate(seed: int, main: Callable[[World], Awaitable[None]]) -> World:
    """Runs `main` in a new world, in virtual time, until it returns. Not to be called inside a Trio run.

    Raises:
        Stuck: Tasks are left, and none of them will ever run again.
    """
    clock, world = VirtualClock(EPOCH), World(seed)
    with deterministic(seed, clock), listening_to_logs(world.heard), _surroundings(world):
        try:
            trio.run(world.run, main, clock=clock)
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, Stuck):
                raise
            stuck = str(error.__cause__)
        else:
            return world
        _forget_what_is_stuck()
        raise Stuck(stuck)
