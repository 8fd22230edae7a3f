"""Measures how much time a prover and the processes under test lost to a busy machine.

A bound in time that was missed may be blamed on the server only for the time in which the server could run.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import trio

from tests.support.command_line import TooBusy, unwrapped

TICK_SECONDS = 0.02
NOTICED_SECONDS = 0.01  # a tick that is less late than this is not recorded
QUEUE_SECONDS = 0.05  # between two looks at the run queue
FAMILY_SECONDS = 2.0  # between two looks for a process's children


class Failed(Exception):
    """The run cannot go on, and nothing that it does on purpose explains why. The message is one line."""


class TimedOut(Failed):
    """Something that a run waits for took too long. began: since when, in Unix seconds."""

    def __init__(self, message: str, began: float) -> None:
        super().__init__(message)
        self.began = began


class Loss(NamedTuple):
    """Some seconds lost within an interval of Unix time."""

    begin: float
    end: float
    seconds: float


class Starvation:
    """The time that each source lost: a heartbeat that woke late, or a process that waited for a processor."""

    def __init__(self) -> None:
        self._losses: dict[str, list[Loss]] = {}

    def record(self, source: str, begin: float, end: float, seconds: float | None = None) -> None:
        """Adds lost time, in the order of its end.

        Args:
            source: who lost it, as in "runner" or "server:4711".
            begin: when the loss began at the earliest, in Unix seconds.
            end: when it was over at the latest.
            seconds: how many seconds of that interval were lost; all of them by default.
        """
        if end > begin:
            lost = end - begin if seconds is None else min(seconds, end - begin)
            self._losses.setdefault(source, []).append(Loss(begin, end, lost))

    def lost(self, begin: float, end: float, sources: Iterable[str]) -> float:
        """Returns the most that these sources can have lost in an interval: seconds, at most its length.

        Losses of different sources add up, as the stages of one request run one after the other.
        """
        return min(sum(self._lost(source, begin, end) for source in set(sources)), max(end - begin, 0.0))

    def _lost(self, source: str, begin: float, end: float) -> float:
        losses, lost = self._losses.get(source, []), 0.0
        for index in range(bisect_right(losses, begin, key=lambda loss: loss.end), len(losses)):
            if losses[index].begin >= end:
                break
            lost += min(losses[index].seconds, min(end, losses[index].end) - max(begin, losses[index].begin))
        return lost

    def sources(self, kind: str = "") -> list[str]:
        """Returns the sources of a kind, as in "server" for "server:1" and "server:2". All by default."""
        return [source for source in self._losses if kind in ("", source.partition(":")[0])]

    def totals(self) -> dict[str, dict[str, float]]:
        """Returns, by kind of source, the seconds lost in all and the longest single loss."""
        totals: dict[str, dict[str, float]] = {}
        for source, losses in sorted(self._losses.items()):
            total = totals.setdefault(source.partition(":")[0], {"total": 0.0, "longest": 0.0})
            total["total"] = round(total["total"] + sum(loss.seconds for loss in losses), 3)
            total["longest"] = round(max(total["longest"], *(loss.seconds for loss in losses)), 3)
        return totals


@contextmanager
def timeouts_judged(starvation: Starvation) -> Iterator[None]:
    """Turns a timeout of the run into `TooBusy` where its processes lost at least half of that time."""
    try:
        yield
    except (TimedOut, ExceptionGroup) as error:
        timeout, now = unwrapped(error, TimedOut), time.time()
        if timeout is None or starvation.lost(timeout.began, now, starvation.sources()) < (now - timeout.began) / 2:
            raise
        raise TooBusy(f"the machine was too busy to judge: {timeout}") from error


class Heartbeat:
    """Wakes every 20 ms and reports how late it was.

    `last`: the last moment at which this process surely ran, and all that had reached its sockets was read.
    """

    def __init__(self, late: Callable[[float, float], None]) -> None:
        self._late = late
        self.last = time.time()

    async def run(self) -> None:
        while True:
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep_until(due)
            late = trio.current_time() - due
            now = time.time()
            # What arrived while the process could not run may be read only after this task has run.
            self.last = now if late <= NOTICED_SECONDS else now - late - TICK_SECONDS
            if late > NOTICED_SECONDS:
                self._late(now - late, now)


class RunQueue:
    """Records how long processes were ready to run but had no processor, by the kernel's own account.

    Linux only: elsewhere nothing is recorded, and only the heartbeats count.
    """

    def __init__(self, starvation: Starvation, processes: Callable[[], Mapping[int, str]]) -> None:
        self._starvation = starvation
        self._processes = processes
        self._waited: dict[int, float] = {}
        self._at = time.time()

    async def run(self) -> None:
        while True:
            self.look()
            await trio.sleep(QUEUE_SECONDS)

    def look(self) -> None:
        """Of several processes of one source, the one that waited longest counts."""
        at, waited, longest = time.time(), {}, defaultdict[str, float](float)
        for pid, source in self._processes().items():
            if (seconds := waiting_seconds(pid)) is not None:
                waited[pid] = seconds
                longest[source] = max(longest[source], seconds - self._waited.get(pid, seconds))
        for source, seconds in longest.items():
            if seconds > 0.0:
                self._starvation.record(source, self._at, at, seconds)
        self._waited, self._at = waited, at


def waiting_seconds(pid: int) -> float | None:
    """Returns how long a process's main thread has waited for a processor since it began; None where unknown."""
    with suppress(OSError, IndexError, ValueError):
        return int(_read(f"/proc/{pid}/schedstat").split()[1]) / 1e9
    return None


class Family:
    """A process and its children, looked up at most every two seconds."""

    def __init__(self) -> None:
        self._known: list[int] = []
        self._parent = 0
        self._until = 0.0

    def of(self, parent: int) -> list[int]:
        if parent != self._parent or time.monotonic() > self._until:
            self._parent, self._until = parent, time.monotonic() + FAMILY_SECONDS
            self._known = [parent, *_children(parent)]
        return self._known


def _children(parent: int) -> list[int]:
    if not Path("/proc/self/stat").exists():
        return []
    children = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib would take five times as long
        with suppress(OSError, IndexError, ValueError):
            if int(_read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1]) == parent:
                children.append(int(name))
    return children


def _read(path: str) -> bytes:
    """Reads a small file of /proc, of which there are hundreds a second, without a file object."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4_096)
    finally:
        os.close(file)
