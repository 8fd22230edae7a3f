"""Runs many seeds at once, in one process per processor."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .run import Outcome, run_seed


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def outcomes(seeds: range, processes: int) -> Iterator[Iterator[Outcome]]:
    """Yields outcomes as they come. With one processor, everything runs in this process."""
    if processes == 1:
        yield map(run_seed, seeds)
        return
    with workers(processes) as pool:
        yield pool.imap_unordered(run_seed, seeds)


def ignore_interrupts() -> None:
    """In a worker: leaves Ctrl-C to the parent, which ends it by SIGTERM; a fork may have inherited a handler."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def workers(processes: int) -> Iterator[Any]:
    """A pool of workers. They are forked if this process has no threads, whose locks a fork would copy: importing
    everything would take a worker as long as ten worlds. Shared objects are frozen, so that collections skip them."""
    alone = sys.platform == "linux" and threading.active_count() == 1
    gc.freeze()
    context = multiprocessing.get_context("fork" if alone else "spawn")
    with context.Pool(processes, initializer=ignore_interrupts) as pool:
        gc.unfreeze()
        yield pool
