"""What a server tells whoever manages it: systemd, or the supervisor of its workers. Both speak sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

import trio

NOTIFY, WATCHDOG_MICROSECONDS, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
SUPERVISOR = "LASTCALL_SUPERVISOR_FD"  # of a worker: its end of a pair of sockets
WORKER = "LASTCALL_WORKER"  # its number among the workers, from 1
BEATS = 3  # within the time after which the manager would think that the loop is stuck
MICROSECONDS = 1_000_000
MESSAGE_END = "\n\n"  # to systemd, an empty line says nothing


class ServiceManager:
    """Tells a manager how the server is; says nothing where there is none. Never waits, and never raises.

    Args:
        channel: A connected socket; None: there is no manager.
        watchdog_seconds: Without a sign of life for so long, the manager ends the process. None: it does not look.
        supervised: Whether the manager is the supervisor of workers, whose end the socket tells.
        worker: Which of the workers this is, from 1; None: it is none.
    """

    def __init__(
        self,
        channel: socket.socket | None = None,
        watchdog_seconds: float | None = None,
        *,
        supervised: bool = False,
        worker: int | None = None,
    ) -> None:
        self._channel = channel
        self._beat_seconds = None if watchdog_seconds is None else watchdog_seconds / BEATS
        self._next_beat = 0.0
        self.supervised = supervised
        self.worker = worker

    def ready(self, status: str, **fields: str) -> None:
        """The server takes connections. fields: for a supervisor; systemd ignores them."""
        self._tell("READY=1", f"STATUS={status}", *(f"X_LASTCALL_{name}={value}" for name, value in fields.items()))

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=shutting down")

    def loop_runs(self) -> None:
        """To be called from the event loop, more often than the manager looks: a stuck loop is then noticed."""
        if self._beat_seconds is not None and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + self._beat_seconds
            self._tell("WATCHDOG=1")

    async def lost(self) -> None:
        """Returns when the supervisor is gone; never where there is none."""
        if not self.supervised or self._channel is None:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(self._channel)
            try:
                if not self._channel.recv(1):
                    return
            except BlockingIOError:
                continue
            except OSError:  # reset: it was killed before it had read all that we told
                return

    def _tell(self, *lines: str) -> None:
        if self._channel is not None:
            # A manager that does not read, or is gone, must not hold up the server.
            with suppress(OSError):
                self._channel.send(("\n".join(lines) + MESSAGE_END).encode(), socket.MSG_DONTWAIT)


def service_manager(environ: MutableMapping[str, str]) -> ServiceManager:
    """The manager that the environment names. The variables are removed: they are not meant for our children."""
    path, number, worker = environ.pop(NOTIFY, ""), environ.pop(SUPERVISOR, ""), environ.pop(WORKER, "")
    microseconds, pid = environ.pop(WATCHDOG_MICROSECONDS, ""), environ.pop(WATCHDOG_PID, "")
    watched = microseconds.isdigit() and pid in ("", str(os.getpid()))
    seconds = int(microseconds) / MICROSECONDS if watched else None
    if number.isdigit():
        channel = socket.socket(fileno=int(number))
        channel.set_inheritable(False)
        channel.setblocking(False)
        return ServiceManager(channel, seconds, supervised=True, worker=int(worker) if worker.isdigit() else None)
    if not path.startswith(("/", "@")):
        return ServiceManager()
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        channel.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError:
        channel.close()
        return ServiceManager()
    return ServiceManager(channel, seconds)
