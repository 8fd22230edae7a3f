"""A thread that receives the process's signals and keeps the shutdown's budget, also while the event loop is stuck.

An agent may block the loop: in `time.sleep`, in an endless loop, in C code. Three ways lead around it:

- The C part of Python's signal handling writes each signal to a socket, whatever the main thread does; this thread
  reads it, tells the loop, and ends the process when the loop does not follow.
- C code that keeps the GIL stops this thread too. Some of it, such as a regular expression, lets signals be handled in
  between, so the handlers also light a fuse: a timer of faulthandler's, which needs no GIL.
- C code that keeps the GIL and never looks at signals cannot be ended from inside; nothing but SIGKILL helps.

What a stuck loop would have written is left to others: a neighbour or the next start closes the rows, since the process
is gone. Blocking the signals and waiting for them in a thread (sigwait) would be simpler, but every program that the
server starts would inherit the blocked signals.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TextIO

import structlog

from ..logs import flush_output
from .heartbeat import Heartbeat
from .signals import Meaning, SignalReader, signals_to_take

EXIT_FORCED = 70  # EX_SOFTWARE
FORCE_MARGIN_SECONDS = 5.0  # beyond the budget; a process that is still there is ended
STUCK_SECONDS = 2.0  # without a heartbeat: a second signal does not wait for such a loop
HURRY_SECONDS_MIN = 0.5  # for the loop to follow a second signal, however late its heartbeat is
CHECK_SECONDS = 0.1  # between looks at the deadlines
FUSE_SECONDS = 3.0  # beyond the deadline, before the fuse ends what this thread could not: it may be flushing the log

Receive = Callable[[int, Meaning], None]

_log = structlog.get_logger(__name__)
_SIGNALS_READ_MAX = 64  # at once


class Watchdog:
    """Receives signals, and ends a process whose shutdown takes too long.

    Args:
        drain_seconds: The budget of the shutdown; `FORCE_MARGIN_SECONDS` later the process is ended.
        reloads: SIGHUP is about certificates, not about the end.
        end: Ends the process; gets the reason.
        light_fuse: Has the process ended after so many seconds, GIL or not; a later call replaces the time.

    Attributes:
        heartbeat: The loop's.
    """

    def __init__(
        self,
        drain_seconds: float,
        *,
        reloads: bool = False,
        end: Callable[[str], None] | None = None,
        light_fuse: Callable[[float], None] | None = None,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._budget_seconds, self._hurry_seconds = drain_seconds + FORCE_MARGIN_SECONDS, FORCE_MARGIN_SECONDS
        self._reader = SignalReader(reloads=reloads)
        self._in_handlers = SignalReader(reloads=reloads)  # the same, as the main thread sees it: perhaps much later
        self._end, self._light_fuse = end or end_process, light_fuse or _light_fuse
        self._deadline: float | None = None
        self._hurried_at: float | None = None
        self._fuse_is_short = False
        self._before_loop = True
        self._ended_before_loop = False
        self._attached = False
        self._lock = threading.Lock()
        self._receive: Receive | None = None
        self._undelivered: list[tuple[int, Meaning]] = []
        self._socket, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Takes the signals. On leaving after an ending signal, further ones are ignored."""
        before = {number: signal.signal(number, self._handle) for number in signals_to_take()}
        # A log line from the background of a terminal with `stty tostop` would stop the process.
        before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            ends = self._deadline is not None
            for number, handler in before.items():
                # As it ends, Python gives signals with handlers back to the system: the next would be the exit code.
                signal.signal(number, signal.SIG_IGN if ends else handler)

    def loop_begins(self) -> None:
        """Until this call, an ending signal ends the process at once: nothing has been started yet.

        Raises `SystemExit` where one came whose exception was lost, as a handler's is inside of a finalizer.
        """
        self._before_loop = False
        if self._ended_before_loop:
            raise SystemExit(0)

    @contextmanager
    def attached(self, receive: Receive, hurry_seconds: float) -> Iterator[None]:
        """Within the block, signals are received at once, and passed on. Trio's own wake-up is replaced meanwhile.

        Args:
            receive: Called in the watchdog's thread with each signal, also those since `loop_begins`; wakes the loop.
            hurry_seconds: From a second ending signal until the process is ended.
        """
        self._hurry_seconds = hurry_seconds
        with self._lock:
            self._receive = receive
            for each in self._undelivered:
                receive(*each)
            self._undelivered.clear()
        trios = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._attached = (
            True  # in this order, and back in the other: a signal between may count twice, but not get lost
        )
        try:
            yield
        finally:
            self._attached = False
            signal.set_wakeup_fd(trios)
            self._receive = None

    def loop_runs(self) -> None:
        """Called with each heartbeat: puts the short fuse off."""
        if self._fuse_is_short:
            self._light_fuse(STUCK_SECONDS + FUSE_SECONDS)

    # --- in the main thread

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._before_loop and self._reader.ends(number):
            self._ended_before_loop = True
            raise SystemExit(0)
        if not self._attached:
            self._wakeup.send(bytes([number]))
        match self._in_handlers.meaning(number, time.monotonic()):
            case Meaning.BEGIN:
                self._light_fuse(self._budget_seconds + FUSE_SECONDS)
            case Meaning.HURRY:
                self._fuse_is_short = True
                self.loop_runs()

    # --- in the thread

    def _watch(self) -> None:
        while True:
            seconds = None if self._deadline is None else CHECK_SECONDS
            if select.select([self._socket], [], [], seconds)[0]:
                for number in self._socket.recv(_SIGNALS_READ_MAX):
                    self.received(number, time.monotonic())
            self.check(time.monotonic())

    def received(self, number: int, now: float) -> None:
        """Takes a signal into account and passes it on."""
        meaning = self._reader.meaning(number, now)
        if meaning is Meaning.BEGIN:
            self._deadline = now + self._budget_seconds
        elif meaning is Meaning.HURRY and self._hurried_at is None and self._deadline is not None:
            self._hurried_at = now
            self._deadline = min(self._deadline, now + self._hurry_seconds)
        with self._lock:
            if self._receive is not None:
                self._receive(number, meaning)
            elif meaning is not Meaning.NOTHING:
                self._undelivered.append((number, meaning))

    def check(self, now: float) -> None:
        """Ends the process if its time is up, or if it is to hurry and the loop is stuck."""
        if self._deadline is not None and now >= self._deadline:
            self._end("the budget is used up")
        elif (
            self._hurried_at is not None
            and now - self._hurried_at >= HURRY_SECONDS_MIN
            and now - self.heartbeat.at >= STUCK_SECONDS
        ):
            self._end("a second signal while the event loop is stuck")


def end_process(reason: str) -> None:
    """Ends the process here and now; only the log gets a moment."""
    _log.error("shutdown_forced", reason=reason, code=EXIT_FORCED)
    flush_output()
    os._exit(EXIT_FORCED)


def _light_fuse(seconds: float) -> None:
    # faulthandler prints stacks first, and stderr may be a pipe that nobody reads.
    faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())


@cache
def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")  # for good: faulthandler keeps only its descriptor
