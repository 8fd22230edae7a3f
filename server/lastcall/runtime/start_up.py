"""What keeps a start short, and out of the way of whoever serves on the same machine."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")

SESSION_PRIORITY = Path("/proc/self/autogroup")  # reads like "/autogroup-12 nice 0", takes a nice value
RESTORE_SECONDS = 5.0  # to go on trying: Linux lets users change it ten times a second in all
RESTORE_WAIT_SECONDS = 0.05

NEVER_SHOWN = "rich"  # by the log's own tracebacks
NEVER_SPOKEN = "hypercorn.protocol.h2"  # server/lastcall/transport/http1.py keeps every connection at HTTP/1.1

LOW_PRIORITY = 10  # nice value: about a tenth of what a process of normal priority gets where both want the processor


def at_low_priority(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of low priority and returns what it does; for start-up, before there is anybody to serve.

    Importing a server takes a second or two of the processor. In a rolling deploy that was taken from its neighbours,
    whose ends of sessions then waited a tenth of a second and more to be committed. Not `os.nice` for the process:
    only root may take that back. On Linux a thread has a priority of its own; elsewhere nothing is lowered.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run, name="start-up")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def session_gives_way() -> Callable[[], None]:
    """Lowers the priority of this process's session until the function that it returns is called.

    Where Linux groups processes by session (sched(7), "autogroup"), priorities count only within one. A server that a
    process manager started leads a session of its own. Nothing is lowered in somebody else's session, nor elsewhere.
    """
    before = _session_priority() if os.getsid(0) == os.getpid() else None
    if before is None or before >= LOW_PRIORITY:
        return lambda: None
    with suppress(OSError):
        SESSION_PRIORITY.write_text(str(LOW_PRIORITY))
    return partial(_restore_session_priority, before)


def _session_priority() -> int | None:
    """None: they are not grouped here."""
    try:
        return int(SESSION_PRIORITY.read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return None


def _restore_session_priority(before: int) -> None:
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    attempts = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        wait=wait_fixed(RESTORE_WAIT_SECONDS),
        stop=stop_after_delay(RESTORE_SECONDS),
        reraise=True,
    )
    with suppress(OSError):
        attempts(SESSION_PRIORITY.write_text, str(before))


@contextmanager
def no_collections() -> Iterator[None]:
    """Python collects no garbage by itself in the block, which may be the whole life of a process.

    What start-up makes is no garbage: looking through it took a sixth of the time of a start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep_for_good() -> None:
    """What there is now lives as long as the process: no collection looks through it any more.

    That was an eighth of a second of everybody's, each time that old objects were collected.
    """
    gc.freeze()


def import_structlog() -> None:
    """Imports structlog without the library that it takes for tracebacks where it finds it: a fifth of a start's time.

    Tables on a terminal still import that library when they are drawn. Where it is there already, nothing is gained.
    """
    with _in_place_of(NEVER_SHOWN, None):  # to the import system: it is not installed
        import structlog  # noqa: F401


def import_hypercorn() -> None:
    """Imports Hypercorn without its HTTP/2 and most of what is behind that: a tenth of a start's time."""
    empty = ModuleType(NEVER_SPOKEN)
    empty.H2Protocol = None  # type: ignore[attr-defined]
    with _in_place_of(NEVER_SPOKEN, empty):
        import hypercorn.protocol  # noqa: F401


@contextmanager
def _in_place_of(name: str, module: ModuleType | None) -> Iterator[None]:
    """What is imported meanwhile finds `module` under that name, unless the real one is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
