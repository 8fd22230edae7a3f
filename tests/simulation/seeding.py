"""What makes a run repeatable: one seed for Trio's order of tasks, for ids and for every other choice."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

import trio
import trio._core._run as trio_run

from server import items

from . import scopes

IDLE_STEPS_MAX = 1_000  # without any task to run; the next deadline is reached without any
_PLACES: tuple[Any, ...] = (trio, trio.lowlevel, trio._core, trio_run)
POLL_STEPS = 256  # between two looks at the kernel
_TRIO: Any = trio_run  # whose private names are no part of its types
_IO_MANAGER: Any = _TRIO.TheIOManager
_CHECKPOINT = trio.lowlevel.cancel_shielded_checkpoint

OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)
"""The simulated process that a task belongs to. Tasks inherit it; None: the world outside of all servers."""


class Stuck(Exception):
    """Nothing will ever happen again in a world, and yet it is not over."""


class VirtualClock(trio.abc.Clock):
    """Time passes only where no task can run: then it is at once the next deadline.

    What `MockClock(autojump_threshold=0)` does, in half as many steps of Trio's loop. now: virtual seconds.

    counts_steps: the run may have instruments, and no step of a task is left out. They cost a tenth of the time.
    """

    def __init__(self, now: float, *, counts_steps: bool = False) -> None:
        self.counts_steps = counts_steps
        self._now = now
        self._sleepers: list[tuple[float, int, trio.lowlevel.Task]] = []
        self._numbers = count()
        self._gone: set[int] = set()

    def start_clock(self) -> None:
        """Nothing to start. Where nobody listens to Trio's steps, Trio need not ask ten times in each."""
        if not self.counts_steps:
            _TRIO.GLOBAL_RUN_CONTEXT.runner.instruments = {}

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Trio asks only while no task can run.
        due = min(deadline, self._sleepers[0][0]) if self._sleepers else deadline
        if self._now < due < inf:
            self._now = due
        self._wake()
        return 0.0

    async def sleep_until(self, deadline: float) -> None:
        """What `trio.sleep_until` does. A scope of its own, and its cancellation, would cost five times as much."""
        if deadline <= self._now:
            await trio.lowlevel.checkpoint()
            return
        number = next(self._numbers)
        heappush(self._sleepers, (deadline, number, trio.lowlevel.current_task()))

        def abort(_raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
            self._gone.add(number)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def sleep(self, seconds: float) -> None:
        """What `trio.sleep` does."""
        await self.sleep_until(self._now + seconds)

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, number, task = heappop(self._sleepers)
            if number in self._gone:
                self._gone.remove(number)
            else:
                trio.lowlevel.reschedule(task)


class Scheduler(Random):
    """Trio asks it for the order of every batch of tasks that can run. It also holds the tasks of frozen processes.

    A held task is runnable and does not run: timeouts pass meanwhile and all fire on waking, as after SIGSTOP.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._batch: list[trio.lowlevel.Task] = []
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
        self._batch = batch

    async def cancel_shielded_checkpoint(self) -> None:
        """What Trio's does, but for those who are alone: where no other task can run, a step changes nothing."""
        if self._batch or self._held or _TRIO.GLOBAL_RUN_CONTEXT.runner.runq:
            await _CHECKPOINT()

    def freeze(self, owner: object) -> None:
        self._held[owner] = []

    def thaw(self, owner: object) -> None:
        _TRIO.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._held.pop(owner))


async def until(true: Callable[[], bool], seconds: float, look_seconds: float) -> bool:
    """Whether it came true in time. Looked at now and then, where nobody is there to set an event."""
    end = trio.current_time() + seconds
    while not (came := true()) and trio.current_time() < end:  # noqa: ASYNC110 - virtual time
        await trio.sleep(look_seconds)
    return came


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
def _replaced(names: Mapping[str, Any]) -> Iterator[None]:
    """Trio with other functions under their public names, which its own modules use too; and its scopes."""
    chosen = [(place, name, names[name]) for place in _PLACES for name in names if hasattr(place, name)]
    chosen += [(trio.CancelScope, name, function) for name, function in scopes.NAMES.items()]
    before = [(place, name, getattr(place, name)) for place, name, _ in chosen]
    for place, name, function in chosen:
        setattr(place, name, function)
    try:
        yield
    finally:
        for place, name, function in before:
            setattr(place, name, function)


@contextmanager
def deterministic(seed: int, clock: VirtualClock) -> Iterator[Scheduler]:
    """Everything inside happens in the same order for the same seed, whatever PYTHONHASHSEED is.

    clock: of the run inside; all look at it and sleep by it. Trio has no public way to this (pytest-trio and Hypothesis
    set the same names). The garbage collector waits: what it finalizes would depend on what the process did before.
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
    names = {
        "sleep": clock.sleep,
        "sleep_until": clock.sleep_until,
        "current_time": clock.current_time,
    }
    if not clock.counts_steps:
        names["cancel_shielded_checkpoint"] = scheduler.cancel_shielded_checkpoint
    try:
        with _replaced(names):
            yield scheduler
    finally:
        _TRIO._r, _TRIO._ALLOW_DETERMINISTIC_SCHEDULING, os.urandom = before[:3]
        random.setstate(before[3])
        _IO_MANAGER.get_events = poll
        items.wall_clock_ms = wall_clock
        if collecting:
            gc.enable()
