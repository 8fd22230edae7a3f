"""Many seeds at once, in one process per processor. Not in `__main__`: a spawned process has another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .run import Outcome, run_seed

CHUNK_SEEDS = 4  # handed to a process at once


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(seeds: range, processes: int) -> Iterator[Outcome]:
    """One after the other, as they come. A run on one processor stays in this process."""
    if processes == 1:
        yield from map(run_seed, seeds)
        return
    with workers(processes) as pool:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=CHUNK_SEEDS)


def ignore_interrupts() -> None:
    """In a worker: who began it ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def workers(processes: int) -> Iterator[Any]:
    """Spawned, not forked: each begins as a fresh process would. Ctrl-C is this process's to handle."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=ignore_interrupts) as pool:
        yield pool
