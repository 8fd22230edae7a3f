"""Who used the processors: a server with its children, PostgreSQL, the load, and everybody else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import psutil

from ..starvation import waiting_seconds

FOREIGN_SHARE_MAX = 0.1  # of all processors, while something is measured
WAITED_SHARE_MAX = 0.1  # of the time, in which a server was ready and had no processor


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, those that have ended included; 0 where it is gone."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def rss_kib(pid: int) -> float:
    """Resident memory of a process and its children."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1024


class Usage(NamedTuple):
    """Seconds of processor time within an interval of so many seconds of wall time.

    foreign: of processes that take no part, and what the host took. waited: how long the server's main thread was ready
    without a processor.
    """

    wall: float
    server: float
    database: float
    load: float
    foreign: float
    waited: float

    @property
    def foreign_share(self) -> float:
        """Of all processors."""
        return self.foreign / max(self.wall, 1e-9) / (os.cpu_count() or 1)

    @property
    def waited_share(self) -> float:
        return self.waited / max(self.wall, 1e-9)

    @property
    def busy(self) -> bool:
        """Whether others had too much of the machine for a measurement."""
        return self.foreign_share > FOREIGN_SHARE_MAX or self.waited_share > WAITED_SHARE_MAX


def total(usages: Iterable[Usage]) -> Usage:
    return Usage(*map(sum, zip(*usages, strict=True)))


class Meter:
    """Reads the clocks of processes from now on. pids: of server, database (0: none) and loads."""

    def __init__(self, server: int, database: int, *loads: int) -> None:
        self._pids = (server, database, *loads)
        self._before = self._read()

    def usage(self) -> Usage:
        """Since it was made."""
        wall, busy, waited, own, server, database, *loads = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        foreign = max(busy - own - server - database - sum(loads), 0.0)
        return Usage(wall, server, database, sum(loads), foreign, waited)

    def _read(self) -> tuple[float, ...]:
        waited = waiting_seconds(self._pids[0]) if self._pids[0] else None
        parts = [cpu_seconds(pid) if pid else 0.0 for pid in self._pids]
        return (time.perf_counter(), _busy_seconds(), waited or 0.0, time.process_time(), *parts)


class WholeMeter:
    """For rows in which servers start and end: `server` is all that this process has started, ended children included.

    How long these waited is not known once they are gone. database: a pid.
    """

    def __init__(self, database: int) -> None:
        self._database = database
        self._before = self._read()

    def usage(self) -> Usage:
        """Since it was made. What a server used counts once its end has been waited for."""
        wall, busy, started, database = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        return Usage(wall, started, database, 0.0, max(busy - started - database, 0.0), 0.0)

    def _read(self) -> tuple[float, ...]:
        return (time.perf_counter(), _busy_seconds(), cpu_seconds(os.getpid()), cpu_seconds(self._database))


def _busy_seconds() -> float:
    """What all processors have done since the machine started, and what its host took from it."""
    times = psutil.cpu_times()._asdict()
    return sum(float(times.get(each, 0.0)) for each in ("user", "nice", "system", "irq", "softirq", "steal"))


def pin(pid: int, processors: Iterable[int]) -> None:
    """Keeps a process and its children, present and future, on these processors, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, OSError):
            for thread in each.threads():
                os.sched_setaffinity(thread.id, processors)
