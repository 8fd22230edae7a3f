"""A simulated server process: the real server between its start and its end, and what can be done to a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import trio
from lastcall.agents.agent import Agent
from lastcall.config import Settings
from lastcall.main import serve_sessions
from lastcall.runtime.watchdog import FORCE_MARGIN_SECONDS
from lastcall.shutdown import Signals

from .fakes.link import Link, Trouble
from .fakes.network import Frame, MemoryListener, Wire
from .fakes.seeding import OWNER

if TYPE_CHECKING:
    from .world import World

PID_FIRST = 100
READY_SECONDS = 5.0
FOREVER = float("inf")


class Server:
    """One process. Times are virtual seconds.

    host: on which its pid is visible.
    trouble: spans in which it was frozen or its link to the database had trouble. freezes: spans of freezes alone.
    troubled_at: each time it was frozen or its link got worse. blind_at: each time that a look at the others failed by
    itself, after which its reaper counts their silence anew. cut_until: end of its last freeze, or of its last
    trouble that loses answers. over_at: when the process was gone.
    how: "exited", "crashed", "forced" (by the watchdog) or "failed" (with an exception).
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
        self.troubled_at: list[float] = []
        self.blind_at: list[float] = []
        self.freezes: list[list[float]] = []
        self.cut_until = 0.0
        self.wires: list[Wire] = []
        self._scope = trio.CancelScope()

    # --- as seen from outside

    @property
    def accepting(self) -> bool:
        """Whether it takes connections."""
        return self.ready_at is not None and self.listener.open and self.over_at is None

    @property
    def instance_ids(self) -> set[UUID]:
        """Of the instances that it has been."""
        return {record.instance.instance_id for record in self.link.own()}

    @property
    def healthy(self) -> bool:
        """Whether it runs, with a working link to the database."""
        return self.over_at is None and not self.frozen and self.link.trouble is None

    def connect(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> Wire | None:
        """Opens a connection; None if it is refused."""
        wire = Wire(on_frame, on_end)
        if not self.listener.connect(wire):
            return None
        self.wires.append(wire)
        return wire

    # --- from start to end

    async def run(self) -> None:
        OWNER.set(self)
        with self._scope:
            try:
                listen = cast("Any", lambda: [self.listener])
                await serve_sessions(self.settings, self.link, self.agent, listen, self.signals, self._announce)
                with trio.move_on_after(self.signals.last_commits_seconds):
                    await self.link.drained()
                self._gone("exited")
            except Exception as error:  # noqa: BLE001 - an exception out of `serve_sessions` ends the process
                self.world.trace.add(self.name, "process failed", repr(error))
                self._gone("failed")

    async def until_ready(self) -> None:
        """Returns when it accepts connections, or has had the time for it."""
        with trio.move_on_after(READY_SECONDS):
            await self.ready.wait()

    def _announce(self) -> None:
        self.ready_at = trio.current_time()
        self.ready.set()
        self.world.trace.add(self.name, "ready")

    def _gone(self, how: str) -> None:
        """The process is gone: nothing that is left of it has any effect from now on."""
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

    # --- signals and faults

    def terminate(self) -> None:
        """SIGTERM; a second one cuts the waiting short."""
        if self.over_at is not None:
            return
        self.world.trace.add(self.name, "SIGTERM", "again" if self.signalled_at is not None else "")
        if self.signalled_at is None:
            self.signalled_at = trio.current_time()
            self.signals.begin()
            self.world.start_soon(self._watchdog)
        else:
            self.hurried_at = self.hurried_at or trio.current_time()
            self.signals.hurry_up()

    async def _watchdog(self) -> None:
        with trio.move_on_after(self.settings.drain_seconds + FORCE_MARGIN_SECONDS):
            await self.over.wait()
        self.crash("forced")

    def crash(self, how: str = "crashed") -> None:
        """SIGKILL: no code of the process has any effect after it."""
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
        self.frozen, self.cut_until = True, FOREVER
        self.freezes.append([trio.current_time(), FOREVER])
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

    def set_trouble(self, trouble: Trouble | None) -> None:
        """Begins trouble of its link to the database; None ends it."""
        if self.over_at is not None:
            return
        self.world.trace.add(self.name, "link", "sound" if trouble is None else trouble.kind)
        if self.link.trouble is not None and self.link.trouble.kind != "slow":
            self.cut_until = trio.current_time()
        self.link.set_trouble(trouble)
        if trouble is not None:
            if trouble.kind != "slow":
                self.cut_until = FOREVER
            self.troubled_at.append(trio.current_time())
            self._begin_trouble()
        else:
            self._end_trouble()

    def _begin_trouble(self) -> None:
        if not self.trouble or self.trouble[-1][1] != FOREVER:
            self.trouble.append([trio.current_time(), FOREVER])

    def _end_trouble(self) -> None:
        if self.trouble and self.trouble[-1][1] == FOREVER and (self.healthy or self.over_at is not None):
            self.trouble[-1][1] = trio.current_time()
