"""What makes a run repeatable: one seed for Trio's order of tasks, for ids and for every other choice."""

from __future__ import annotations

import gc
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from itertools import chain, count
from math import inf
from operator import attrgetter
from random import Random
from typing import Any

import trio
from lastcall.conversation import items

from .loop import Loop, replacements

IDLE_TURNS_MAX = 1_000  # of the loop without any task to run; the next deadline is reached without any
_counter = attrgetter("_counter")

OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)
"""The simulated process that a task belongs to. Tasks inherit it; None: the world outside of all servers."""


class Stuck(Exception):
    """Nothing will ever happen again in a world, and yet it is not over."""


class VirtualClock(trio.abc.Clock):
    """Time passes only where no task can run: then it is at once the next deadline.

    What `MockClock(autojump_threshold=0)` does, in half as many steps of Trio's loop. now: virtual seconds.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self._sleepers: list[tuple[float, int, _Sleeper]] = []
        self._numbers = count()

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Not asked by the loop of a world."""
        raise NotImplementedError

    def advance(self, deadline: float) -> None:
        """Goes to the next deadline, or to the first sleeper where that is sooner; wakes whose time has come."""
        due = min(deadline, self._sleepers[0][0]) if self._sleepers else deadline
        if self.now < due < inf:
            self.now = due
        while self._sleepers and self._sleepers[0][0] <= self.now:
            heappop(self._sleepers)[2].wake()

    async def sleep_until(self, deadline: float) -> None:
        """What `trio.sleep_until` does. A scope of its own, and its cancellation, would cost five times as much."""
        if deadline <= self.now:
            await trio.lowlevel.checkpoint()
            return
        sleeper = _Sleeper()
        heappush(self._sleepers, (deadline, next(self._numbers), sleeper))
        await trio.lowlevel.wait_task_rescheduled(sleeper.abort)

    async def sleep(self, seconds: float) -> None:
        """What `trio.sleep` does."""
        await self.sleep_until(self.now + seconds)


class _Sleeper:
    """A task that sleeps, until it is cancelled."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)


class Scheduler:
    """Decides the order of every batch of tasks that can run. It also holds the tasks of frozen processes.

    A held task is runnable and does not run: timeouts pass meanwhile and all fire on waking, as after SIGSTOP.

    counts_steps: no step of a task is left out.
    """

    def __init__(self, seed: int, *, counts_steps: bool = False) -> None:
        self._random = Random(seed)
        self.counts_steps = counts_steps
        self._queue: deque[trio.lowlevel.Task] = deque()
        self._batch: list[trio.lowlevel.Task] = []
        self._held: dict[object, list[trio.lowlevel.Task]] = {}
        self._idle_turns = 0

    def begin(self, queue: deque[trio.lowlevel.Task]) -> None:
        """The queue of tasks that can run."""
        self._queue = queue

    def next_batch(self) -> list[trio.lowlevel.Task]:
        """The tasks that can run now, the last one first."""
        batch = self._batch = list(self._queue)
        self._queue.clear()
        if batch:
            self._idle_turns = 0
        else:
            self._idle_turns += 1
            if self._idle_turns > IDLE_TURNS_MAX:
                raise Stuck("tasks are left that wait for something without a deadline, and nothing is left to happen")
        if self._held:
            self._hold_back(batch)
        if len(batch) > 1:
            batch.sort(key=_counter)  # where tasks woke by way of a set, in the order of their addresses
            self._shuffle(batch)
        return batch

    def _shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
        """`Random.shuffle` in a third of its time: most batches are of two."""
        chance = self._random.random
        if len(batch) > 2:
            batch.sort(key=lambda _: chance())
        elif chance() < 0.5:
            batch.reverse()

    def _hold_back(self, batch: list[trio.lowlevel.Task]) -> None:
        kept: list[trio.lowlevel.Task] = []
        for task in batch:
            self._held.get(task.context.get(OWNER), kept).append(task)
        batch[:] = kept

    def may_yield_to_others(self) -> bool:
        """Where no other task can run, a step changes nothing."""
        return bool(self._batch or self._held or self._queue or self.counts_steps)

    def freeze(self, owner: object) -> None:
        self._held[owner] = []

    def thaw(self, owner: object) -> None:
        self._queue.extend(self._held.pop(owner))


async def until(true: Callable[[], bool], seconds: float, look_seconds: float) -> bool:
    """Whether it came true in time. Looked at now and then, where nobody is there to set an event."""
    end = trio.current_time() + seconds
    while not (came := true()) and trio.current_time() < end:  # noqa: ASYNC110 - virtual time
        await trio.sleep(look_seconds)
    return came


@contextmanager
def _replaced(replacements: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """What modules and classes have under some names is something else inside."""
    before = []
    try:
        for place, name, other in replacements:
            before.append((place, name, getattr(place, name)))
            setattr(place, name, other)
        yield
    finally:
        for place, name, function in reversed(before):
            setattr(place, name, function)


@contextmanager
def deterministic(seed: int, clock: VirtualClock, *, counts_steps: bool = False) -> Iterator[Scheduler]:
    """Everything inside happens in the same order for the same seed, whatever PYTHONHASHSEED is.

    clock: of the run inside; all look at it and sleep by it. counts_steps: no step of a task is left out. Trio has no
    public way to this. The garbage collector waits: what it finalizes would depend on what the process did before.
    """
    scheduler, ids = Scheduler(seed, counts_steps=counts_steps), Random(seed + 1)
    chance = random.getstate()
    random.seed(seed)
    collecting = gc.isenabled()
    gc.disable()
    own = [
        (os, "urandom", ids.randbytes),  # uuid4, and the nonces of WebSockets
        (items, "wall_clock_ms", lambda: int(clock.now * 1000)),  # what is said at one virtual moment ties, as it may
    ]
    try:
        with _replaced(chain(own, replacements(Loop(clock, scheduler), clock))):
            yield scheduler
    finally:
        random.setstate(chance)
        if collecting:
            gc.enable()
