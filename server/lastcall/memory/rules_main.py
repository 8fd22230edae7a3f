"""The program of the process that runs the rules: takes transcripts, a line of several, and answers with readings."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from typing import NoReturn

import msgspec

from ..agents.agent import Transcript
from .reading import read_transcript

NICENESS = 5  # the server goes first
READY = b"ready\n"


def main(cpu_seconds: float) -> NoReturn:
    """Serves the pipes on stdin and stdout until the server is gone.

    A transcript that takes more than `cpu_seconds` of CPU time ends the process, by SIGPROF: the kernel sends it, also
    while a pattern runs and no Python code gets a turn.
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
        _serve(cpu_seconds)
    os._exit(0)


def _serve(cpu_seconds: float) -> None:
    from . import rules  # noqa: F401 - slow to compile; not above, so that the server can import this module
    from .search import indexing  # noqa: F401

    decode = msgspec.json.Decoder(list[Transcript]).decode
    _write(READY)
    for line in sys.stdin.buffer:
        readings = []
        for transcript in decode(line):
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            readings.append(read_transcript(transcript))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _write(msgspec.json.encode(readings) + b"\n")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _end_with_the_server() -> None:
    """Waits until the server's end of stdin is closed, as a crash closes it too, also in the middle of a transcript."""
    lifeline = select.poll()
    lifeline.register(sys.stdin.fileno(), 0)  # nothing but its hanging up
    lifeline.poll()
    os._exit(0)
