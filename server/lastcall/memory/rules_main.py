"""The program of the process that runs the rules: reads tasks, one per line, and answers with memories or words."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from typing import Literal, NoReturn

import msgspec

from ..agents.agent import Memory, Transcript

NICENESS = 5  # the server goes first
READY = b"ready\n"


class RulesTask(msgspec.Struct):
    """What to do with a transcript: extract its memories, or take it apart into the words of the index."""

    kind: Literal["extract", "index"]
    transcript: Transcript


class RulesAnswer(msgspec.Struct):
    """What was found in one transcript.

    passages: a list of `Passage`, for the database: the server need not parse it. error: why the task failed, or None.
    """

    memories: list[Memory] = []
    passages: msgspec.Raw = msgspec.Raw(b"[]")
    error: str | None = None


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
    # Slow to compile; not above, so that the server can import this module.
    from .rules import memories_by_rules
    from .search.indexing import passages_of

    decode = msgspec.json.Decoder(RulesTask).decode
    _write(READY)
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            task = decode(line)
            if task.kind == "extract":
                answer = RulesAnswer(memories_by_rules(task.transcript))
            else:
                passages = msgspec.json.encode(passages_of(task.transcript.messages))
                answer = RulesAnswer(passages=msgspec.Raw(passages))
        except Exception as error:  # noqa: BLE001 - it is the answer, and costs this one transcript
            answer = RulesAnswer(error=f"{type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _write(msgspec.json.encode(answer) + b"\n")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _end_with_the_server() -> None:
    """Waits until the server's end of stdin is closed, as a crash closes it too, also in the middle of a transcript."""
    lifeline = select.poll()
    lifeline.register(sys.stdin.fileno(), 0)  # nothing but its hanging up
    lifeline.poll()
    os._exit(0)
