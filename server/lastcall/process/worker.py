"""A worker, as its supervisor sees it: a process with the same command line, and a channel on which it is heard."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from ..runtime.service_manager import MESSAGE_END, MICROSECONDS, SUPERVISOR, WATCHDOG_MICROSECONDS, WORKER
from .inherited import ADMIN, COUNT, FIRST_DESCRIPTOR, NAMES

MESSAGE_BYTES_MAX = 8_192
STUCK_SECONDS = 30.0  # without a sign of life; far beyond the lease that such a worker has lost
DESCRIPTORS_FROM = 100  # of what is handed on: not where a worker will find it, so that none is overwritten


@dataclass(slots=True)
class Worker:
    """A process. Times are Trio's.

    Attributes:
        slot: Which of the workers it is, from 1.
        began: When it was started.
        fields: What it told with its readiness.
        beat_at: When it last gave a sign of life.
        code: How it ended: its exit code, or minus the signal.
        ended_by_us: Whether the supervisor had it end.
    """

    slot: int
    pid: int
    channel: trio.socket.SocketType
    began: float
    ready: trio.Event = field(default_factory=trio.Event)
    exited: trio.Event = field(default_factory=trio.Event)
    fields: dict[str, str] = field(default_factory=dict)
    beat_at: float = 0.0
    code: int = 0
    ended_by_us: bool = False

    async def watch(self) -> None:
        """Hears what it tells, until it has ended."""
        async with trio.open_nursery() as hearing:
            hearing.start_soon(self._hear)
            own_thread = trio.CapacityLimiter(1)
            status = await trio.to_thread.run_sync(os.waitpid, self.pid, 0, abandon_on_cancel=True, limiter=own_thread)
            hearing.cancel_scope.cancel()
        self.code = os.waitstatus_to_exitcode(status[1])
        self.channel.close()
        self.exited.set()

    async def _hear(self) -> None:
        heard = ""
        with suppress(OSError):
            while len(heard) < MESSAGE_BYTES_MAX and (more := await self.channel.recv(MESSAGE_BYTES_MAX)):
                *messages, heard = (heard + more.decode(errors="replace")).split(MESSAGE_END)
                for message in messages:
                    self._told(message)
        await trio.sleep_forever()

    def _told(self, message: str) -> None:
        self.beat_at = trio.current_time()
        lines = dict(line.partition("=")[::2] for line in message.split("\n"))
        if lines.get("READY") == "1":
            mark = "X_LASTCALL_"
            self.fields = {name.removeprefix(mark): text for name, text in lines.items() if name.startswith(mark)}
            self.ready.set()

    @property
    def is_stuck(self) -> bool:
        """Whether its event loop has not run for too long."""
        return self.ready.is_set() and trio.current_time() - self.beat_at > STUCK_SECONDS

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal, after which its end is no crash. Harmless where it has ended."""
        self.ended_by_us = True
        self.kill(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if not self.exited.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_worker(slot: int, clients: Sequence[int], admin: Sequence[int], environ: Mapping[str, str]) -> Worker:
    """Starts a process with the command line of this one. It runs whatever release is installed by then.

    Not by a fork alone: a worker would keep the code of the day on which the supervisor was started.

    Args:
        slot: Which of the workers it is.
        clients: Listening sockets that it shares with the others.
        admin: Those of its own admin port.
        environ: The environment, to which what it needs is added.
    """
    ours, theirs = socket.socketpair()  # each side learns of the other's end
    handed = [
        fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, DESCRIPTORS_FROM) for each in (*clients, *admin, theirs.fileno())
    ]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, each, FIRST_DESCRIPTOR + number) for number, each in enumerate(handed)]
        names = ["lastcall"] * len(clients) + [ADMIN] * len(admin)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {
                **environ,
                COUNT: str(len(names)),
                NAMES: ":".join(names),
                SUPERVISOR: str(FIRST_DESCRIPTOR + len(names)),
                WORKER: str(slot),
                WATCHDOG_MICROSECONDS: str(int(STUCK_SECONDS * MICROSECONDS)),
            },
            file_actions=actions,
            setpgroup=0,  # a terminal's Ctrl-C reaches the supervisor alone, which ends all in order
            setsigmask=[],
        )
    finally:
        theirs.close()
        for each in handed:
            os.close(each)
    ours.setblocking(False)
    return Worker(slot, pid, trio.socket.from_stdlib_socket(ours), trio.current_time())
