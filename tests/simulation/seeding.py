"""What makes a run repeatable: one seed for Trio's order of tasks, for ids and for every other choice."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from random import Random
from typing import Any

import trio
import trio._core._run as trio_run

from server import items

IDLE_STEPS_MAX = 1_000  # without any task to run; the next deadline is reached without any
POLL_STEPS = 256  # between two looks at the kernel
_TRIO: Any = trio_run  # whose private names are no part of its types
_IO_MANAGER: Any = _TRIO.TheIOManager

OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)
"""The simulated process that a task belongs to. Tasks inherit it; None: the world outside of all servers."""


class Stuck(Exception):
    """Nothing will ever happen again in a world, and yet it is not over."""


class VirtualClock(trio.abc.Clock):
    """Time passes only where no task can run: then it is at once the next deadline.

    What `MockClock(autojump_threshold=0)` does, in half as many steps of Trio's loop. now: virtual seconds.
    """

    def __init__(self, now: float) -> None:
        self._now = now

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Trio asks only while no task can run.
        if self._now < deadline < inf:
            self._now = deadline
        return 0.0


class Scheduler(Random):
    """Trio asks it for the order of every batch of tasks that can run. It also holds the tasks of frozen processes.

    A held task is runnable and does not run: timeouts pass meanwhile and all fire on waking, as after SIGSTOP.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._held: dict[object, list[trio.lowlevel.Task]] = {}
        self._idle_steps = 0

    def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:  # type: ignore[override]
        self._idle_steps = 0 if batch else self._idle_steps + 1
        if self._idle_steps > IDLE_STEPS_MAX:
            raise Stuck("tasks are left that wait for something without a deadline, and nothing is left to happen")
        if self._held:
            kept: list[trio.lowlevel.Task] = []
            for task in batch:
                self._held.get(task.context.get(OWNER), kept).append(task)
            batch[:] = kept
        if len(batch) > 1:
            super().shuffle(batch)

    def freeze(self, owner: object) -> None:
        self._held[owner] = []

    def thaw(self, owner: object) -> None:
        _TRIO.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._held.pop(owner))


def _poll_now_and_then(poll: Callable[..., Any]) -> Callable[..., Any]:
    """A world has no sockets: asking the kernel at every step took a sixth of the time. Ctrl-C comes this way."""
    skipped = 0

    def get_events(manager: object, timeout: float) -> Any:
        nonlocal skipped
        skipped += 1
        if timeout > 0 or skipped % POLL_STEPS == 0:
            return poll(manager, timeout)
        return ()

    return get_events


@contextmanager
def deterministic(seed: int) -> Iterator[Scheduler]:
    """Everything inside happens in the same order for the same seed, whatever PYTHONHASHSEED is.

    Trio has no public way to this (pytest-trio and Hypothesis set the same names). The garbage collector waits: what
    it finalizes would depend on what the process did before.
    """
    scheduler, ids = Scheduler(seed), Random(seed + 1)
    before = _TRIO._r, _TRIO._ALLOW_DETERMINISTIC_SCHEDULING, os.urandom, random.getstate()
    _TRIO._r, _TRIO._ALLOW_DETERMINISTIC_SCHEDULING = scheduler, True
    os.urandom = ids.randbytes  # uuid4, and the nonces of WebSockets
    random.seed(seed)
    wall_clock = items.wall_clock_ms
    items.wall_clock_ms = lambda: int(trio.current_time() * 1000)  # what is said at one virtual moment ties, as it may
    poll = _IO_MANAGER.get_events
    _IO_MANAGER.get_events = _poll_now_and_then(poll)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield scheduler
    finally:
        _TRIO._r, _TRIO._ALLOW_DETERMINISTIC_SCHEDULING, os.urandom = before[:3]
        random.setstate(before[3])
        _IO_MANAGER.get_events = poll
        items.wall_clock_ms = wall_clock
        if collecting:
            gc.enable()
