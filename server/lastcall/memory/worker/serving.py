"""What the programs of worker processes share: they serve lines until the server is gone, each within its CPU time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeAlias

NICENESS = 5  # the server goes first
READY = b"ready\n"

Answer: TypeAlias = Callable[[bytes, Callable[[], None]], bytes]
"""Answers a line, without its newline. Calls its second argument before each piece of work: its CPU time is new."""


def serve(cpu_seconds: float, load: Callable[[], Answer]) -> NoReturn:
    """Serves the pipes on stdin and stdout until the server is gone.

    A piece of work that takes more than `cpu_seconds` of CPU time ends the process, by SIGPROF: the kernel sends it,
    also while a pattern runs and no Python code gets a turn.

    load: what takes a while to load, before the process is ready.
    """
    # A terminal, or a service manager, signals all processes at once; the server still needs this one for its last
    # sessions, and it ends by itself when the server does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # both are inherited
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # no more than the server's end
        _serve(cpu_seconds, load)
    os._exit(0)


def _serve(cpu_seconds: float, load: Callable[[], Answer]) -> None:
    def begin() -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)

    answer = load()
    _write(READY)
    for line in sys.stdin.buffer:
        begin()
        answered = answer(line, begin)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _write(answered + b"\n")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _end_with_the_server() -> None:
    """Waits until the server's end of stdin is closed, as a crash closes it too, also in the middle of its work."""
    lifeline = select.poll()
    lifeline.register(sys.stdin.fileno(), 0)  # nothing but its hanging up
    lifeline.poll()
    os._exit(0)
